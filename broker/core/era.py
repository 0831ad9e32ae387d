"""Protocol eras: which version is which, what a hop sets afresh, and what changes when the two sides differ.

Neither side's era ever decides the other's. Everything that is not named here passes untouched.
The table this implements is in docs/protocol.md, "What changes when the eras differ".
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NewType

from broker.core.questions import Question
from broker.core.shape import is_object

Version = NewType("Version", str)

LEGACY_VERSIONS: Final = (Version("2024-11-05"), Version("2025-03-26"), Version("2025-06-18"), Version("2025-11-25"))
"""Oldest first. An `initialize` handshake, sessions on HTTP, requests from server to client."""
MODERN_VERSIONS: Final = (Version("2026-07-28"),)
"""Oldest first. No handshake, no session; `_meta` on every request."""
LATEST_LEGACY: Final = LEGACY_VERSIONS[-1]
LATEST_MODERN: Final = MODERN_VERSIONS[-1]
ALL_VERSIONS: Final = (*LEGACY_VERSIONS, *MODERN_VERSIONS)

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CLIENT_INFO: Final = "io.modelcontextprotocol/clientInfo"
META_CLIENT_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
META_SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
META_PROGRESS: Final = "progressToken"

PER_HOP: Final = frozenset(
    {
        META_VERSION,
        META_CLIENT_INFO,
        META_CLIENT_CAPABILITIES,
        META_LOG_LEVEL,
        META_SERVER_INFO,
        META_SUBSCRIPTION,
        META_PROGRESS,
    }
)
"""Keys of `_meta` that speak of one connection: dropped where a message comes in, set afresh where it goes out."""

NEGOTIATED: Final = ("extensions", "experimental")
"""Members of the capabilities whose names both sides must declare (`core/extensions.py`)."""
TASKS: Final = "io.modelcontextprotocol/tasks"
"""The tasks extension, for the modern era alone; 2025-11-25 has tasks of its own."""
APPS: Final = "io.modelcontextprotocol/ui"
"""MCP Apps."""
RELATED_TASK: Final = "io.modelcontextprotocol/related-task"
"""Key of `_meta` that says which task a message belongs to."""

CARRIED_CAPABILITIES: Final = frozenset({"elicitation", "sampling", "roots", *NEGOTIATED})
"""What the broker can carry between an upstream and the caller that owns the call (`core/questions.py`).

Only what is here is declared upstream: a server that is told its host can be asked, and is then refused, is worse
off than one that knows. Not `tasks`: to a caller all servers behind the broker are one, so that a server could list,
and read, what the caller does for another.
"""
SHARED_CAPABILITIES: Final[Mapping[str, Any]] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"context": {}, "tools": {}},
    "roots": {"listChanged": True},
    "extensions": {APPS: {"mimeTypes": ["text/html;profile=mcp-app"]}},
}
"""What a legacy upstream is told on a link that many callers share: all that can be carried. The truth is kept for
each question: a caller that lacks it is not asked.

Of the extensions MCP Apps alone, which ask nothing of a caller: definitions name a `ui://` resource, and who does not
know it goes by. Any other extension, and experimental features, change what the server may send; on a shared
link nobody can promise that its reader will understand it."""

CACHEABLE: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
"""Results that must carry `ttlMs` and `cacheScope`. Spec: 2026-07-28 server/utilities/caching."""
MAX_TTL_MS: Final = 300_000
"""Milliseconds for which anything may be taken as fresh: "for ever" would freeze what callers see."""

_RESOURCE_NOT_FOUND = -32002
_INVALID_PARAMS = -32602
_INTERNAL_ERROR = -32603
_MODERN_ONLY = (-32020, -32021, -32022)
_RESERVED = range(-32099, -32019)


is_modern: Final[Callable[[str], bool]] = frozenset[str](MODERN_VERSIONS).__contains__
"""Whether a version is served without a handshake. An unknown one is not. Asked a dozen times in every call."""


def knows_tasks(version: str) -> bool:
    """Whether a version has tasks in its core: 2025-11-25 only."""
    return version == LATEST_LEGACY


def needs_task(tool: Mapping[str, Any]) -> bool:
    """Whether a tool of a legacy upstream can be called as a task only."""
    execution = tool.get("execution")
    return is_object(execution) and execution.get("taskSupport") == "required"


def negotiate(requested: object) -> Version:
    """The version an `initialize` is answered with: the one asked for if it is legacy and known, else the latest.

    Spec: 2025-11-25 basic/lifecycle, "Version Negotiation".
    """
    for version in LEGACY_VERSIONS:
        if version == requested:
            return version
    return LATEST_LEGACY


def declared_upstream(capabilities: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Of a caller's capabilities, those that the broker may declare to an upstream on its behalf.

    `version` is that of either side, and what goes from one to the other has passed here for both: the tasks extension
    is for modern sides.
    """
    if not capabilities:
        return {}
    if CARRIED_CAPABILITIES.issuperset(capabilities):
        kept = dict(capabilities)
    else:
        kept = {name: value for name, value in capabilities.items() if name in CARRIED_CAPABILITIES}
    extensions = kept.get("extensions")
    if not is_modern(version) and is_object(extensions) and TASKS in extensions:
        kept["extensions"] = {name: value for name, value in extensions.items() if name != TASKS}
    return kept


def hop_params(
    params: Mapping[str, Any],
    version: Version,
    *,
    client: Mapping[str, Any],
    capabilities: Mapping[str, Any],
    progress_token: int | None,
    log_level: str | None = None,
) -> dict[str, Any]:
    """`params` as they go upstream: the same, with the `_meta` of this hop.

    `version` is the upstream's. A legacy request without any `_meta` left gets none.
    """
    outgoing = dict(params)
    meta = passing_meta(outgoing.pop("_meta")) if "_meta" in outgoing else {}
    if progress_token is not None:
        meta[META_PROGRESS] = progress_token
    if is_modern(version):
        meta[META_VERSION] = version
        meta[META_CLIENT_INFO] = client
        meta[META_CLIENT_CAPABILITIES] = capabilities
        if log_level is not None:
            meta[META_LOG_LEVEL] = log_level
    if meta:
        outgoing["_meta"] = meta
    return outgoing


def passing_meta(meta: object) -> dict[str, Any]:
    """The keys of a `_meta` that concern both ends, not one hop."""
    if not is_object(meta) or PER_HOP.issuperset(meta):
        return {}
    return {name: value for name, value in meta.items() if name not in PER_HOP}


def passing_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a notification less what concerns one hop."""
    meta = passing_meta(params.get("_meta"))
    passing = {name: value for name, value in params.items() if name != "_meta"}
    return {**passing, "_meta": meta} if meta else passing


def result_for_caller(
    method: str,
    result: dict[str, Any],
    *,
    upstream: Version,
    caller: Version,
    server: Mapping[str, Any],
    scope: str = "private",
) -> dict[str, Any]:
    """An upstream's result as the caller's era has it. `result` is changed in place and returned.

    `server` is the broker's own `serverInfo`, which modern results carry; `scope` the widest `cacheScope` that a result
    may have: where rules could make two callers differ, what one has read is nobody else's.
    """
    meta = passing_meta(result["_meta"]) if "_meta" in result else {}
    if is_modern(caller):
        result.setdefault("resultType", "complete")
        if method in CACHEABLE:
            if not is_modern(upstream):
                result["ttlMs"], result["cacheScope"] = 0, "private"
            else:
                result["ttlMs"] = ttl_ms(result.get("ttlMs"))
                result["cacheScope"] = "public" if scope == result.get("cacheScope") == "public" else "private"
        meta[META_SERVER_INFO] = server
    elif is_modern(upstream):
        result.pop("resultType", None)
        if method in CACHEABLE:
            result.pop("ttlMs", None)
            result.pop("cacheScope", None)
        _legacy_structured_content(result)
    if meta:
        result["_meta"] = meta
    else:
        result.pop("_meta", None)
    return result


def ttl_ms(given: object) -> int:
    """A `ttlMs` as it may stand: an integer of milliseconds from 0 to `MAX_TTL_MS`; 0 for anything that is none (F-41).

    Spec: 2026-07-28 server/utilities/caching: negative ones are treated as 0, and so is a missing one.
    """
    if isinstance(given, bool) or not isinstance(given, int | float):
        return 0
    return int(min(max(given, 0), MAX_TTL_MS))


def _legacy_structured_content(result: dict[str, Any]) -> None:
    """Legacy hosts know structured content as an object only: any other goes, and its text stays or is made."""
    if "structuredContent" not in result or is_object(result["structuredContent"]):
        return
    value = result.pop("structuredContent")
    if not result.get("content"):
        result["content"] = [{"type": "text", "text": json.dumps(value, ensure_ascii=False)}]


def error_for_caller(
    code: int, data: Any, *, caller: Version, uri: str | None, upstream: Version | None = None
) -> tuple[int, Any]:
    """Code and data of an error as the caller's era has them; `uri` is the public URI that was read, if any.

    `upstream` is the version of who answered, None if that is not known. Between legacy sides nothing changes.

    Spec: 2026-07-28 basic, "Error Codes": -32002 and -32042 must not be emitted, nor an undefined code of
    the reserved range; a legacy caller knows none of the defined ones.
    """
    if is_modern(caller):
        if code == _RESOURCE_NOT_FOUND:
            return _INVALID_PARAMS, _with_uri(data, uri)
        is_legacy = upstream is not None and not is_modern(upstream)
        if code in _RESERVED and (is_legacy or code not in _MODERN_ONLY):
            return _INTERNAL_ERROR, data
        return code, data
    if upstream is not None and not is_modern(upstream):
        return code, data
    if code in _MODERN_ONLY:
        return _INTERNAL_ERROR, data
    if code == _INVALID_PARAMS and uri is not None and is_object(data) and data.get("uri") == uri:
        return _RESOURCE_NOT_FOUND, data
    return code, data


def _with_uri(data: Any, uri: str | None) -> Any:
    if uri is None or (is_object(data) and "uri" in data):
        return data
    return {**data, "uri": uri} if is_object(data) else {"uri": uri}


def tool_for_caller(tool: dict[str, Any], *, upstream: Version, caller: Version) -> dict[str, Any] | None:
    """A tool's definition as the caller's era has it, or None if that era cannot call it."""
    if not is_modern(upstream) and not knows_tasks(caller) and needs_task(tool):
        return None
    if is_modern(upstream) == is_modern(caller) or is_modern(caller):
        return tool
    schema = tool.get("outputSchema")
    if schema is None or (is_object(schema) and schema.get("type") == "object"):
        return tool
    # SDK 1 hosts lose the whole list over one such schema.
    return {name: value for name, value in tool.items() if name != "outputSchema"}


def question_for_caller(question: Question, caller: Version, mint: str) -> Question:
    """An elicitation by URL as the caller's era has it: legacy ones carry an id, modern ones do not.

    `mint` is the id, where one is missing.
    """
    if question.method != "elicitation/create" or question.params.get("mode") != "url":
        return question
    params = {name: value for name, value in question.params.items() if name != "elicitationId"}
    if not is_modern(caller):
        params["elicitationId"] = question.params.get("elicitationId", mint)
    return Question(question.method, params)
