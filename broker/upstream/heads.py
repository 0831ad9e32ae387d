"""What goes ahead of a request over streamable HTTP: its headers, kept for requests alike.

All are produced here: nothing of a caller's headers is ever copied (SP-19, SP-72).
"""

from collections.abc import Mapping
from typing import Any, Final

from broker.core import mirroring
from broker.core.era import Version, is_modern
from broker.core.headers import METHOD_HEADER, NAME_HEADER, NAMED_BY, VERSION_HEADER, encoded
from broker.core.shape import is_object
from broker.core.tasks import MODERN_METHODS
from broker.core.tracecontext import PARENT, context_in
from broker.upstream.httpwire import RequestHead
from broker.upstream.web import WebClient

SESSION_HEADER: Final = "Mcp-Session-Id"
JSON: Final = "application/json"
STREAM: Final = "text/event-stream"
ACCEPT: Final = f"{JSON}, {STREAM}"
MAX_HEADS: Final = 256
"""Heads kept for requests of the same kind; then all are made anew, so that strangers cannot fill the memory."""
MAX_KEPT_NAME: Final = 1024
"""Characters of a name in such a head; one with a longer name is made each time."""
NOTHING: Final[Mapping[str, str]] = {}
NONE: Final[Mapping[mirroring.Path, str]] = {}
_NAMED_BY: Final[Mapping[str, str]] = {**NAMED_BY, **dict.fromkeys(MODERN_METHODS, "taskId")}
"""The parameter that `Mcp-Name` repeats, by method."""


class Heads:
    """Of one link. `version` is that of the link, `session` the legacy session that it has, None without one."""

    def __init__(self, client: WebClient) -> None:
        self._client = client
        self._schemas: Mapping[str, Any] = NOTHING
        self._mirrored: dict[str, Mapping[mirroring.Path, str]] = {}
        """By tool, once it has been called."""
        self._kept: dict[tuple[str | None, ...], RequestHead] = {}
        """By all that they are made of: most requests are for the same few. None that mirrors an argument, or holds the
        context of a trace.
        """

    def learn_tools(self, tools: tuple[dict[str, Any], ...]) -> None:
        """Whose arguments may be mirrored into `Mcp-Param-*` headers. Which are is looked at when a tool is called: all
        schemas of a server would take a tenth of a second, at each new list, on each link.
        """
        self._schemas = {tool["name"]: tool["inputSchema"] for tool in tools}
        self._mirrored = {}
        self._kept.clear()

    def _mirrored_of(self, tool: str) -> Mapping[mirroring.Path, str]:
        """The arguments of a tool that are mirrored."""
        known = self._mirrored.get(tool)
        if known is None:
            if tool not in self._schemas:
                return NONE
            known = self._mirrored[tool] = mirroring.mirrored(self._schemas[tool])
        return known

    def of(self, method: str, params: Mapping[str, Any], version: Version, session: str | None) -> RequestHead:
        """What goes ahead of a request; the same object for requests alike."""
        name = params.get(_NAMED_BY.get(method, ""))
        if not isinstance(name, str):
            name = None
        meta = params.get("_meta")
        if meta is not None and PARENT in meta:
            return RequestHead("POST", self._client.url, self._headers(version, session, method, params))
        made_of = (self._client.url, version, session, method, name)
        head = self._kept.get(made_of)
        if head is None:
            head = RequestHead("POST", self._client.url, self._headers(version, session, method, params))
            mirrors = name is not None and method == "tools/call" and is_modern(version) and self._mirrored_of(name)
            if not mirrors and len(name or "") <= MAX_KEPT_NAME:
                if len(self._kept) >= MAX_HEADS:
                    self._kept.clear()
                self._kept[made_of] = head
        return head

    def of_stream(self, version: Version, session: str | None, more: Mapping[str, str] = NOTHING) -> RequestHead:
        """What asks for an event stream."""
        headers = {**self._headers(version, session), "Accept": STREAM, **more}
        headers.pop("Content-Type")
        return RequestHead("GET", self._client.url, headers)

    def bare(self, verb: str, version: Version, session: str | None) -> RequestHead:
        """What goes ahead of that which has no answer."""
        return RequestHead(verb, self._client.url, self._headers(version, session))

    def _headers(
        self, version: Version, session: str | None, method: str = "", params: Mapping[str, Any] = NOTHING
    ) -> dict[str, str]:
        headers = {"Accept": ACCEPT, "Content-Type": JSON}
        if (context := context_in(params)) is not None:
            headers |= context.headers()  # what stands in the body, for whatever is on the way
        if not is_modern(version):
            if method != "initialize":
                headers[VERSION_HEADER] = version
                if session is not None:
                    headers[SESSION_HEADER] = session
            return headers
        headers[VERSION_HEADER] = version
        headers[METHOD_HEADER] = method
        name = params.get(_NAMED_BY.get(method, ""))
        if isinstance(name, str):
            headers[NAME_HEADER] = encoded(name)
            arguments = params.get("arguments")
            if method == "tools/call" and is_object(arguments) and (mirrored := self._mirrored_of(name)):
                headers.update(mirroring.headers_for(mirrored, arguments))
        return headers
