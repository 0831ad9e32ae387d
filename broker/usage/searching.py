"""Questions to the index, and to the lines for what is not in it yet: the answer is that of the lines alone.

Records of other machines that share the database are found too, with what the index has of them.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from broker.core.request import Kind
from broker.stores.audit_rows import Found, Indexed, Narrowing, Row
from broker.stores.errors import StoreError
from broker.threads import in_thread
from broker.usage import lookup
from broker.usage.lookup import MAX_LINE, Hit, hits, newest, sight, worth
from broker.usage.origin import origin_of
from broker.usage.question import Line, Question, Seen, Sightings, parsed
from broker.usage.records import moment_text

if TYPE_CHECKING:
    from broker.stores.audit_index import AuditIndex, Reading

_Answer = TypeVar("_Answer")

PAGE: Final = 500
"""Rows that are asked for at a time."""


class Archive:
    """The records of a state directory. `open_index`: of the store; None, if it has no index."""

    def __init__(self, directory: Path, open_index: Callable[[], Awaitable["AuditIndex | None"]]) -> None:
        self.directory = directory
        self._open = open_index
        self.trouble = ""
        """Why the last question was not put to the index; "" if it was, or there is none."""

    async def find(self, question: Question, limit: int) -> list[Line]:
        """The newest records that fit, in the order of time. Raises: OSError, if the directory cannot be read."""
        return await self._asked(
            lambda search: search.find(question, limit), lambda: lookup.find(self.directory, question, limit)
        )

    async def who_saw(self, name: str, question: Question) -> list[Seen]:
        """Whoever was shown what has that full or public name. Raises: OSError, if the directory cannot be read."""
        return await self._asked(
            lambda search: search.who_saw(name, question), lambda: lookup.who_saw(self.directory, name, question)
        )

    async def _asked(self, ask: Callable[["Search"], Awaitable[_Answer]], read: Callable[[], _Answer]) -> _Answer:
        """By the index; or, without one that can be read, by the lines alone."""
        self.trouble = ""
        try:
            index = await self._open()
            if index is not None:
                try:
                    async with Search.over(self.directory, index) as search:
                        return await ask(search)
                finally:
                    await index.aclose()
        except StoreError as error:
            self.trouble = str(error)
        return await in_thread(read)


class Search:
    """One state of the index, and the files beside it."""

    def __init__(self, directory: Path, reading: "Reading", files: list[Indexed], origin: str | None) -> None:
        self._directory = directory
        self._reading = reading
        self._mine = {file.name: file for file in files if file.origin == origin and self._is_whole(file)}
        self._others = [file for file in files if file.origin != origin]
        self._origin = origin

    @classmethod
    @asynccontextmanager
    async def over(cls, directory: Path, index: "AuditIndex") -> AsyncGenerator["Search", None]:
        """Raises: StoreError, here and in every question; OSError, if the directory cannot be read."""
        async with index.reading() as reading:
            files = await reading.files()
            origin = await in_thread(origin_of, directory)
            yield cls(directory, reading, files, origin)

    async def find(self, question: Question, limit: int) -> list[Line]:
        """See `lookup.find`."""
        found = await in_thread(self._tails, question)
        found += await self._indexed(question, limit)
        return newest(found, limit)

    async def who_saw(self, name: str, question: Question) -> list[Seen]:
        """See `lookup.who_saw`."""
        sightings = Sightings()
        files = [file.id for file in (*self._mine.values(), *self._others)]
        whenever = replace(question, since=None, until=None)
        for one in await self._reading.shown(name, files, question.since, question.until):
            who = {key: value for key, value in one.row.items() if value}
            if whenever.fits({**who, "event": "discovery"}):
                sightings.add(who, one.first, one.last, one.times)
        for path in await in_thread(lambda: list(worth(self._directory, question))):
            file = self._mine.get(path.name)
            if file is None:
                await in_thread(sight, path, name, question, sightings)
            elif path.stat().st_size > file.size:
                known = await self._reading.showing(file.id, name)
                await in_thread(sight, path, name, question, sightings, file.size, known)
        return sightings.all()

    def _tails(self, question: Question) -> list[Hit]:
        """What is not in the index."""
        found: list[Hit] = []
        for path in worth(self._directory, question):
            file = self._mine.get(path.name)
            found += hits(path, question, 0 if file is None else file.size)
        return found

    async def _indexed(self, question: Question, limit: int) -> list[Hit]:
        narrowing, found, last = narrowing_of(question), list[Hit](), None
        while len(found) < limit:
            page = await self._reading.newest(narrowing, question.since, question.until, last, PAGE)
            found += await in_thread(lambda page=page: [*self._read(page, question)])
            if len(page) < PAGE:
                break
            last = page[-1]
        return found

    def _read(self, page: list[Found], question: Question) -> Iterator[Hit]:
        """The lines of a page that fit; of a file of another machine, what the index has of them."""
        with _Lines(self._directory) as lines:
            for one in page:
                if one.origin == self._origin:
                    line = lines.at(one.name, one.position) if one.name in self._mine else None
                else:
                    line = line_of_row(one.row)
                if line is not None and question.fits(line):
                    yield Hit(one.place, line)

    def _is_whole(self, file: Indexed) -> bool:
        """Whether a file has all that was indexed of it: one that is gone, or was cut, is read without the index."""
        try:
            return (self._directory / file.name).stat().st_size >= file.size
        except FileNotFoundError:
            return False


class _Lines:
    """Lines at their places, each file opened once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, Any] = {}

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def at(self, name: str, position: int) -> Line | None:
        """None, if it is gone."""
        if name not in self._open:
            try:
                self._open[name] = (self._directory / name).open("rb")
            except FileNotFoundError:
                return None
        self._open[name].seek(position)
        return parsed(self._open[name].readline(MAX_LINE))


def narrowing_of(question: Question) -> Narrowing:
    """What the columns of the index can say of a question: all that fits it, and perhaps more."""
    found: list[tuple[tuple[str, ...], str | None]] = [
        (("event",), question.event),
        # No key has a colon in its name, and a principal with one is found by its index.
        (("principal",) if ":" in (question.caller or "").replace("*", "") else ("principal", "key"), question.caller),
        (("organization",), question.organization),
        (("full_name", "public"), question.tool),
        (("server",), question.server),
        (("outcome", "code"), question.outcome),
        (("rule",), question.rule),
    ]
    if question.team is not None and "/" in question.team:  # which no name of a place has in it
        organization, _, team = question.team.partition("/")
        found += [(("organization",), organization), (("team",), team)]
    elif question.team is not None and "*" not in question.team:  # `acme*` is `acme/data` too
        found.append((("team",), question.team))
    return [(columns, pattern) for columns, pattern in found if pattern is not None]


def line_of_row(row: Row) -> Line:
    """A record of which only this is known."""
    found: Mapping[str, Any] = {name: value for name, value in row.items() if value and name != "full_name"}
    line: Line = {"partial": True, **found, "time": moment_text(row["time"])}
    if row["code"].lstrip("-").isdecimal():
        line["code"] = int(row["code"])
    if row["server"] and row["kind"]:
        glue = "__" if row["kind"] in (Kind.TOOL.value, Kind.PROMPT.value) else "+"
        line["own"] = row["full_name"].removeprefix(row["server"] + glue)
    return line
