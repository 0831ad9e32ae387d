"""`mcp-broker guardrail`: the same process, the same bounds and the same reading of its answer as for a call (I-06)."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from broker.cli.begin import begin, run_to_end
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.screen import Screen
from broker.cli.words import count, line
from broker.clock import SystemClock
from broker.config import read_text
from broker.core import wire
from broker.core.request import Kind
from broker.core.shape import is_object
from broker.guardrails.chain import INSTRUCTIONS, MEMBER, Phase, Subject
from broker.guardrails.guards import verdict_on
from broker.guardrails.pool import Pool
from broker.guardrails.run import load
from broker.guardrails.source import Flaw, Source
from broker.guardrails.verdict import Fault, Pass, Reject, Verdict

Run = Callable[[Pool, Source], Awaitable[int]]


def check(file: Path, *, as_json: bool, level: str) -> int:
    """The exit code: 0 it can be used, 2 it cannot. Raises: Stop."""
    screen, source = begin(level), _source(file)

    async def run(pool: Pool, source: Source) -> int:
        flaws = await load(pool, source)
        if as_json:
            problems = [{"file": str(file), "line": flaw.line, "message": flaw.message} for flaw in flaws]
            screen.json({"ok": not flaws, "sha256": source.sha256, "problems": problems})
        elif flaws:
            raise Stop(_listed(source.name, flaws), BAD_INPUT)
        else:
            screen.say(f"{line(file)}: a guardrail (sha256 {source.sha256[:8]})")
        return BAD_INPUT if flaws else OK

    return _run(source, run)


def test(file: Path, given: str, *, as_json: bool, level: str) -> int:
    """The exit code: 0 it decided, 1 it did not (a call would be denied), 2 it cannot be used. Raises: Stop."""
    screen, source, context = begin(level), _source(file), _context(given)
    _phase(context)

    async def run(pool: Pool, source: Source) -> int:
        code, document = await tested(pool, source, context)
        if as_json or code != BAD_INPUT:
            _say(screen, document, as_json=as_json)
            return code
        raise Stop(document["reason"], code)

    return _run(source, run)


async def tested(pool: Pool, source: Source, context: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The exit code, and what is printed: `{"action": "allow" | "block" | "modify" | "error", ...}`."""
    flaws = await load(pool, source)
    if flaws:
        return BAD_INPUT, {"action": "error", "reason": _listed(source.name, flaws)}
    phase = _phase(context)
    verdict = await verdict_on(pool, source, phase, _subject(context), context)
    return FAILED if isinstance(verdict, Fault) else OK, _document(verdict, MEMBER[phase])


def _run(source: Source, run: Run) -> int:
    async def main() -> int:
        pool = Pool(SystemClock())
        async with pool.running():
            return await run(pool, source)

    return run_to_end(main)


def _source(file: Path) -> Source:
    try:
        found = read_text(file)
    except OSError as error:
        raise Stop(
            f"{line(file)} cannot be read: {(error.strerror or type(error).__name__).lower()}", BAD_INPUT
        ) from None
    except ValueError as error:
        raise Stop(f"{line(file)}: {error}", BAD_INPUT) from None
    return Source(str(file), found.text, found.sha256)


def _context(given: str) -> dict[str, Any]:
    limits = wire.FROM_UPSTREAM
    try:
        data = sys.stdin.buffer.read(limits.size + 1) if given == "-" else Path(given).read_bytes()
        return wire.decode_object(data, limits)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise Stop(f"--input {line(given)} cannot be read: {why}", BAD_INPUT) from None
    except wire.Malformed as error:
        raise Stop(f"--input {line(given)} is not a JSON object: {error}", BAD_INPUT) from None


def _phase(context: dict[str, Any]) -> Phase:
    """Named by the ctx, or known by what it has to judge."""
    known = ", ".join(Phase)
    named = context.get("phase")
    found = [phase for phase in Phase if phase.value == named or (named is None and MEMBER[phase] in context)]
    if len(found) != 1:
        raise Stop(f"the input must have a phase, one of {known}, or one of {', '.join(MEMBER.values())}", BAD_INPUT)
    return found[0]


def _subject(context: dict[str, Any]) -> Subject:
    """What the ctx says that it is about, as far as it says so: the shape of a rewrite depends on it."""

    def text(name: str, otherwise: str) -> str:
        value = context.get(name)
        return value if isinstance(value, str) else otherwise

    given = text("kind", "tools")
    kind = given if given in (*Kind, INSTRUCTIONS) else "tools"
    usual = {"tools": "tools/call", "prompts": "prompts/get", "resources": "resources/read"}
    return Subject(text("server", ""), kind, text("name", text("tool", "")), text("method", usual.get(kind, "")))


def _document(verdict: Verdict, member: str) -> dict[str, Any]:
    if isinstance(verdict, Pass):
        return {"action": "allow"}
    if isinstance(verdict, Reject):
        return {"action": "block", "reason": verdict.reason}
    if isinstance(verdict, Fault):
        return {"action": "error", "reason": f"{verdict.why}: {verdict.detail}" if verdict.detail else verdict.why}
    return {"action": "modify", member: verdict.value}


def _say(screen: Screen, document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        screen.json(document)
        return
    for name, value in document.items():
        screen.say(f"{name}: {line(value, 1000) if isinstance(value, str) else _compact(value)}")


def _compact(value: object) -> str:
    return line(wire.encode(value).decode(), 100_000) if is_object(value) else line(value)


def _listed(file: str, flaws: Sequence[Flaw]) -> str:
    lines = [f"{line(file)}:{flaw.line}: {line(flaw.message, 1000)}" for flaw in flaws]
    return "\n".join([*lines, f"{line(file)}: {count(len(flaws), 'problem')}"])
