"""What of a modern message stands in HTTP headers too, and values that a header cannot carry as they are.

Spec: 2026-07-28 basic/transports/streamable-http, "Request Metadata" and "Server Validation". `tests/core` holds all of
this to the SDK's own rules, which cost a second to load.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

VERSION_HEADER: Final = "mcp-protocol-version"
METHOD_HEADER: Final = "mcp-method"
NAME_HEADER: Final = "mcp-name"
_ROUTING: Final = frozenset({VERSION_HEADER, METHOD_HEADER, NAME_HEADER})

NAMED_BY: Final[Mapping[str, str]] = MappingProxyType(
    {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
)
"""Method -> the member of `params` that `Mcp-Name` repeats."""

_PLAIN: Final = re.compile(r"(?!=\?base64\?.*\?=\Z)(?:[!-~](?:[ -~]*[!-~])?)?")
"""Visible ASCII, with spaces inside only, which nobody takes for an encoded value."""
_ENCODED: Final = re.compile(r"=\?base64\?(.*)\?=")


def encoded(value: str) -> str:
    """`value` as a header carries it: plain where it can be."""
    if _PLAIN.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decoded(value: str) -> str | None:
    """What a header stands for, or None if it is encoded badly: such a value is equal to nothing.

    Base64 in another spelling than that of `encoded` is bad too: two such headers that differ must not mean the same.
    """
    found = _ENCODED.fullmatch(value)
    if found is None:
        return value
    try:
        raw = base64.b64decode(found[1], validate=True)
        return raw.decode() if base64.b64encode(raw).decode() == found[1] else None
    except ValueError:
        return None


def repeated_routing(lines: Iterable[tuple[str, str]]) -> str | None:
    """The header, by lower-case name, that says twice where a message goes: who reads the first and who reads the last
    would disagree.
    """
    seen: set[str] = set()
    for name, _ in lines:
        if name in _ROUTING:
            if name in seen:
                return name
            seen.add(name)
    return None


def disagreement(method: str, params: Mapping[str, Any], version: object, headers: Mapping[str, str]) -> str | None:
    """In which way the headers say something else than the message, or None.

    `version`: what the message says of its own. `headers`: by lower-case name.
    """
    said = headers.get(VERSION_HEADER)
    if said is None or said != version:
        return f"{VERSION_HEADER} header does not match the request envelope's protocol version"
    if headers.get(METHOD_HEADER) != method:
        return f"{METHOD_HEADER} header does not match the request body's method"
    member = NAMED_BY.get(method)
    name = params.get(member) if member is not None else None
    if name is not None and (NAME_HEADER not in headers or decoded(headers[NAME_HEADER]) != name):
        return f"{NAME_HEADER} header does not match the request body's {member!r} parameter"
    return None
