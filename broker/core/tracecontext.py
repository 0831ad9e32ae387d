"""The trace that a message belongs to: W3C Trace Context, in `_meta` and in HTTP headers.

Spec: 2026-07-28 basic, "OpenTelemetry trace context": the keys `traceparent`, `tracestate` and `baggage` of `_meta`.
What is not of the form of W3C is nobody's trace: it passes on as any other key does, and is joined by nobody.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.core.shape import is_object

PARENT: Final = "traceparent"
STATE: Final = "tracestate"
_PARENT_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_STATE_FORM: Final = re.compile(r"[\x20-\x7e]{1,512}")
MAX_PARENT: Final = 128
"""Characters. A later version of the header may be longer than that of today (55)."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """`parent` and `state` as they are sent; `state` is "" for none."""

    parent: str
    state: str = ""

    @property
    def trace(self) -> str:
        """The id of the trace: 32 hexadecimal digits."""
        return self.parent[3:35]

    def on(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters that carry it, in place of what they carried."""
        meta = params.get("_meta")
        kept = {name: one for name, one in meta.items() if name != STATE} if is_object(meta) else dict[str, Any]()
        return {**params, "_meta": {**kept, PARENT: self.parent, **({STATE: self.state} if self.state else {})}}

    def headers(self) -> dict[str, str]:
        """It as HTTP headers."""
        return {PARENT: self.parent, STATE: self.state} if self.state else {PARENT: self.parent}


def context_in(params: Mapping[str, Any]) -> TraceContext | None:
    """What the `_meta` of a request says of its trace."""
    meta = params.get("_meta")
    return None if not is_object(meta) or PARENT not in meta else context_of(meta.get)


def context_of(get: Callable[[str], object]) -> TraceContext | None:
    """What a carrier says of a trace: `get` gives the values of headers, or of keys."""
    parent, state = get(PARENT), get(STATE)
    if not isinstance(parent, str) or len(parent) > MAX_PARENT:
        return None
    found = _PARENT_FORM.fullmatch(parent)
    if found is None or (parent.startswith("00") and found[2] is not None):
        return None
    is_state = isinstance(state, str) and _STATE_FORM.fullmatch(state) is not None
    return TraceContext(parent, str(state) if is_state else "")
