"""What is true of a broker at one moment, when somebody looks."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Gauge:
    """One value. `name` is without the prefix that all have; all of one name have the same labels."""

    name: str
    meaning: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    is_counter: bool = False
    """Whether it only grows while the broker runs."""
