"""How the process is doing, for whoever lets requests in."""

from broker.clock import Clock
from broker.downstream.health import Check, Unwell
from broker.downstream.memory import Memory
from broker.downstream.pulse import Pulse
from broker.usage.gauges import Gauge


class Vitals:
    """Its memory and its event loop."""

    def __init__(self, clock: Clock, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self.pulse = Pulse(clock)

    def checks(self) -> tuple[Check, ...]:
        """What keeps requests away for now."""
        return (
            lambda: Unwell("memory", "short", is_needed=True) if self.memory.is_high else None,
            lambda: None if self.pulse.is_well else Unwell("event loop", "hung", is_needed=True),
        )

    def gauges(self) -> list[Gauge]:
        """What is measured."""
        memory, pulse = self.memory, self.pulse
        return [
            Gauge("memory_bytes", "Memory that the process holds.", memory.used),
            Gauge("memory_max_bytes", "The most that it may hold; 0: no limit.", memory.limit or 0),
            Gauge("loop_silence_seconds", "The longest time in which the event loop did not turn.", pulse.worst),
            Gauge("loop_hangs", "Times that it did not turn for a second.", pulse.hangs, is_counter=True),
        ]
