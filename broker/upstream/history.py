"""What has become of a server's connections since the broker has it; for `mcp-broker status` and the API."""

from dataclasses import dataclass

from broker.core.lifecycle import Event


@dataclass(slots=True)
class History:
    """Times are seconds since 1970."""

    since: float
    """When it came into the state that it is in."""
    opened: int = 0
    """Connections that were opened."""
    last_error: str = ""
    """Why the last one was lost, or came to nothing; "" if none was."""
    last_error_at: float | None = None
    last_words: tuple[str, ...] = ()
    """What the process of that one logged last, a line each."""

    def note(self, event: Event, now: float) -> None:
        """Something has happened."""
        self.since = now
        self.opened += event is Event.OPENED

    def ended(self, why: str, words: tuple[str, ...], now: float) -> None:
        """A connection is lost, or came to nothing."""
        self.last_error, self.last_error_at, self.last_words = why, now, words or self.last_words
