"""The storm: all kinds of traffic in both eras and on all fronts, while everything around the broker fails at random.

Whatever happens: every request has exactly one answer, unless its caller itself cut it off; no byte of one caller
reaches another one; and after each round, when it is quiet, the broker holds what it held before.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from broker.core.lifecycle import MAX_DELAY
from tests.callers.caller import META, Json
from tests.callers.pipe import piped
from tests.callers.web import OldWeb, Web, streamed
from tests.e2e.brokers import Brokers
from tests.soak.callers import OFFERED, Findings, Watched, WatchedOldWeb, WatchedPipe, WatchedStream, WatchedWeb
from tests.soak.town import GUARDED, PIPES, SERVERS, STEP_TIMEOUT, Resident, Town, residents
from tests.soak.weather import Weather

SETTLE: float = 30
"""Seconds in which the broker must be back where it began, and each server served again."""
LANES = 2
"""What each caller over HTTP does at a time."""
MEMORY = "resident KiB"
SLACK = {
    "links of callers": 0,
    "descriptors": 12,
    "guardrail processes": 2,
    "tasks": 8,
    MEMORY: 64 * 1024,
}
"""What counts as nothing. Descriptors and tasks: connections that are kept for the next call, and two more guardrail
processes. Memory: what the allocator keeps of a crowd that has gone."""
GROWTH = 16 * 1024
"""KiB that a later round may leave above the first: a leak grows with each of them."""
MAY_GROW = ("abandoned on links",)
"""Bounded, and a figure only: calls that were cancelled, and that their server rightly never answers."""
TROUBLES = ("malformed", "twice", "stray", "hang", "exit")
REFUSALS = {
    "blocked by guardrail": "blocked",
    "has reached its limit": "limited",
    "has used up its budget": "over budget",
    "cannot be looked up now": "over budget",
}
UNKNOWN = (-32602, -32002)
"""Codes of what is not there; the second one is that of resources before 2026-07-28."""
SHOWN = 20
"""Broken things that are printed."""


@dataclass
class Report:
    seed: int
    people: int
    findings: Findings = field(default_factory=Findings)
    faults: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0
    asked: int = 0
    answered: int = 0
    cut: int = 0
    """By the caller itself."""
    rounds: list[dict[str, int]] = field(default_factory=list[dict[str, int]])
    """What the broker held before the first round, and after each."""

    def left_behind(self) -> dict[str, tuple[int, int]]:
        """What the broker holds after the last round and did not hold at the beginning."""
        if len(self.rounds) < 2:
            return {}
        before, after = self.rounds[0], self.rounds[-1]
        found = {
            name: (before[name], value)
            for name, value in after.items()
            if name not in MAY_GROW and value > before[name] + SLACK.get(name, 0)
        }
        if after[MEMORY] > self.rounds[1][MEMORY] + GROWTH:
            found[MEMORY] = (self.rounds[1][MEMORY], after[MEMORY])
        return found

    @property
    def unanswered(self) -> int:
        """Requests with neither an answer nor a caller that gave up."""
        return self.asked - self.answered - self.cut

    @property
    def is_good(self) -> bool:
        return not (self.findings.broken or self.left_behind() or self.unanswered)

    def text(self) -> str:
        rows = [
            f"storm over {self.people} callers, seed {self.seed}, {self.seconds:.0f} s:"
            f" {self.asked} requests, {self.answered} answered, {self.cut} cut by their callers,"
            f" {self.unanswered} without an answer; {self.findings.bytes} bytes read"
        ]
        rows += [f"  {name:<28}{count:>8}" for name, count in sorted(self.findings.outcomes.items())]
        rows += [f"  fault: {name:<21}{count:>8}" for name, count in sorted(self.faults.items())]
        rows += [
            f"  {name:<28}" + " ->".join(f"{one[name]:>8}" for one in self.rounds)
            for name in (self.rounds[0] if self.rounds else ())
        ]
        rows += [f"LEFT BEHIND {name}: {pair}" for name, pair in self.left_behind().items()]
        rows += [f"BROKEN {one}" for one in self.findings.broken[:SHOWN]]
        broken, left = len(self.findings.broken), len(self.left_behind())
        return "\n".join([*rows, f"{broken} foreign or broken, {left} left behind, {self.unanswered} unanswered"])


Say = Callable[[str], object]


async def storm(
    directory: Path, *, seconds: float, seed: int, people: int = 24, rounds: int = 1, say: Say = lambda line: None
) -> Report:
    """`say` is told every few seconds how it goes."""
    report = Report(seed, people)
    town = Town(directory, residents(people))
    try:
        await asyncio.to_thread(town.start)
        await whole(town, report)
        report.rounds.append(await settled(town, report))
        for number in range(1, rounds + 1):
            began = time.monotonic()
            weather = Weather(town, random.Random(f"{seed} {number}"))
            async with asyncio.TaskGroup() as tasks:
                for resident in town.people:
                    for lane in range(LANES if resident.front == "http" else 1):
                        dice = random.Random(f"{seed} {number} {resident.number} {lane}")
                        tasks.create_task(live(town, resident, dice, began + seconds / rounds, report))
                blowing = tasks.create_task(weather.blow(began + seconds / rounds))
                tasks.create_task(_tell(blowing, report, weather, f"round {number} of {rounds}", say))
            report.seconds += time.monotonic() - began
            report.faults += weather.faults
            try:
                await whole(town, report)
                report.rounds.append({})
                report.rounds[-1] = await settled(town, report)
            except (OSError, TimeoutError) as error:
                report.findings.broken.append(f"the broker is gone: {type(error).__name__} {error}")
                report.rounds = [one for one in report.rounds if one]
                break
            say(f"round {number} of {rounds}: {report.text().splitlines()[-1]}")
        report.findings.broken += await asyncio.to_thread(town.end)
        report.findings.broken += town.alarms()
    finally:
        await asyncio.to_thread(town.close)
    return report


async def _tell(blowing: "asyncio.Task[None]", report: Report, weather: Weather, head: str, say: Say) -> None:
    """How it goes, and at once what was found: an hour later it would help nobody."""
    began, said = time.monotonic(), len(report.findings.broken)
    while not (await asyncio.wait([blowing], timeout=10))[0]:
        faults, broken = weather.faults.total(), len(report.findings.broken)
        for one in report.findings.broken[said:broken][:SHOWN]:
            say(f"BROKEN {one}")
        said = broken
        say(f"{head}, {time.monotonic() - began:.0f} s: {report.asked} requests, {faults} faults, {broken} broken")


async def whole(town: Town, report: Report) -> None:
    """Wait until every server serves again."""
    # Somebody who is there: links are those of a key, and a process may remember whom it has served before.
    one = next(one for one in town.people if one.organization == "globex")
    resident = replace(one, front="http", era="modern")
    # One that was killed again and again is started again after `MAX_DELAY`: its back-off is no fault.
    deadline = time.monotonic() + MAX_DELAY + SETTLE
    async with at_the_door(town, resident, report.findings) as caller:
        for server in SERVERS:
            while True:
                answer = await asked(caller, report, "tools/call", call_of(server, still(resident)))
                result = answer.get("result", {})
                if result.get("content") and not result.get("isError"):
                    break
                if time.monotonic() > deadline:
                    report.findings.broken.append(f"{server} does not come back: {answer}")
                    break
                await asyncio.sleep(0.1)


async def settled(town: Town, report: Report) -> dict[str, int]:
    """The figures once they are as at the beginning, or after `SETTLE` seconds as they are."""
    deadline = time.monotonic() + SETTLE
    while True:
        await asyncio.sleep(0.5)
        figures = await town.broker.figures()
        if not report.rounds:
            # Before the first round: once twice the same, links of the first look are gone.
            before = figures
            await asyncio.sleep(1)
            figures = await town.broker.figures()
            if figures["links of callers"] == 0 and figures["tasks"] == before["tasks"]:
                return figures
        else:
            report.rounds[-1] = figures
            if not report.left_behind():
                return figures
        if time.monotonic() > deadline:
            return figures


# --- callers -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def at_the_door(town: Town, resident: Resident, findings: Findings) -> AsyncGenerator[Watched, None]:
    credential = {"Authorization": f"Bearer {resident.key}"}
    if resident.front == "stdio":
        pipe = WatchedPipe(resident.era, canary=resident.canary, findings=findings)
        pipe.capabilities, pipe.patience = capabilities(resident.era), STEP_TIMEOUT
        argv = Brokers(town.directory).stdio(town.config)
        with town.log_of(resident.number).open("ab") as stderr:
            async with piped(pipe, argv, stderr=stderr):
                town.pipes.add(pipe.process.pid)
                try:
                    yield pipe
                finally:
                    town.pipes.discard(pipe.process.pid)
        if pipe.had_to_be_killed:
            findings.broken.append(f"{resident.canary}: the stdio front did not end")
    elif resident.front == "sse":
        old = WatchedOldWeb(f"{town.broker.url.removesuffix('/mcp')}/sse", canary=resident.canary, findings=findings)
        old.credential, old.capabilities = credential, capabilities(resident.era)
        async with streamed(old):
            yield old
    else:
        web = WatchedWeb(town.broker.url, resident.era, canary=resident.canary, findings=findings)
        web.credential, web.capabilities = credential, capabilities(resident.era)
        await web.greet()
        yield web
        if web.session is not None:
            await web.delete()


def capabilities(era: str) -> Json:
    return {**OFFERED, "extensions": {META + "tasks": {}}} if era == "modern" else OFFERED


class Gone(Exception):
    """The caller has left, in the middle of something, and comes again as a new one."""


async def live(town: Town, resident: Resident, dice: random.Random, until: float, report: Report) -> None:
    """One lane: it comes, does this and that, goes, and comes again."""
    while time.monotonic() < until:
        try:
            async with at_the_door(town, resident, report.findings) as caller:
                for _ in range(dice.randrange(5, 60)):
                    if time.monotonic() >= until:
                        break
                    deed = dice.choices(list(DEEDS), list(DEEDS.values()))[0]
                    await asyncio.wait_for(deed(caller, resident, dice, report), STEP_TIMEOUT)
        except Gone:
            report.findings.outcomes["callers that vanished"] += 1
        except Exception as error:
            if "nothing was started" in " ".join(town.last_words(resident.number)):
                report.findings.outcomes["not started with a broken file"] += 1
                continue
            where = f"{resident.canary} {resident.front} {resident.era}"
            report.findings.broken.append(
                f"{where}: {type(error).__name__}: {error} {town.last_words(resident.number)}"
            )
            await asyncio.sleep(1)


async def asked(caller: Watched, report: Report, method: str, params: Json, ident: int | None = None) -> Json:
    """One request to its answer."""
    ident = caller.next_id() if ident is None else ident
    report.asked += 1
    answer: Json = json.loads(await caller.exchange(method, params, ident=ident))
    if answer["id"] != ident:
        report.findings.broken.append(f"{caller.canary}: the answer to {ident} is for {answer['id']}")
    report.answered += 1
    return answer


def call_of(server: str, arguments: Json, tool: str = "chat") -> Json:
    return {"name": f"{server}__{tool}", "arguments": arguments}


def still(resident: Resident) -> Json:
    """The arguments of the simplest call."""
    return {"canary": resident.canary, "delay": 0, "steps": 0, "asks": False, "fails": False}


def plan(resident: Resident, server: str, dice: random.Random) -> Json:
    trouble = ""
    if dice.random() < 0.06:
        trouble = dice.choice(TROUBLES if server in PIPES else TROUBLES[:-1])
    return {
        "canary": resident.canary,
        "delay": dice.choice((0, 0, 0.001, 0.01, 0.05)),
        "steps": dice.randrange(4),
        "asks": dice.random() < 0.2,
        "fails": dice.random() < 0.1,
        "is_bad": dice.random() < 0.1,
        "size": dice.choice((0, 0, 0, 0, 0, 0, 1, 20, 100)),
        "trouble": trouble,
    }


async def call(caller: Watched, resident: Resident, dice: random.Random, report: Report) -> None:
    """One call, with all that it asks, to its answer or to where its caller cuts it."""
    server = dice.choice(SERVERS)
    arguments = plan(resident, server, dice)
    params = call_of(server, arguments)
    ident = caller.next_id()
    level = {META + "logLevel": "debug"} if caller.is_modern and dice.random() < 0.5 else {}
    params["_meta"] = {"progressToken": ident, **level}
    if not arguments["asks"] and dice.random() < 0.2:
        await cut(caller, ident, params, dice, report)
        return
    answer = await asked(caller, report, "tools/call", params, ident)
    while answer.get("result", {}).get("resultType") == "input_required":
        requests = answer["result"]["inputRequests"]
        retry = {
            **params,
            "inputResponses": {key: caller.say_who(one["method"], one["params"]) for key, one in requests.items()},
            "requestState": answer["result"]["requestState"],
        }
        answer = await again(caller, report, retry)
    outcome = outcome_of(resident, server, arguments, answer)
    if outcome:
        report.findings.outcomes[outcome] += 1
    else:
        report.findings.broken.append(f"{resident.canary} {server} {arguments}: {str(answer)[:500]}")


async def again(caller: Watched, report: Report, retry: Json) -> Json:
    """Bring the answers to where they are wanted. Who is told to come later comes later, and so does who is refused by
    a guardrail that could not judge: else the call would wait for its caller, as long as a person may take. Once the
    result was judged there is nothing to come back for.
    """
    refusal: Json = {}
    while True:
        answer = await asked(caller, report, "tools/call", retry)
        if refusal and answer.get("error", {}).get("data") == {"reason": "invalid_request_state"}:
            return refusal
        result = answer.get("result", {})
        text = result["content"][0]["text"] if result.get("isError") and result["content"] else ""
        word = next((word for said, word in REFUSALS.items() if said in text), "")
        if not word:
            return answer
        refusal = answer if word == "blocked" else refusal
        report.findings.outcomes["answers brought again"] += 1
        await asyncio.sleep(0.2)


async def cut(caller: Watched, ident: int, params: Json, dice: random.Random, report: Report) -> None:
    """Cancel the call, go away from it, end its session, or vanish altogether, at any moment."""
    report.asked += 1
    report.cut += 1
    request = asyncio.create_task(caller.exchange("tools/call", params, ident=ident))
    await asyncio.sleep(dice.choice((0, 0.001, 0.005, 0.02, 0.1)))
    outcomes = report.findings.outcomes
    way = dice.random()
    try:
        if way < 0.15 and isinstance(caller, OldWeb):
            caller.taken_back.add(ident)  # its stream is open for a moment yet
            raise Gone
        if way < 0.15 and isinstance(caller, Web) and caller.session is not None:
            outcomes["sessions deleted in a call"] += 1
            await caller.delete()
            caller.session = None
            raise Gone
        if isinstance(caller, WatchedStream) or (not caller.is_modern and way < 0.6):
            outcomes["cancelled"] += 1
            caller.taken_back.add(ident)
            await caller.tell("notifications/cancelled", {"requestId": ident})
            # None, or the answer that was on its way.
            with suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(request, 0.2 if isinstance(caller, WatchedStream) else STEP_TIMEOUT)
        else:
            outcomes["disconnected"] += 1
    finally:
        request.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await request


def outcome_of(resident: Resident, server: str, arguments: Json, answer: Json) -> str:
    """What became of a call, in a word; "" if that must not be."""
    if "error" in answer:
        return _error(resident, server, arguments, answer["error"])
    result = answer["result"]
    content = result["content"]
    if not content:
        return "result: of a server that answers twice" if arguments.get("trouble") == "twice" else ""
    text = content[0]["text"]
    if result.get("isError"):
        return _refusal(server, text)
    word = text.removeprefix(resident.canary).strip() or "plain"
    if not text.startswith(resident.canary) or word not in ("plain", "answered", "refused"):
        return ""
    if arguments.get("is_bad") and server in GUARDED:
        return ""
    if len(content) != 1 + arguments.get("size", 0):
        return ""
    return f"result: {word}"


def _refusal(server: str, text: str) -> str:
    word = next((word for said, word in REFUSALS.items() if said in text), "")
    return "" if not word or (word == "blocked" and server not in GUARDED) else f"refused: {word}"


def is_granted(report: Report, resident: Resident, server: str, answer: Json, *gone: str) -> bool:
    """Whether there is a result. What there is instead must be what may be; `gone`: what is said of what is not there
    any more.
    """
    if "error" in answer:
        error = answer["error"]
        is_gone = error["code"] in UNKNOWN and any(text in error["message"] for text in gone)
        word = "gone" if is_gone else _error(resident, server, {}, error)
    elif answer["result"].get("isError"):
        word = _refusal(server, answer["result"]["content"][0]["text"])
    else:
        return True
    if not word:
        report.findings.broken.append(f"{resident.canary} {server}: {str(answer)[:500]}")
    return False


def _error(resident: Resident, server: str, arguments: Json, error: Json) -> str:
    data = error.get("data")
    if arguments.get("fails") and error["message"] == resident.canary:
        return "error: own"
    if isinstance(data, dict) and data.get("upstream") == server:
        return "error: timeout" if data.get("reason") == "timeout" else "error: server"
    if error["code"] == 4290:
        return "refused: limited"
    if error["code"] == 4030:
        return _refusal(server, error["message"])
    if (
        error["code"] == -32602
        and "Unknown tool" in error["message"]
        and (server == "turned" or not resident.sees(server))
    ):
        return "refused: unknown"
    if server == "turned" and arguments.get("asks") and data == {"reason": "invalid_request_state"}:
        return "refused: given up"  # its server was taken out and put back while the call was parked
    return ""


async def look(caller: Watched, resident: Resident, dice: random.Random, report: Report) -> None:
    """List the tools: nothing that is hidden is there."""
    answer = await asked(caller, report, "tools/list", {})
    names = {tool["name"].partition("__")[0] for tool in answer["result"]["tools"]}
    if hidden := sorted(name for name in names if not resident.sees(name)):
        report.findings.broken.append(f"{resident.canary} sees {hidden}")
    report.findings.outcomes["lists"] += 1


async def listen(caller: Watched, resident: Resident, dice: random.Random, report: Report) -> None:
    """Watch a resource for a while, and change it."""
    server = dice.choice([one for one in SERVERS if resident.sees(one)])
    uri = f"{server}+note:///{resident.canary}"
    touching = call_of(server, {"canary": resident.canary}, "touch")

    async def touch() -> None:
        is_granted(report, resident, server, await asked(caller, report, "tools/call", touching))

    if not caller.is_modern:
        answer = await asked(caller, report, "resources/subscribe", {"uri": uri})
        is_granted(report, resident, server, answer, "Resource not found", "Unknown resource")
        await touch()
        answer = await asked(caller, report, "resources/unsubscribe", {"uri": uri})
        is_granted(report, resident, server, answer, "Resource not found", "Unknown resource")
    else:
        report.asked += 1
        report.cut += 1
        ident = caller.next_id()
        wanted = {"notifications": {"resourceSubscriptions": [uri], "toolsListChanged": True}}
        request = asyncio.create_task(caller.exchange("subscriptions/listen", wanted, ident=ident))
        await asyncio.sleep(dice.choice((0, 0.01, 0.05)))
        await touch()
        await asyncio.sleep(dice.choice((0, 0.05)))
        await caller.cancel(ident, request)
        request.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await request
    report.findings.outcomes["listened"] += 1


async def work(caller: Watched, resident: Resident, dice: random.Random, report: Report) -> None:
    """A task: made, looked at, and perhaps left alone."""
    server = dice.choice([one for one in SERVERS if resident.sees(one)])
    params = call_of(server, {"canary": resident.canary}, "work")
    answer = await asked(caller, report, "tools/call", params if caller.is_modern else {**params, "task": {}})
    outcomes = report.findings.outcomes
    result = answer.get("result", {})
    if not is_granted(report, resident, server, answer) or _says(resident, result):
        outcomes["tasks: none"] += 1
        return
    task = (result if caller.is_modern else result["task"])["taskId"]
    if dice.random() > 0.7:
        outcomes["tasks: left alone"] += 1
        return
    for method in ("tasks/get",) if caller.is_modern else ("tasks/get", "tasks/result"):
        answer = await asked(caller, report, method, {"taskId": task})
        if not is_granted(report, resident, server, answer, "Task not found"):
            outcomes["tasks: lost with their server"] += 1
            return
    outcomes["tasks: done"] += 1


def _says(resident: Resident, result: Json) -> bool:
    """Whether it is the resident's own word: of a server that makes a task for nobody who asks for none."""
    return [one.get("text") for one in result.get("content", ())] == [resident.canary]


Deed = Callable[[Watched, Resident, random.Random, Report], Awaitable[None]]
DEEDS: dict[Deed, int] = {call: 80, look: 8, listen: 6, work: 6}
"""How often each."""
