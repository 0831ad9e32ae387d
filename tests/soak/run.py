"""The soak: many callers, equal ids and tokens, shared upstreams, and no foreign byte (I-31, I-33, I-42)."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.brokers import Brokers, command, environment
from tests.peers import ROOT, Peers, kill_group
from tests.soak.callers import Findings, Watched, WatchedStream, watched_old_web, watched_pipe, watched_web
from tests.soak.serving import Serving, wait_until

Json = dict[str, Any]
UPSTREAMS = {
    **{"old-pipe": ("legacy", "stdio"), "old-web": ("legacy", "http"), "old-sse": ("legacy", "sse")},
    **{"new-pipe": ("modern", "stdio"), "new-web": ("modern", "http")},
}
ERAS = {"mixed": ("legacy", "modern"), "legacy": ("legacy",), "modern": ("modern",)}
MAX_SESSIONS = 80
"""Legacy sessions: the broker keeps a hundred for one principal."""
PIPES = 4
"""Callers with a stdio front of their own, from twenty callers on: each is a broker process."""
STREAMS = 4
"""Legacy callers on HTTP+SSE, from twenty callers on."""
LEAST: int = 3
"""Calls that each caller makes: on a busy machine two hundred of them are not even connected when the time is up."""
STEP_TIMEOUT: float = 60
SETTLE: float = 15
"""Seconds in which the broker must be back where it began."""
SLACK = {"tasks": 0, "descriptors": 1, "resident KiB": 64 * 1024}
"""What counts as nothing. Memory: what the allocator keeps of a crowd that has gone, far below what a leak makes of
ten thousand calls a minute."""
MAY_GROW = ("abandoned on links",)
"""Bounded, and a figure only: calls that were cancelled, and that their upstream rightly never answers."""


@dataclass
class Report:
    seed: int
    callers: int
    eras: str
    seconds: float
    findings: Findings
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)

    def left_behind(self) -> dict[str, tuple[int, int]]:
        """What the broker holds at the end and did not hold at the beginning."""
        return {
            name: (self.before[name], value)
            for name, value in self.after.items()
            if name not in MAY_GROW and value > self.before[name] + SLACK.get(name, 0)
        }

    def text(self) -> str:
        outcomes = self.findings.outcomes
        head = f"{self.callers} callers ({self.eras} eras), seed {self.seed}, {self.seconds:.1f} s"
        rows = [f"{head}: {self.findings.calls} calls, {self.findings.bytes} bytes read"]
        rows += [f"  {name:<24}{count:>8}" for name, count in sorted(outcomes.items())]
        rows += [f"  {name:<24}{self.before[name]:>8} ->{value:>8}" for name, value in self.after.items()]
        rows += [f"LEFT BEHIND {name}: {pair}" for name, pair in self.left_behind().items()]
        rows += [f"BROKEN {one}" for one in self.findings.broken[:20]]
        return "\n".join(
            [*rows, f"{len(self.findings.broken)} foreign or broken, {len(self.left_behind())} left behind"]
        )


class Soaked:
    """The broker under test and its upstreams."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.peers, self.brokers = Peers(directory), Brokers(directory)
        self.servers: dict[str, Json] = {}
        self.broker: Serving

    def start(self) -> None:
        for key, (era, transport) in UPSTREAMS.items():
            argv = [sys.executable, "-m", "tests.soak.upstream", "--era", era, "--transport", transport]
            if transport == "stdio":
                self.servers[key] = command(argv, cwd=str(ROOT))
                continue
            file = self.directory / f"{key}.url"
            self.peers.spawn([*argv, "--port-file", str(file)], env=environment())
            wait_until(file.exists)
            more = {"transport": "sse"} if transport == "sse" else {}
            self.servers[key] = {"url": file.read_text(encoding="utf-8"), **more}
        self.config = self.brokers.configure(self.servers)
        self.broker = Serving.start(self.config, self.directory / "broker.stderr")

    def close(self) -> None:
        if hasattr(self, "broker"):
            process = self.broker.process
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            kill_group(process)
            if process.stdin is not None:
                process.stdin.close()
        self.brokers.close()
        self.peers.close()


async def soak(directory: Path, *, seconds: float, callers: int, seed: int, eras: str = "mixed") -> Report:
    soaked = Soaked(directory)
    findings = Findings()
    report = Report(seed, callers, eras, seconds, findings)
    try:
        await asyncio.to_thread(soaked.start)
        async with watched_web(soaked.broker.url, "modern", "canary-99999", findings) as first:
            for key in UPSTREAMS:
                await first.call(f"{key}__chat", plan("canary-99999", random.Random(0)) | {"asks": False})
        report.before = await settled(soaked, None)
        began = time.monotonic()
        # Whoever is still in a call then finishes it: only what the callers themselves cut is cut.
        async with asyncio.TaskGroup() as tasks:
            for number in range(callers):
                kind = kind_of(number, callers, ERAS[eras])
                tasks.create_task(live(soaked, number, kind, began + seconds, seed, findings))
        report.seconds = time.monotonic() - began
        report.after = await settled(soaked, report)
    finally:
        await asyncio.to_thread(soaked.close)
    return report


async def settled(soaked: Soaked, report: Report | None) -> dict[str, int]:
    """The figures, once they are as small as they get."""
    figures = await soaked.broker.figures()
    deadline = time.monotonic() + (SETTLE if report is not None else 1.0)
    while time.monotonic() < deadline:
        if report is not None:
            report.after = figures
            if not report.left_behind():
                break
        await asyncio.sleep(0.2)
        figures = await soaked.broker.figures()
    return figures


def plan(canary: str, dice: random.Random) -> Json:
    return {
        "canary": canary,
        "delay": dice.choice((0, 0, 0.001, 0.01, 0.05)),
        "steps": dice.randrange(4),
        "asks": dice.random() < 0.25,
        "fails": dice.random() < 0.1,
    }


Kind = tuple[str, str]
"""The front, and the era."""


def kind_of(number: int, callers: int, eras: Sequence[str]) -> Kind:
    """Every caller has its kind: a few pipes and old streams, as many sessions as there may be, the rest without."""
    era = eras[number % len(eras)]
    if callers >= 20 and number < PIPES:
        return "stdio", era
    if callers >= 20 and number < PIPES + STREAMS and "legacy" in eras:
        return "sse", "legacy"
    if era == "legacy" and number // len(eras) >= MAX_SESSIONS:
        # One principal has so many sessions; whoever comes after them does without one.
        return ("http", "modern") if "modern" in eras else ("sse", "legacy")
    return "http", era


def caller_of(soaked: Soaked, kind: Kind, canary: str, findings: Findings) -> AbstractAsyncContextManager[Watched]:
    front, era = kind
    if front == "stdio":
        return watched_pipe(soaked.brokers.stdio(soaked.config), era, canary, findings)
    if front == "sse":
        return watched_old_web(f"{soaked.broker.url.removesuffix('/mcp')}/sse", canary, findings)
    return watched_web(soaked.broker.url, era, canary, findings)


async def live(soaked: Soaked, number: int, kind: Kind, until: float, seed: int, findings: Findings) -> None:
    dice, canary = random.Random(f"{seed}-{number}"), f"canary-{number:05d}"
    try:
        async with caller_of(soaked, kind, canary, findings) as caller:
            made = 0
            while made < LEAST or time.monotonic() < until:
                await asyncio.wait_for(one_call(caller, dice), STEP_TIMEOUT)
                made += 1
    except Exception as error:
        findings.broken.append(f"{canary} {kind}: {type(error).__name__}: {error}")


async def one_call(caller: Watched, dice: random.Random) -> None:
    """One call, to its answer or to where it is cut. All callers use the same ids and tokens, in the same order."""
    caller.findings.calls += 1
    arguments = plan(caller.canary, dice)
    name = f"{dice.choice(tuple(UPSTREAMS))}__chat"
    ident = caller.next_id()
    params: Json = {"name": name, "arguments": arguments, "_meta": {"progressToken": ident}}
    if caller.is_modern and dice.random() < 0.5:
        params["_meta"]["io.modelcontextprotocol/logLevel"] = "debug"
    request = asyncio.create_task(caller.exchange("tools/call", params, ident=ident))
    if not arguments["asks"] and dice.random() < 0.2:
        await cut(caller, ident, request, dice)
        return
    answer = json.loads(await request)
    while answer.get("result", {}).get("resultType") == "input_required":
        caller.findings.outcomes["questions answered"] += 1
        requests = answer["result"]["inputRequests"]
        ident = caller.next_id()
        retry = {
            **params,
            "_meta": {"progressToken": ident},
            "inputResponses": {key: caller.say_who(one["method"], one["params"]) for key, one in requests.items()},
            "requestState": answer["result"]["requestState"],
        }
        answer = json.loads(await caller.exchange("tools/call", retry, ident=ident))
    judge(caller, ident, arguments, answer)


async def cut(caller: Watched, ident: int, request: "asyncio.Task[bytes]", dice: random.Random) -> None:
    """Cancel the call, or go away from it, at any moment."""
    await asyncio.sleep(dice.choice((0, 0.001, 0.005, 0.02)))
    is_stream = isinstance(caller, WatchedStream)
    if is_stream or (not caller.is_modern and dice.random() < 0.5):
        await caller.tell("notifications/cancelled", {"requestId": ident})
        caller.findings.outcomes["cancelled"] += 1
        caller.taken_back.add(ident)
        # None, or the answer that was on its way.
        with suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(request, 1.0 if is_stream else STEP_TIMEOUT)
        return
    caller.findings.outcomes["disconnected"] += 1
    request.cancel()
    with suppress(asyncio.CancelledError, ConnectionError):
        await request


def judge(caller: Watched, ident: int, arguments: Json, answer: Json) -> None:
    if answer["id"] != ident:
        caller.findings.broken.append(f"{caller.canary}: the answer to {ident} is for {answer['id']}")
    elif "result" in answer:
        text = answer["result"]["content"][0]["text"]
        word = text.removeprefix(caller.canary).strip() or "plain"
        if not text.startswith(caller.canary) or word not in ("plain", "answered", "refused"):
            caller.findings.broken.append(f"{caller.canary}: {text}")
        caller.findings.outcomes[f"result: {word}"] += 1
    elif arguments["fails"] and answer["error"]["message"] == caller.canary:
        caller.findings.outcomes["error: own"] += 1
    else:
        caller.findings.broken.append(f"{caller.canary}: {json.dumps(answer['error'])}")
