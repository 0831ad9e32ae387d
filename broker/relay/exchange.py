"""One downstream request in flight, with all that belongs to it alone.

Progress of the upstream call passes here, under the caller's token and at a bounded rate. Cancellation needs no
code: whoever runs the request cancels its task, and the link cancels upstream what it was waiting for.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from broker.clock import Clock
from broker.core.progress import ProgressGate
from broker.core.shape import is_object

Emit = Callable[[str, dict[str, Any]], None]
"""Send a notification to the caller of this request, ahead of its result: method, parameters. Never blocks."""


class Exchange:
    """See the module. `progress_token` is the caller's, None if it asked for no progress."""

    def __init__(self, clock: Clock, emit: Emit, progress_token: str | int | None = None) -> None:
        self._clock = clock
        self._emit = emit
        self._token = progress_token
        self._gate: ProgressGate | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    @classmethod
    def of_params(cls, clock: Clock, emit: Emit, params: dict[str, Any]) -> "Exchange":
        """The exchange of a request with these parameters."""
        meta = params.get("_meta")
        token = meta.get("progressToken") if is_object(meta) else None
        return cls(clock, emit, token if type(token) is int or type(token) is str else None)

    @property
    def wants_progress(self) -> bool:
        """Whether the caller asked for progress, so that the upstream is asked too."""
        return self._token is not None

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """A notification of the upstream that belongs to this request."""
        if self._is_over or method != "notifications/progress" or self._token is None:
            return
        if self._gate is None:
            self._gate = ProgressGate(self._clock.now())
        self._send(self._gate.offer(params, self._clock.now()))
        self._set_timer()

    def finish(self) -> None:
        """The result is here: what progress was kept goes out before it, and nothing after (SP-35)."""
        if self._timer is not None:
            self._timer.cancel()
        if self._gate is not None and not self._is_over:
            self._send(self._gate.flush())
        self._is_over = True

    def abandon(self) -> None:
        """The caller has cancelled, or is gone: what was kept is of no use, and nothing may be said any more."""
        self._is_over = True

    def _send(self, params: dict[str, Any] | None) -> None:
        if params is not None:
            self._emit("notifications/progress", {**params, "progressToken": self._token})

    def _set_timer(self) -> None:
        assert self._gate is not None
        due = self._gate.due()
        if due is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._gate is not None and not self._is_over:
            self._send(self._gate.release(self._clock.now()))
            self._set_timer()
