"""One broker in front of every kind of upstream, and what each upstream says when it is asked directly."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.callers.caller import Caller
from tests.callers.pipe import Pipe, pipe
from tests.callers.web import Web, old_web
from tests.e2e.brokers import Brokers, Json, Served, command
from tests.e2e.conversation import Kind, Operation, Where, converse
from tests.peers import EVERYTHING, Peers, require_everything, require_node, require_sdk1
from tests.servers import probe

FRONTS = ("stdio", "http", "sse")
PROBES = ("new-pipe", "old-pipe", "new-web", "old-web", "old-sse")
UPSTREAMS = (*PROBES, "every-pipe", "every-web")
CALLERS = ("pipe-modern", "pipe-legacy", "web-modern", "web-legacy", "sse-legacy")
"""Callers without an SDK, for what an SDK would hide."""
GROUPS = {"pipes": ["new-pipe", "old-pipe"], "webs": ["new-web", "old-web", "old-sse"]}
LISTS = (["list_tools"], ["list_prompts"], ["list_resources"], ["list_templates"])
DOC_URI = "probe://docs/alpha"
UNKNOWN_URI = "probe://nowhere/1"


def public_uri(key: str, uri: str) -> str:
    return f"ui://{key}+{uri.removeprefix('ui://')}" if uri.startswith("ui://") else f"{key}+{uri}"


def published(key: str, value: Any) -> Any:
    """`value` with every URI that the broker must rewrite in its public form."""
    if isinstance(value, list):
        return [published(key, item) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {name: published(key, item) for name, item in value.items()}
    for name in ("uri", "uriTemplate", "resourceUri"):
        if isinstance(value.get(name), str):
            renamed[name] = public_uri(key, value[name])
    return renamed


def probe_operations(name: dict[str, str], key: str | None) -> list[Operation]:
    """What is asked of a probe. `name`: own name -> the one to use; `key`: None when it is asked directly."""

    def uri(own: str) -> str:
        return own if key is None else public_uri(key, own)

    uris = [probe.README_URI, probe.BLOB_URI, probe.OPAQUE_URI, probe.WIDGET_URI, DOC_URI, UNKNOWN_URI]
    return [
        ["call_tool", name["echo"], {"text": "grüß\u2028 \U0001f600"}],
        ["call_tool", name["add"], {"a": 2**53, "b": 1}],
        ["call_tool", name["fail"], {}],
        ["call_tool", name["link"], {}],
        ["call_tool", name[probe.DOTTED_NAME], {}],
        ["call_tool", name[probe.LONG_NAME], {}],
        ["call_tool", name["slow"], {"seconds": 0.03, "steps": 3, "label": key or "direct"}],
        ["get_prompt", name["greet"], {"name": "Ada"}],
        ["get_prompt", name["with_resource"]],
        ["complete", {"type": "ref/prompt", "name": name["greet"]}, "name", "A"],
        ["complete", {"type": "ref/resource", "uri": uri(probe.TEMPLATE)}, "id", "b"],
        *(["read_resource", uri(own)] for own in uris),
    ]


def everything_operations(name: dict[str, str], key: str | None) -> list[Operation]:
    """What is asked of server-everything."""

    def uri(own: str) -> str:
        return own if key is None else public_uri(key, own)

    return [
        ["call_tool", name["echo"], {"message": "hello"}],
        ["call_tool", name["get-sum"], {"a": 2, "b": 3}],
        ["call_tool", name["get-structured-content"], {"location": "Chicago"}],
        ["call_tool", name["get-resource-links"], {"count": 3}],
        ["call_tool", name["get-tiny-image"], {}],
        ["call_tool", name["get-sum"], {"a": "no number"}],
        ["get_prompt", name["simple-prompt"]],
        ["get_prompt", name["args-prompt"], {"city": "Paris"}],
        ["complete", {"type": "ref/prompt", "name": name["completable-prompt"]}, "department", "E"],
        [
            "complete",
            {"type": "ref/resource", "uri": uri("demo://resource/dynamic/text/{resourceId}")},
            "resourceId",
            "1",
        ],
        ["read_resource", uri("demo://resource/static/document/features.md")],
    ]


@dataclass
class World:
    """Started once for the session."""

    peers: Peers
    brokers: Brokers
    servers: dict[str, Json] = field(default_factory=dict)
    direct: dict[str, Where] = field(default_factory=dict)
    log: Path = Path()
    pipes: AsyncExitStack = field(default_factory=AsyncExitStack)
    _pipes: dict[str, Pipe] = field(default_factory=dict)
    _served: Served | None = None
    _names: dict[str, dict[str, str]] = field(default_factory=dict)
    _reports: dict[tuple[Kind, str], Json] = field(default_factory=dict)
    _direct_reports: dict[tuple[str, bool], Json] = field(default_factory=dict)

    @classmethod
    def start(cls, peers: Peers, brokers: Brokers) -> "World":
        world = cls(peers, brokers, log=peers.directory / "calls.log")
        for era, transport in (("modern", "stdio"), ("legacy", "stdio"), ("modern", "http"), ("legacy", "http")):
            word = "new" if era == "modern" else "old"
            kind = "pipe" if transport == "stdio" else "web"
            world._add_probe(f"{word}-{kind}", transport, era)
        world._add_probe("old-sse", "sse", "legacy")
        if EVERYTHING.exists():
            argv = [require_node(), str(require_everything()), "stdio"]
            world.servers["every-pipe"], world.direct["every-pipe"] = command(argv), Where(argv)
            url = peers.start_everything().url
            world.servers["every-web"], world.direct["every-web"] = {"url": url}, Where(url=url)
        return world

    def _add_probe(self, key: str, transport: str, era: str) -> None:
        options = ["--transport", transport, "--era", era, "--name", key, "--log", str(self.log)]
        if transport == "stdio":
            argv = self.peers.command("probe", *options)
            self.servers[key], self.direct[key] = command(argv), Where(argv)
        else:
            url = self.peers.start("probe", *options).url
            more = {"transport": "sse"} if transport == "sse" else {}
            self.servers[key], self.direct[key] = {"url": url, **more}, Where(url=url)

    def config(self) -> Path:
        groups = {name: [key for key in keys if key in self.servers] for name, keys in GROUPS.items()}
        return self.brokers.configure(self.servers, groups=groups)

    @property
    def served(self) -> Served:
        """The broker in front of all of them, over HTTP."""
        if self._served is None:
            self._served = self.brokers.serve(self.config())
        return self._served

    async def names(self, key: str) -> dict[str, str]:
        """Own -> public names of tools and prompts of an upstream: both lists have the same order."""
        if not self._names:
            caller = await Web(self.served.url, "legacy").greet()
            listed = {kind: [item["name"] for item in await caller.list(kind)] for kind in ("tools", "prompts")}
            for server in self.servers:
                own = await self.direct_report(server, "http")
                self._names[server] = {}
                for position, kind in enumerate(listed):
                    mine = [name for name in listed[kind] if name.startswith(f"{server}__")]
                    theirs = [item["name"] for item in own["results"][position]["ok"][kind]]
                    assert len(mine) == len(theirs), (server, kind, mine, theirs)
                    self._names[server] |= dict(zip(theirs, mine, strict=True))
        return self._names[key]

    async def direct_report(self, key: str, front: str) -> Json:
        """What the upstream itself answers to SDK 2, which offers what the broker offers for callers of that front:
        all that it can carry on a shared link, and what the one caller offers (here: nothing) on stdio.
        """
        offers = front != "stdio" and key not in PROBES
        if (key, offers) not in self._direct_reports:
            tools = probe.TOOLS
            own = {tool.name: tool.name for tool, _ in tools} | {p.name: p.name for p in probe.PROMPTS}
            same = _Same()
            asked = probe_operations(own, None) if key in PROBES else everything_operations(same, None)
            where = self.direct[key].offering() if offers else self.direct[key]
            self._direct_reports[key, offers] = await converse("sdk2-auto", where, [*LISTS, *asked])
        return self._direct_reports[key, offers]

    async def report(self, kind: Kind, front: str) -> "Report":
        """One client through one front, about all upstreams; each conversation is had once."""
        if (kind, front) not in self._reports:
            operations: list[Operation] = [["ping"], *LISTS]
            for key in self.servers:
                operations += await self.operations(key)
            sdk1 = require_sdk1() if kind == "sdk1" else None
            self._reports[kind, front] = await converse(kind, self.front(front), operations, sdk1)
        spans, position = {}, 1 + len(LISTS)
        for key in self.servers:
            size = len(await self.operations(key))
            spans[key] = slice(position, position + size)
            position += size
        return Report(self._reports[kind, front], spans)

    async def view(self, kind: Kind, view: str) -> Json:
        """One client at `/mcp/<view>`: all lists, a call inside the view, and one outside."""
        if (kind, view) not in self._reports:
            inside = GROUPS.get(view, [view])[0]
            outside = next(key for key in PROBES if key not in GROUPS.get(view, [view]))
            operations = [*LISTS, *(["call_tool", f"{key}__echo", {"text": "in"}] for key in (inside, outside))]
            sdk1 = require_sdk1() if kind == "sdk1" else None
            where = Where(url=self.served.view(view))
            self._reports[kind, view] = await converse(kind, where, operations, sdk1)
        return self._reports[kind, view]

    async def operations(self, key: str) -> list[Operation]:
        names = await self.names(key)
        return probe_operations(names, key) if key in PROBES else everything_operations(names, key)

    @asynccontextmanager
    async def caller(self, name: str, where: Where | None = None) -> AsyncIterator[Caller]:
        """A caller of `CALLERS`, to the broker or directly to `where`."""
        transport, era = name.split("-")
        if transport == "pipe" and where is None:
            # Started once: with all its upstreams it is the dearest caller.
            if name not in self._pipes:
                argv = self.front("stdio").argv
                self._pipes[name] = await self.pipes.enter_async_context(pipe(argv, era))
            self._pipes[name].notices.clear()
            yield self._pipes[name]
            return
        where = where or self.front({"pipe": "stdio", "web": "http"}.get(transport, "sse"))
        if transport == "pipe":
            async with pipe(where.argv, era) as caller:
                yield caller
        elif transport == "web":
            yield await Web(where.url, era).greet()
        else:
            async with old_web(where.url) as caller:
                yield caller

    def front(self, front: str) -> Where:
        match front:
            case "stdio":
                return Where(self.brokers.stdio(self.config()))
            case "http":
                return Where(url=self.served.url)
            case _:
                return Where(url=self.served.sse)


@dataclass(frozen=True)
class Report:
    """What one client saw through one front."""

    whole: Json
    spans: dict[str, slice]

    @property
    def greeting(self) -> Json:
        return self.whole["initialize"]

    @property
    def ping(self) -> Json:
        return self.whole["results"][0]

    def listed(self, kind: str) -> list[Json]:
        position = 1 + ["tools", "prompts", "resources", "resourceTemplates"].index(kind)
        return self.whole["results"][position]["ok"][kind]

    def of(self, key: str) -> Sequence[Json]:
        return self.whole["results"][self.spans[key]]


class _Same(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return key
