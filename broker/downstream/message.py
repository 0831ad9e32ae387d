"""A decoded JSON-RPC message, judged: what is it, and may it stand here?

Only what `judge` returns is dispatched, and it is what is sent on: there is no second reading of the bytes.
"""

from collections.abc import Mapping
from typing import Any, Final

from broker.core import wire
from broker.core.era import (
    META_CLIENT_CAPABILITIES,
    META_LOG_LEVEL,
    META_PROGRESS,
    META_VERSION,
    MODERN_VERSIONS,
    Version,
)
from broker.core.logs import is_level
from broker.core.shape import is_array, is_object
from broker.errors import BrokerError, InvalidParams, InvalidRequest, ParseError, UnsupportedVersion
from broker.turns import in_turns

_MESSAGE_KEYS: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_PARAM_KEYS: Final = frozenset(
    {"name", "uri", "arguments", "_meta", "ref", "argument", "cursor", "task", "inputResponses", "requestState"}
)
MODERN: Final = {str(version): version for version in MODERN_VERSIONS}
"""The versions that stand alone, as they are asked for."""
_REFERENCE_KEYS: Final = frozenset({"type", "name", "uri"})


class Incoming:
    """One message of a caller, never changed once it is read (a frozen dataclass takes three times as long to make).

    `id` is None for a notification; a posted response has an `answer` (the message, with its `result` or `error`) and
    no method. `size`: bytes that it came in.
    """

    __slots__ = ("answer", "id", "is_request", "meta", "method", "params", "progress_token", "size")

    def __init__(
        self,
        id: str | int | None,
        method: str,
        params: dict[str, Any] | None = None,
        answer: Mapping[str, Any] | None = None,
        size: int = 0,
    ) -> None:
        self.id = id
        self.method = method
        self.params: dict[str, Any] = {} if params is None else params
        self.answer = answer
        self.size = size
        meta = self.params.get("_meta")
        self.meta: dict[str, Any] = meta if is_object(meta) else {}
        """What is said beside the parameters; empty if that is no object."""
        self.is_request = id is not None and answer is None
        """Whether it must be answered."""
        token = self.meta.get(META_PROGRESS)
        self.progress_token: str | int | None = token if type(token) in wire.ID_TYPES else None
        """The token under which its caller wants progress."""


class Rejected(Exception):
    """A message that is not dispatched, with the id to answer under (None if it has none that can be read)."""

    def __init__(self, error: BrokerError, request_id: str | int | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.id = request_id


def parse(data: bytes) -> Incoming:
    """A message from bytes.

    Raises: Rejected.
    """
    try:
        value = wire.decode(data, wire.FROM_CALLER)
    except wire.Malformed as error:
        raise _unreadable(error) from None
    return judge(value, len(data))


async def parse_in_turns(data: bytes) -> Incoming:
    """The same of bytes that are long (`wire.is_long`).

    Raises: Rejected.
    """
    try:
        value = await in_turns(wire.decoding(data, wire.FROM_CALLER))
    except wire.Malformed as error:
        raise _unreadable(error) from None
    return judge(value, len(data))


def _unreadable(error: wire.Malformed) -> Rejected:
    return Rejected(ParseError(f"Parse error: {error}"))


def judge(message: Any, size: int) -> Incoming:
    """The one reading of a message, which came in `size` bytes.

    Raises: Rejected.
    """
    if not is_object(message):
        what = "batches are not served" if is_array(message) else "not an object"
        raise Rejected(InvalidRequest(f"The body must be a single JSON-RPC message: {what}"))
    request_id = message.get("id")
    readable = request_id if type(request_id) in wire.ID_TYPES else None
    if not _MESSAGE_KEYS.issuperset(message):
        _refuse_lookalikes(message, _MESSAGE_KEYS, readable)
    if message.get("jsonrpc") != "2.0":
        raise Rejected(InvalidRequest('jsonrpc must be "2.0"'), readable)
    if "id" in message and readable is None:
        raise Rejected(InvalidRequest("id must be a string or an integer"))
    method = message.get("method")
    if "method" not in message and readable is not None and ("result" in message) != ("error" in message):
        return Incoming(readable, "", answer=message, size=size)
    if not isinstance(method, str) or not method:
        raise Rejected(InvalidRequest("method must be a string"), readable)
    params = message.get("params", {})
    if not is_object(params):
        raise Rejected(InvalidRequest("params must be an object"), readable)
    if not _PARAM_KEYS.issuperset(params):
        _refuse_lookalikes(params, _PARAM_KEYS, readable)
    if "ref" in params and is_object(params["ref"]):
        _refuse_lookalikes(params["ref"], _REFERENCE_KEYS, readable)
    return Incoming(readable, method, params, None, size)


Envelope = tuple[Version, Mapping[str, Any], str | None]
"""What every modern request says of its caller: version, capabilities, and the level from which on it reads logs."""


def envelope_of(incoming: Incoming) -> Envelope:
    """The envelope of a modern request.

    Raises: InvalidParams, if it is not whole; UnsupportedVersion.
    """
    meta = incoming.meta
    requested, capabilities = meta.get(META_VERSION), meta.get(META_CLIENT_CAPABILITIES)
    level = meta.get(META_LOG_LEVEL)
    if not isinstance(requested, str):
        raise InvalidParams(f"params._meta[{META_VERSION!r}] must be a string")
    version = MODERN.get(requested)
    if version is None:
        raise UnsupportedVersion(requested, MODERN_VERSIONS)
    if not is_object(capabilities):
        raise InvalidParams(f"params._meta[{META_CLIENT_CAPABILITIES!r}] must be an object")
    if level is not None and not is_level(level):
        raise InvalidParams(f"params._meta[{META_LOG_LEVEL!r}] is no level")
    return version, capabilities, level


def result_bytes(request_id: str | int, result: Mapping[str, Any]) -> bytes:
    """A JSON-RPC response with a result."""
    return wire.encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def writing_result(request_id: str | int, result: Mapping[str, Any]) -> wire.Steps[bytes]:
    """The same in steps."""
    return wire.encoding({"jsonrpc": "2.0", "id": request_id, "result": result})


def error_bytes(request_id: str | int | None, error: BrokerError) -> bytes:
    """A JSON-RPC response with an error; `"id": null` if the id could not be read."""
    return wire.encode({"jsonrpc": "2.0", "id": request_id, "error": error.to_json()})


def request_bytes(request_id: int, method: str, params: Mapping[str, Any]) -> bytes:
    """A JSON-RPC request to a legacy caller."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
    if params:
        message["params"] = params
    return wire.encode(message)


def writing_request(request_id: int, method: str, params: Mapping[str, Any]) -> wire.Steps[bytes]:
    """The same in steps."""
    return wire.encoding({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def notification_bytes(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """A JSON-RPC notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params:
        message["params"] = params
    return wire.encode(message)


def _refuse_lookalikes(holder: Mapping[str, Any], known: frozenset[str], request_id: str | int | None) -> None:
    """Some readers fold case: what we judged as `name` they would take from `Name` (I-11)."""
    for key in holder:
        if key not in known and (key.casefold() in known or key.lower() in known):
            raise Rejected(InvalidRequest("a key differs from a protocol key only by case"), request_id)
