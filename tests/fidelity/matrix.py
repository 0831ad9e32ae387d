"""The cells, and the run of all of them: direct first, then through the broker."""

import asyncio
import sys
import time
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.brokers import Brokers, Json, Served, command, environment
from tests.fidelity.caller import OF_ERA, Asked, pipe, web
from tests.fidelity.difference import difference, expected, own, plain
from tests.fidelity.features import FEATURES, PHASES, Feature
from tests.fidelity.names import LEGACY, MODERN, Names
from tests.peers import POLL, READY_TIMEOUT, ROOT, Peers

ERAS = (LEGACY, MODERN)
KINDS = ((LEGACY, "stdio"), (LEGACY, "http"), (LEGACY, "sse"), (MODERN, "stdio"), (MODERN, "http"))
ISOLATIONS = ("caller", "session")
"""Beside `shared`. A stdio front has one caller, whose links are its own in any case."""
OK, NOT_THERE = "ok", "-"
AT_ONCE = 4


@dataclass(frozen=True)
class Cell:
    """`front` is what the caller speaks to, `transport` what the broker speaks to."""

    front: str
    caller: str
    upstream: str
    transport: str
    count: int
    isolation: str = "shared"

    def __str__(self) -> str:
        apart = "" if self.isolation == "shared" else f" for each {self.isolation}"
        return f"{self.front}/{self.caller} -> {self.upstream}/{self.transport} x{self.count}{apart}"

    @property
    def key(self) -> str:
        """Of its server; those with links that callers do not share are servers of their own."""
        return key_of(self.upstream, self.transport, self.isolation)

    @property
    def process(self) -> str:
        """Of its upstream: on HTTP one serves all, and what one cell does there another one would hear."""
        return self.key if self.transport == "stdio" else key_of(self.upstream, self.transport, "shared")

    @property
    def has_own_link(self) -> bool:
        """Whether no other cell uses its link: one caller in all, or a session that has its own."""
        return self.front == "stdio" or (self.isolation == "session" and self.caller == LEGACY)


def key_of(upstream: str, transport: str, isolation: str) -> str:
    return f"{upstream}-{transport}" if isolation == "shared" else f"{upstream}-{transport}-{isolation}"


CELLS = [
    Cell(front, caller, upstream, transport, count)
    for front in ("http", "stdio")
    for caller in ERAS
    for upstream, transport in KINDS
    for count in (1, 3)
] + [
    Cell("http", caller, upstream, transport, 1, isolation)
    for isolation in ISOLATIONS
    for caller in ERAS
    for upstream, transport in KINDS
]
Record = dict[str, Any]
"""Title -> what happened; an exception is a record too."""


@dataclass
class Outcome:
    cells: dict[Cell, dict[str, list[str]]] = field(default_factory=dict)
    """Cell -> title -> differences; a title that the pair of eras does not have is missing."""

    def failures(self) -> list[str]:
        return [
            f"{cell}: {title}: {row}"
            for cell, titles in self.cells.items()
            for title, rows in titles.items()
            for row in rows
        ]


class Matrix:
    """Upstreams, one broker with an HTTP front for all cells, and one with a stdio front for each of its cells."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.peers, self.brokers = Peers(directory), Brokers(directory)
        self.urls: dict[str, str] = {}
        self.served: Served | None = None
        self._locks = {cell.process: asyncio.Lock() for cell in CELLS}

    def close(self) -> None:
        self.brokers.close()
        self.peers.close()

    def start(self) -> None:
        files = {}
        for era, transport in KINDS:
            if transport != "stdio":
                files[f"{era}-{transport}"] = file = self.directory / f"{era}-{transport}.url"
                argv = [*self.argv(era, transport), "--port-file", str(file)]
                self.peers.spawn(argv, env=environment())
        deadline = time.monotonic() + READY_TIMEOUT
        while not all(file.exists() for file in files.values()) and time.monotonic() < deadline:
            time.sleep(POLL)
        self.urls = {key: file.read_text(encoding="utf-8") for key, file in files.items()}
        servers = {key_of(*kind, "shared"): self.server(*kind) for kind in KINDS}
        apart = {
            key_of(*kind, isolation): {**self.server(*kind), "isolation": isolation}
            for kind in KINDS
            for isolation in ISOLATIONS
        }
        groups = {f"three-{key}": ["decoy-a", key, "decoy-b"] for key in servers}
        self.served = self.brokers.serve(
            self.brokers.configure(
                {"decoy-a": self.decoy(), **servers, **apart, "decoy-b": self.decoy()}, groups=groups
            )
        )

    def argv(self, era: str, transport: str, *more: str) -> list[str]:
        return [
            *(sys.executable, "-m", "tests.fidelity.upstream"),
            *("--era", era, "--transport", transport),
            *more,
        ]

    def server(self, era: str, transport: str) -> Json:
        if transport == "stdio":
            return command(self.argv(era, transport), cwd=str(ROOT))
        more = {"transport": "sse"} if transport == "sse" else {}
        return {"url": self.urls[f"{era}-{transport}"], **more}

    def decoy(self) -> Json:
        return command(self.argv(LEGACY, "stdio", "--decoy"), cwd=str(ROOT))

    def direct(self, era: str, transport: str) -> AbstractAsyncContextManager[Asked]:
        if transport == "stdio":
            return pipe(self.argv(era, transport), era)
        return web(self.urls[f"{era}-http"], era)

    def through(self, cell: Cell) -> AbstractAsyncContextManager[Asked]:
        if cell.front == "http":
            assert self.served is not None
            return web(self.served.view(cell.key if cell.count == 1 else f"three-{cell.key}"), cell.caller)
        servers = {cell.key: self.server(cell.upstream, cell.transport)}
        if cell.count == 3:
            servers = {"decoy-a": self.decoy(), **servers, "decoy-b": self.decoy()}
        return pipe(self.brokers.stdio(self.brokers.configure(servers)), cell.caller)

    async def run(self, cells: list[Cell]) -> Outcome:
        """All cells; those that share an upstream one after the other."""
        references: dict[tuple[str, str], Record] = {}
        for era in ERAS:
            for transport in ("stdio", "http"):
                async with self.direct(era, transport) as caller:
                    references[era, transport] = await converse(caller, Names(), era, None)
        outcome = Outcome()
        for era in ERAS:
            # The transport takes nothing away: what is said directly is the same on both.
            for feature in FEATURES:
                if feature.title in references[era, "stdio"]:
                    left, right = (references[era, kind][feature.title] for kind in ("http", "stdio"))
                    sides = [plain(feature.title, one, era, era) for one in (left, right)]
                    assert difference(*sides) == [], (era, feature.title, difference(*sides))
        room = asyncio.Semaphore(AT_ONCE)

        async def one(cell: Cell, phases: tuple[int, ...]) -> None:
            async with self._locks[cell.process], room:
                rows = await self.compare(cell, references[cell.caller, "http"], phases)
                outcome.cells.setdefault(cell, {}).update(rows)

        # A stdio front has its broker for itself.
        for front, phases in (("stdio", PHASES), *(("http", (phase,)) for phase in PHASES)):
            async with asyncio.TaskGroup() as tasks:
                for cell in cells:
                    if cell.front == front:
                        tasks.create_task(one(cell, phases))
        outcome.cells = {cell: outcome.cells[cell] for cell in cells}
        return outcome

    async def compare(self, cell: Cell, reference: Record, phases: tuple[int, ...]) -> dict[str, list[str]]:
        try:
            async with self.through(cell) as caller:
                names = await public_names(caller, cell.key)
                skipped = {one.title for one in FEATURES if one.needs_own_link and not cell.has_own_link}
                record = await converse(caller, names, cell.caller, cell.upstream, phases, skipped)
        except Exception as error:
            return {one.title: [f"the conversation broke: {error!r}"] for one in FEATURES if one.phase in phases}
        rows: dict[str, list[str]] = {}
        for title, got in record.items():
            if "broke" in got or "broke" in reference.get(title, {}):
                rows[title] = [f"broke: {got.get('broke')} (directly: {reference.get(title, {}).get('broke')})"]
                continue
            want = expected(title, reference[title], cell.caller, cell.upstream, OF_ERA[cell.caller])
            have = own(got, names, is_one_of_many=cell.count > 1)
            sides = (plain(title, side, cell.caller, cell.upstream) for side in (want, have))
            rows[title] = difference(*sides)
        return rows


async def public_names(caller: Asked, key: str) -> Names:
    """Names that the broker had to change, by what they look like."""
    tools = (await caller.all_of("tools"))["result"]["tools"]
    changed = [tool["name"] for tool in tools if tool["name"].startswith(f"{key}__dotted_name_")]
    return Names(key, tuple(("dotted.name", name) for name in changed))


async def converse(
    caller: Asked,
    names: Names,
    era: str,
    upstream: str | None,
    phases: Collection[int] = PHASES,
    skipped: Collection[str] = (),
) -> Record:
    """All features that the caller's era and the upstream's have; without a broker the caller's decides (None)."""
    record: Record = {}
    for feature in FEATURES:
        pairs = {(era, one) for one in ERAS if upstream in (None, one)}
        if feature.title not in skipped and feature.phase in phases and (feature.only is None or pairs & feature.only):
            record[feature.title] = await attempt(feature, caller, names)
    return record


async def attempt(feature: Feature, caller: Asked, names: Names) -> Json:
    try:
        return await feature.run(caller, names)
    except Exception as error:
        return {"broke": f"{type(error).__name__}: {error}"}


def table(outcome: Outcome) -> str:
    """Features x cells, with the differences below."""
    cells = list(outcome.cells)
    notes: dict[str, int] = {}
    lines = [f"{n:>4}  {cell}" for n, cell in enumerate(cells, 1)]
    width = max(len(feature.title) for feature in FEATURES)
    lines += ["", " " * width + "".join(f"{n:>4}" for n in range(1, len(cells) + 1))]
    for feature in FEATURES:
        marks = []
        for cell in cells:
            rows = outcome.cells[cell].get(feature.title)
            if rows is None:
                marks.append(NOT_THERE)
            elif not rows:
                marks.append(OK)
            else:
                marks.append("#" + str(notes.setdefault("; ".join(rows), len(notes) + 1)))
        lines.append(feature.title.ljust(width) + "".join(f"{mark:>4}" for mark in marks))
    lines += ["", *(f"#{number} {text}" for text, number in notes.items())]
    return "\n".join(lines)
