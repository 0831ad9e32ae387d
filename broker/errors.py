"""Everything that can go wrong with a request, and the one table that says how it is answered.

A `BrokerError` is an answer: raise it anywhere below a front and the front turns it into the JSON-RPC error
(and, over HTTP, the status) of its row. Nothing else may cross that boundary: a front answers any other
exception with `InternalError` and logs the cause, so that no text of a fault ever reaches a caller.

Eight boundaries catch everything, log it, and go on: `identity/identity.py` for a credential, and `downstream/vigil.py`
for one whose stream is open (they deny); `downstream/engine.py` for a request; `downstream/stream.py` for the stream of
its response; `downstream/connection.py` for whatever else answers an HTTP request; `upstream/supervise.py` and
`isolated.py` for a connection; `outputs/checks.py` for a look at a result; `reload.py` for a reload (what was in force
stays).
"""

from math import ceil
from typing import Any, Final

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
RESOURCE_NOT_FOUND: Final = -32002
"""Legacy only; a modern caller gets `INVALID_PARAMS` (`core/era.py`)."""
URL_ELICITATION_REQUIRED: Final = -32042
"""2025-11-25 only."""
HEADER_MISMATCH: Final = -32020
MISSING_CLIENT_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
REFUSED: Final = 4030
"""A rule or a guardrail refuses what was asked of a visible entry."""
LIMITED: Final = 4290
"""A limit is reached: of calls in a time, of calls at a time, or of what they cost."""
UNRECORDED: Final = 5030
"""The audit is required, and cannot be written."""

HTTP_STATUS: Final[dict[int, int]] = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CLIENT_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""JSON-RPC code -> HTTP status on the modern face; a code without a row, and every legacy answer, is 200.

Spec: 2026-07-28 basic/transports/streamable-http, "Protocol Version Header" and "Server Validation".
"""

MAX_FOREIGN_TEXT: Final = 200
"""Characters of an upstream's text (a page, a stderr line, an exception) that an error may quote."""


class BrokerError(Exception):
    """An answer to a request. `code` is JSON-RPC's; `data` is JSON or None (then it is left out)."""

    code: int = INTERNAL_ERROR

    def __init__(self, message: str, data: Any = None, *, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        if code is not None:
            self.code = code

    def to_json(self) -> dict[str, Any]:
        """The `error` member of a JSON-RPC response."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return error


class ParseError(BrokerError):
    """The bytes are not strict JSON, or are more than the limits allow."""

    code = PARSE_ERROR


class InvalidRequest(BrokerError):
    """JSON, but not a JSON-RPC message that may stand here."""

    code = INVALID_REQUEST


class MethodNotFound(BrokerError):
    """Nobody here serves this method."""

    code = METHOD_NOT_FOUND

    def __init__(self, method: str) -> None:
        super().__init__(f"Method not found: {printable(method)}")


class InvalidParams(BrokerError):
    """The parameters do not fit the method."""

    code = INVALID_PARAMS


class UnknownName(BrokerError):
    """No such tool or prompt for this caller: unknown and hidden are the same answer, byte for byte."""

    code = INVALID_PARAMS

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"Unknown {what}: {printable(name)}")


class UnknownResource(BrokerError):
    """No such resource for this caller. `code` is that of the caller's era: -32002 before 2026-07-28, then -32602."""

    def __init__(self, uri: str, code: int) -> None:
        super().__init__("Resource not found", {"uri": uri}, code=code)


class UnsupportedVersion(BrokerError):
    """A protocol version the broker does not serve. Spec: 2026-07-28 basic/versioning."""

    code = UNSUPPORTED_VERSION

    def __init__(self, requested: str, supported: tuple[str, ...]) -> None:
        super().__init__(
            "Unsupported protocol version", {"supported": list(supported), "requested": printable(requested)}
        )


class HeaderMismatch(BrokerError):
    """HTTP headers and body disagree. Spec: 2026-07-28 basic/transports/streamable-http, "Server Validation"."""

    code = HEADER_MISMATCH


class MissingCapability(BrokerError):
    """A modern caller did not declare what its request needs. Spec: 2026-07-28 basic, "Error Codes"."""

    code = MISSING_CLIENT_CAPABILITY

    def __init__(self, required: dict[str, Any]) -> None:
        super().__init__("Missing required client capability", {"requiredCapabilities": required})


class InternalError(BrokerError):
    """A fault of the broker: the caller gets `error_id`, the log has the cause under it."""

    def __init__(self, error_id: str) -> None:
        super().__init__("Internal error", {"errorId": error_id})


class Refused(BrokerError):
    """A rule refuses what was asked of an entry that the caller may see: another call would be permitted.

    A call of a tool is answered with `isError` and this text instead: its model can do better.
    """

    code = REFUSED

    def __init__(self, public: str, argument: str, rule: str) -> None:
        super().__init__(
            f"{printable(public)} is not permitted with this {argument!r}: rule {rule} refuses it",
            {"argument": argument, "rule": rule},
        )


class UpstreamUnavailable(BrokerError):
    """The upstream is connecting, down or gone: said at once, never after a time-out (F-01, F-03)."""

    def __init__(self, upstream: str, why: str) -> None:
        super().__init__(f"Server {upstream!r} is unavailable: {why}", {"upstream": upstream, "reason": why})
        self.why = why


class UpstreamTimedOut(BrokerError):
    """The upstream did not answer in time; it has been told that nobody waits any more."""

    def __init__(self, upstream: str, seconds: float) -> None:
        super().__init__(
            f"Server {upstream!r} did not answer within {seconds:g} s", {"upstream": upstream, "reason": "timeout"}
        )


class NotWatched(BrokerError):
    """The upstream does not tell of changes of what was asked for. Which it was, the caller knows."""

    def __init__(self, upstream: str) -> None:
        super().__init__(
            f"Server {upstream!r} does not tell of changes of this", {"upstream": upstream, "reason": "subscription"}
        )


class MalformedAnswer(BrokerError):
    """The upstream answered with something that is not an answer (F-12, F-22, F-30..F-33, F-60)."""

    def __init__(self, upstream: str, why: str) -> None:
        super().__init__(
            f"Server {upstream!r} gave a malformed answer: {why}", {"upstream": upstream, "reason": "malformed"}
        )


class UpstreamAnsweredError(BrokerError):
    """The upstream's own JSON-RPC error: code, message and data pass as they are."""


class Blocked(BrokerError):
    """A guardrail refuses, or could not decide. The caller learns its name; why is in audit and log only.

    A tool call is answered with a result that says so (`isError`), everything else with this error.
    """

    code = REFUSED

    def __init__(self, guardrail: str) -> None:
        super().__init__(f"blocked by guardrail {guardrail}", {"guardrail": guardrail})


class LimitReached(BrokerError):
    """A limit is reached; nothing was sent, and nothing counted. A call of a tool is answered with `isError` and this
    text instead: its model can wait.

    `level`: whose limit, such as `team:acme/data`; `limit`: which, such as `100/minute`; `retry_after`: seconds.
    """

    code = LIMITED

    def __init__(self, level: str, limit: str, retry_after: float) -> None:
        self.level, self.limit = level, limit
        seconds = max(1, ceil(retry_after))
        super().__init__(
            f"{shown_level(level)} has reached its limit of {limit}: try again in {seconds} s",
            {"level": level, "limit": limit, "retryAfter": seconds},
        )


class BudgetReached(LimitReached):
    """What the call could cost is more than is left of a budget. `limit`: such as `100/day`; `resets`: when it begins
    anew, in ISO 8601; `retry_after`: seconds until trying again may help.
    """

    def __init__(self, level: str, limit: str, resets: str, retry_after: float) -> None:
        super().__init__(level, f"budget {limit}", retry_after)
        self.message = f"{shown_level(level)} has used up its budget of {limit}: it begins anew at {resets}"
        self.data["resets"] = resets


class BudgetUnknown(LimitReached):
    """The database does not say what is left of a budget: nobody may spend of it meanwhile."""

    def __init__(self, level: str, retry_after: float) -> None:
        super().__init__(level, "budget", retry_after)
        self.message = f"the budget of {shown_level(level)} cannot be looked up now: try again later"


class Unrecorded(BrokerError):
    """The decision cannot be recorded, and what cannot be recorded is not done (`audit.required`). Nothing was sent."""

    code = UNRECORDED

    def __init__(self) -> None:
        super().__init__("The audit cannot be written now: the call was not made", {"reason": "audit"})


class CannotAsk(BrokerError):
    """A question of an upstream that reaches nobody, as the upstream is answered. -32601: nobody offers it."""

    code = METHOD_NOT_FOUND


def shown_level(level: str) -> str:
    """`team acme/data`."""
    return level.replace(":", " ", 1)


def printable(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """`text` for a message or a log line: control characters escaped, at most `limit` characters.

    A name is chosen by whoever sends it, and a terminal or a log viewer obeys what it prints (I-40, I-45).
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode("ascii") for ch in cut)
