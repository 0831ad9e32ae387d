"""`mcp-broker audit`: who did what, and who was shown what. Reads the records; no broker need run."""

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from broker.app import run_async
from broker.cli.begin import begin, read_config
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.screen import Screen
from broker.cli.words import count, line
from broker.clock import SystemClock
from broker.compiled import state_directory
from broker.stores.errors import StoreError
from broker.usage.assembly import archive_of, indexer_of, is_audited
from broker.usage.files import paths
from broker.usage.indexing import Indexer
from broker.usage.lookup import lines_of
from broker.usage.question import Line, Question, Seen, moment_of
from broker.usage.searching import Archive

_Answer = TypeVar("_Answer")

_POLL: Final = 0.3
"""Seconds between two looks with `--follow`."""
_AGO: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_HEADER: Final = ("time", "event", "who", "what", "outcome", "rule", "ms")
_SEEN: Final = ("who", "view", "first", "last", "by", "times")


def audit(
    config: Path | None,
    question: Question,
    *,
    on: str | None,
    saw: str | None,
    limit: int,
    is_following: bool,
    as_json: bool,
    level: str,
) -> int:
    """The exit code. Raises: Stop."""
    screen = begin(level)
    loaded = read_config(config)
    state = state_directory(loaded.config)
    archive = archive_of(loaded.config, state)
    if not is_audited(loaded.config, state):
        screen.note("nothing is recorded with this configuration (audit.enabled); what follows is older")
    try:
        if saw is not None:
            return _who_saw(screen, archive, saw, question, on, as_json=as_json)
        began = _sizes(archive.directory)
        found = _ask(screen, archive, lambda: archive.find(question, limit))
        _show(screen, found, as_json=as_json, has_header=True)
        if is_following:
            for one in _follow(archive.directory, question, began):
                if one not in found:  # it came while the others were read
                    _show(screen, [one], as_json=as_json, has_header=False)
    except OSError as error:
        raise Stop(f"{line(archive.directory)} cannot be read ({error.strerror})", FAILED) from None
    return OK


def rebuild(config: Path | None, level: str) -> int:
    """The exit code. Raises: Stop."""
    screen = begin(level)
    loaded = read_config(config).config
    indexer = indexer_of(loaded, state_directory(loaded), SystemClock())
    if not isinstance(indexer, Indexer):
        raise Stop("there is no index with this configuration: audit.index is false", BAD_INPUT)
    found = 0

    async def main() -> None:
        nonlocal found
        found = await indexer.rebuild()

    try:
        run_async(main)
    except StoreError as error:
        raise Stop(line(error, 2000), FAILED) from None
    except OSError as error:
        raise Stop(f"the records cannot be read ({error.strerror})", FAILED) from None
    screen.note(f"{count(found, 'record')} in the index")
    return OK


def _ask(screen: Screen, archive: Archive, ask: Callable[[], Awaitable[list[_Answer]]]) -> list[_Answer]:
    """The answer; that it took the long way is said."""
    found: list[_Answer] = []

    async def main() -> None:
        found.extend(await ask())

    run_async(main)
    if archive.trouble:
        screen.note(f"without the index, line by line: {line(archive.trouble, 1000)}")
    return found


def question_of(since: str | None, until: str | None, on: str | None, **asked: str | None) -> Question:
    """What is looked for. Raises: Stop, for a time that is none."""
    begin_at, end_at = moment(since, "--since"), moment(until, "--until")
    if on is not None:
        if since is not None or until is not None:
            raise Stop("--on is a day: give it without --since and --until", BAD_INPUT)
        begin_at, end_at = _day(on)
    return Question(since=begin_at, until=end_at, **asked)


def moment(text: str | None, option: str) -> float | None:
    """`2h` ago, or an ISO time; one without a zone is local. Raises: Stop."""
    if text is None:
        return None
    if found := _AGO.fullmatch(text.strip()):
        return time.time() - int(found[1]) * _UNITS[found[2]]
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        remedy = "Write 2026-11-24T10:00, 2026-11-24T10:00+01:00, or 90s, 30m, 2h, 3d, 1w ago."
        raise Stop(f"{option} {line(text, 40)} is no time. {remedy}", BAD_INPUT) from None


def _day(text: str) -> tuple[float, float]:
    """From its beginning to its end, in local time. Raises: Stop."""
    try:
        begins = datetime.strptime(text.strip(), "%Y-%m-%d")
    except ValueError:
        raise Stop(f"--on {line(text, 40)} is no day. Write 2026-11-24.", BAD_INPUT) from None
    return begins.astimezone().timestamp(), (begins + timedelta(days=1)).astimezone().timestamp()


def _who_saw(screen: Screen, archive: Archive, name: str, question: Question, on: str | None, *, as_json: bool) -> int:
    found = _ask(screen, archive, lambda: archive.who_saw(name, question))
    if as_json:
        screen.json({"name": name, "seen": [one.to_json() for one in found]})
        return OK
    if not found:
        when = f" on {line(on, 40)}" if on else ""
        screen.note(f"nobody was shown {line(name)}{when}, as far as is recorded")
        return OK
    rows = [_seen_row(one) for one in found]
    screen.table(_SEEN, rows, [""] * len(rows), words=5)
    return OK


def _seen_row(one: Seen) -> tuple[str, ...]:
    who = _who({"principal": one.principal, "organization": one.organization, "team": one.team})
    methods = ", ".join(sorted(one.methods))
    return who, line(one.view) or "all", _local(one.first), _local(one.last), line(methods), str(one.times)


def _show(screen: Screen, found: list[Line], *, as_json: bool, has_header: bool) -> None:
    if as_json:
        for one in found:
            print(json.dumps(one), flush=True)
        return
    rows = [_row(one) for one in found]
    if has_header:
        styles = ["" if one.get("outcome") in ("done", "permitted", None) else "yellow" for one in found]
        screen.table(_HEADER, rows, styles, words=6)
        screen.note(count(len(found), "record"))
    else:
        for row in rows:
            print("\t".join(row), flush=True)


def _row(one: Line) -> tuple[str, ...]:
    event = str(one.get("event", ""))
    match event:
        case "call":
            what = f"{one.get('method', '')} {one.get('public', '')}"
        case "discovery":
            what = f"{one.get('method', '')} ({count(int(one.get('size', 0)), 'entry')})".replace("entrys", "entries")
        case "admin":
            what = f"{one.get('action', '')} {one.get('target', '')}"
        case "auth":
            what = f"{one.get('reason', '')} from {one.get('peer', '')}"
        case _:
            what = f"{one.get('lost', '')} records are lost" if event == "gap" else ""
    outcome = f"{one.get('outcome', '')} {one.get('code', '')}".strip()
    ms = f"{one['ms']:.1f}" if isinstance(one.get("ms"), int | float) else ""
    fields = (event, _who(one), line(what), line(outcome), line(one.get("rule", "")), ms)
    return (_local(moment_of(one)), *fields)


def _who(one: dict[str, Any]) -> str:
    place = "/".join(str(one[name]) for name in ("organization", "team") if one.get(name))
    return line(f"{one.get('principal', '')} {f'({place})' if place else ''}".strip())


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S%z")


def _sizes(directory: Path) -> dict[str, int]:
    """How much there is, before anything is read: what comes meanwhile is shown then, and not lost."""
    return {path.name: path.stat().st_size for path in paths(directory)} if directory.is_dir() else {}


def _follow(directory: Path, question: Question, sizes: dict[str, int]) -> Iterator[Line]:
    """Records as they are written beyond `sizes`, until interrupted."""
    while True:
        for path in paths(directory) if directory.is_dir() else ():
            for _, end, found in lines_of(path, sizes.get(path.name, 0)):
                sizes[path.name] = end
                if question.fits(found):
                    yield found
        time.sleep(_POLL)
