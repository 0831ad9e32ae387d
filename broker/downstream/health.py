"""What `/readyz` says: `ok`, or what is not well, a line each. It is public: it names no place, and quotes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Unwell:
    """Something that the broker needs. `is_needed`: calls fail while it is so, and should be sent elsewhere."""

    what: str
    how: str
    is_needed: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.how}"


Check = Callable[[], Unwell | None]
"""Asked at each look: it must not wait."""


class Health:
    """See the module."""

    def __init__(self, checks: Sequence[Check] = ()) -> None:
        self._checks = tuple(checks)

    def page(self, *, is_closing: bool) -> tuple[int, bytes]:
        """The status, and the body: 503 while calls should be sent elsewhere."""
        found = [Unwell("broker", "closing", is_needed=True)] if is_closing else []
        found += [unwell for check in self._checks if (unwell := check()) is not None]
        body = "".join(f"{one}\n" for one in found) or "ok\n"
        return 503 if any(one.is_needed for one in found) else 200, body.encode()


WELL: Final = Health()
"""For who looks at nothing."""
