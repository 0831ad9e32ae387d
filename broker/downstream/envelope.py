"""Envelope and headers of a modern message on HTTP: what they must say, and that they say the same.

Nearly every request is as it should be, and that is seen at a glance; what is wrong with any other is for the SDK's
own ladder to say, rung by rung.
"""

from typing import Any, Final

from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    InboundLadderRejection,
    classify_inbound_request,
    decode_header_value,
    find_duplicated_routing_header,
    validate_mcp_param_headers,
)

from broker.core.caller import Caller
from broker.core.era import META_CLIENT_CAPABILITIES, META_VERSION, MODERN_VERSIONS, Version
from broker.core.policy import Permit, decide
from broker.core.request import Kind
from broker.core.shape import is_object
from broker.core.tasks import MODERN_METHODS
from broker.core.tracecontext import PARENT, context_of
from broker.downstream.head import Headers
from broker.downstream.message import Envelope, Incoming, envelope_of
from broker.errors import BrokerError, HeaderMismatch
from broker.relay.served import Served

_ENCODED: Final = "=?"
"""What an encoded header value begins with, and a value that must not be taken for one."""


def check_envelope(headers: Headers, incoming: Incoming, caller: Caller, view: str, served: Served) -> Envelope:
    """The envelope of a modern message. Raises: BrokerError."""
    if not is_plain(headers, incoming):
        duplicated = find_duplicated_routing_header(headers.lines)
        if duplicated is not None:
            raise HeaderMismatch(f"the {duplicated} header appears more than once")
        if not incoming.is_request and not incoming.has_envelope:
            requested = headers.get(MCP_PROTOCOL_VERSION_HEADER) or ""
            return Envelope(Version(requested), {}, None)  # a notification; the header that brought it here is ours
        body = {"method": incoming.method, "params": incoming.params}
        verdict = classify_inbound_request(body, headers=headers, supported_modern_versions=MODERN_VERSIONS)
        if isinstance(verdict, InboundLadderRejection):
            raise BrokerError(verdict.message, verdict.data, code=verdict.code)
    if incoming.method == "tools/call":
        if served.catalog.has_mirrors:
            _check_param_headers(headers, incoming, caller, view, served)
    elif incoming.method in MODERN_METHODS:
        _check_task_header(headers, incoming.params.get("taskId"))
    return envelope_of(incoming)


def is_plain(headers: Headers, incoming: Incoming) -> bool:
    """Whether nothing can be wrong with a message: no header came twice, its envelope is whole, its version is ours,
    and the headers repeat version, method and name letter by letter.
    """
    meta = incoming.meta
    if headers.duplicated or META_CLIENT_CAPABILITIES not in meta:
        return False
    version = meta.get(META_VERSION)
    if version not in MODERN_VERSIONS or headers.get(MCP_PROTOCOL_VERSION_HEADER) != version:
        return False
    if headers.get(MCP_METHOD_HEADER) != incoming.method:
        return False
    key = NAME_BEARING_METHODS.get(incoming.method)
    if key is None:
        return True
    name = incoming.params.get(key)
    return isinstance(name, str) and headers.get(MCP_NAME_HEADER) == name and not name.startswith(_ENCODED)


def _check_param_headers(headers: Headers, incoming: Incoming, caller: Caller, view: str, served: Served) -> None:
    """`Mcp-Param-*` against the arguments, by the schema of the tool that is called (SP-16).

    A tool that is unknown has no schema, and a hidden one shows none: the call itself is answered as unknown.
    """
    name, arguments = incoming.params.get("name"), incoming.params.get("arguments")
    if arguments is None:
        arguments = dict[str, Any]()
    if not isinstance(name, str) or not is_object(arguments):
        return
    entry = served.catalog.lookup(Kind.TOOL, name)
    if entry is None or not entry.mirrors_arguments:
        return
    if not isinstance(decide(served.policy, caller, view, entry), Permit):
        return
    given = {header: value for header, value in headers.lines if header.startswith("mcp-param-")}
    repeated = next((header for header in given if header in headers.duplicated), None)
    if repeated is not None:
        raise HeaderMismatch(f"the {repeated} header appears more than once")
    rejection = validate_mcp_param_headers(entry.definition.get("inputSchema"), arguments, given)
    if rejection is not None:
        raise BrokerError(rejection.message, rejection.data, code=rejection.code)


def _check_task_header(headers: Headers, task_id: object) -> None:
    """Spec: the tasks extension, "Routing Headers": `Mcp-Name` is the task's id. Raises: HeaderMismatch."""
    if isinstance(task_id, str) and decode_header_value(headers.get(MCP_NAME_HEADER)) != task_id:
        raise HeaderMismatch(f"{MCP_NAME_HEADER} header does not match the request body's 'taskId' parameter")


def traced(incoming: Incoming, headers: Headers) -> Incoming:
    """The message with the trace that the HTTP request of its caller is part of, unless it names one itself."""
    if headers.get(PARENT) is None or PARENT in headers.duplicated:
        return incoming
    meta = incoming.params.get("_meta")
    context = context_of(headers.get)
    if context is None or not incoming.is_request or (meta is not None and (not is_object(meta) or PARENT in meta)):
        return incoming
    return Incoming(incoming.id, incoming.method, context.on(incoming.params), None, incoming.size)
