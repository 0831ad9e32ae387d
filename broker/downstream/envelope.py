"""Envelope and headers of a modern message on HTTP: what they must say, and that they say the same.

Nearly every request is as it should be, and that is seen at a glance; what is wrong with any other is said by the first
rung that it fails.
"""

from functools import partial
from typing import Any, Final

from broker.core import headers as routing
from broker.core import mirroring
from broker.core.caller import Caller
from broker.core.era import META_CLIENT_CAPABILITIES, META_LOG_LEVEL, META_VERSION, Version
from broker.core.headers import METHOD_HEADER, NAME_HEADER, NAMED_BY, VERSION_HEADER
from broker.core.policy import Permit, decide
from broker.core.request import Kind
from broker.core.shape import is_object
from broker.core.tasks import MODERN_METHODS
from broker.core.tracecontext import PARENT, context_of
from broker.downstream.engine import Who
from broker.downstream.head import Headers
from broker.downstream.message import MODERN, Envelope, Incoming, envelope_of
from broker.downstream.vigil import is_gone
from broker.errors import HeaderMismatch, InvalidParams
from broker.identity.admission import Admission
from broker.relay.served import Served

_ENCODED: Final = "=?"
"""What an encoded header value begins with, and a value that must not be taken for one."""


def check_envelope(headers: Headers, incoming: Incoming, admission: Admission, view: str, served: Served) -> Who:
    """Who sends a modern message, as its envelope says. Raises: BrokerError.

    Nothing can be wrong with one in which no header came twice, that is whole, asks for no logs, whose version is ours,
    and of which the headers repeat version, method and name letter by letter. `_climb` looks closer at any other.
    """
    meta, said, method = incoming.meta, headers.said, incoming.method
    if not isinstance(said, Said):
        said = headers.said = Said(headers)
    version, capabilities, log_level = said.version, meta.get(META_CLIENT_CAPABILITIES), None
    named_by = NAMED_BY.get(method)
    if (
        version is None
        or version != meta.get(META_VERSION)
        or said.method != method
        or (named_by is not None and (said.name is None or said.name != incoming.params.get(named_by)))
        or not is_object(capabilities)
        or META_LOG_LEVEL in meta
    ):
        version, capabilities, log_level = _climb(headers, incoming)
    if method == "tools/call":
        if served.catalog.has_mirrors:
            _check_param_headers(headers, incoming, admission.caller, view, served)
    elif method in MODERN_METHODS:
        _check_task_header(headers, incoming.params.get("taskId"))
    return Who(admission.caller, version, view, capabilities, log_level, is_gone=partial(is_gone, admission))


def _climb(headers: Headers, incoming: Incoming) -> Envelope:
    """The envelope, rung by rung. That of the version is the last: who disagrees with itself is told so, and not that
    its version is not served. Raises: BrokerError.
    """
    repeated = routing.repeated_routing(headers.lines)
    if repeated is not None:
        raise HeaderMismatch(f"the {repeated} header appears more than once")
    if not incoming.is_request and META_VERSION not in incoming.meta:
        requested = headers.get(VERSION_HEADER) or ""
        return Version(requested), {}, None  # a notification; the header that brought it here is ours
    meta = incoming.params.get("_meta")
    missing = [key for key in (META_VERSION, META_CLIENT_CAPABILITIES) if not is_object(meta) or key not in meta]
    if missing or not is_object(meta):
        raise InvalidParams(f"params._meta is missing the required envelope key(s): {', '.join(missing)}")
    difference = routing.disagreement(incoming.method, incoming.params, meta[META_VERSION], headers)
    if difference is not None:
        raise HeaderMismatch(difference)
    return envelope_of(incoming)


class Said:
    """What the headers of one head repeat of a message. Looked for once: a caller that keeps its connection sends the
    same ones again and again.
    """

    __slots__ = ("method", "name", "version")

    def __init__(self, headers: Headers) -> None:
        self.version = None if headers.duplicated else MODERN.get(headers.get(VERSION_HEADER, ""))
        """None: none of ours, or a header came twice."""
        self.method = headers.get(METHOD_HEADER)
        name = headers.get(NAME_HEADER)
        self.name = None if name is None or name.startswith(_ENCODED) else name
        """None: none that stands for itself."""


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
    repeated = next((header for header in headers.duplicated if header.startswith(mirroring.PREFIX.lower())), None)
    if repeated is not None:
        raise HeaderMismatch(f"the {repeated} header appears more than once")
    difference = mirroring.disagreement(entry.definition.get("inputSchema"), arguments, headers)
    if difference is not None:
        raise HeaderMismatch(difference)


def _check_task_header(headers: Headers, task_id: object) -> None:
    """Spec: the tasks extension, "Routing Headers": `Mcp-Name` is the task's id. Raises: HeaderMismatch."""
    if isinstance(task_id, str) and (NAME_HEADER not in headers or routing.decoded(headers[NAME_HEADER]) != task_id):
        raise HeaderMismatch(f"{NAME_HEADER} header does not match the request body's 'taskId' parameter")


def traced(incoming: Incoming, headers: Headers) -> Incoming:
    """The message with the trace that the HTTP request of its caller is part of, unless it names one itself."""
    if headers.get(PARENT) is None or PARENT in headers.duplicated:
        return incoming
    meta = incoming.params.get("_meta")
    context = context_of(headers.get)
    if context is None or not incoming.is_request or (meta is not None and (not is_object(meta) or PARENT in meta)):
        return incoming
    return Incoming(incoming.id, incoming.method, context.on(incoming.params), None, incoming.size)
