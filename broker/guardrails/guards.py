"""What the rest of the broker calls: the guardrails of one configuration around a call, a question, a definition.

`Guards` has a pool of processes of its own, which lives as long as its generation. Where nothing is configured
`NoGuards` stands in its place, and costs a call nothing.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio

from broker.clock import Clock
from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.questions import Question
from broker.core.shape import is_object
from broker.errors import INTERNAL_ERROR, Blocked, UpstreamAnsweredError
from broker.guardrails.chain import (
    MEMBER,
    Chains,
    Guardrail,
    GuardrailRecord,
    Phase,
    Record,
    Subject,
    log_record,
    record_nothing,
)
from broker.guardrails.pool import Pool
from broker.guardrails.run import judge, load
from broker.guardrails.shapes import args_of, as_error, as_result, is_task, shape_fault, with_args
from broker.guardrails.source import Flaw, Source
from broker.guardrails.verdict import Fault, Pass, Reject, Rewrite, Verdict
from broker.in_use import InUse

Send = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Makes the call with these parameters."""

INPUT_REQUIRED: Final = "input_required"
QUESTION_MEMBERS: Final = frozenset({"resultType", "inputRequests", "requestState", "_meta"})
"""What a result that asks consists of. One with more in it says something, and is judged like any result."""
TASK_RESULTS: Final = frozenset({"tasks/get", "tasks/result"})
"""Requests about a task whose answer may hold what its tool has said."""
_ACTIONS: Final[Mapping[type[Verdict], str]] = {Pass: "pass", Rewrite: "rewrite", Reject: "reject", Fault: "fault"}


class Guarded(Protocol):
    """One permitted call, with the guardrails around it."""

    async def call(self, params: Mapping[str, Any], send: Send) -> dict[str, Any]:
        """The result of `send`, both ways judged. Raises: Blocked; BrokerError, what `send` raises."""
        ...

    async def question(self, question: Question) -> Question:
        """A question of the upstream in the middle of it, judged. Raises: Blocked."""
        ...


class Unguarded:
    """A call that no guardrail judges."""

    async def call(self, params: Mapping[str, Any], send: Send) -> dict[str, Any]:
        """See `Guarded`."""
        return await send(params)

    async def question(self, question: Question) -> Question:
        """See `Guarded`."""
        return question


UNGUARDED: Final = Unguarded()


class NoGuards:
    """No guardrail is configured."""

    judges_calls: bool = False
    hashes: Mapping[str, str] = {}
    in_use: InUse = InUse()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """See `Guards`."""
        yield

    def around(
        self, caller: Caller, entry: Entry, method: str, record: Record = record_nothing, *, is_foreign: bool = False
    ) -> Guarded:
        """See `Guards`."""
        return UNGUARDED

    def outside(self, caller: Caller, server: str) -> Guarded:
        """See `Guards`."""
        return UNGUARDED

    async def load(self) -> dict[str, Sequence[Flaw]]:
        """See `Guards`."""
        return {}

    def is_same(self, other: "Guards | NoGuards") -> bool:
        """See `Guards`."""
        return isinstance(other, NoGuards)

    def judges_results(self, server: str) -> bool:
        """See `Guards`."""
        return False

    def judges_definitions(self, server: str) -> str:
        """See `Guards`."""
        return ""

    async def definition(self, server: str, kind: str, own: str, value: dict[str, Any]) -> dict[str, Any]:
        """See `Guards`."""
        return value


NO_GUARDS: Final = NoGuards()


class Guards:
    """The guardrails of one configuration, and the processes they run in while `running` is entered.

    `record` takes every judgement on what belongs to no call; those of a call go to that call's own. All are logged.
    """

    judges_calls: bool = True
    """Whether it is worth asking for what is `around` a call."""

    def __init__(self, guardrails: Sequence[Guardrail], clock: Clock, record: Record = record_nothing) -> None:
        self.chains = Chains(guardrails)
        self.hashes: Mapping[str, str] = {one.name: one.source.sha256 for one in guardrails}
        """Name -> the hash of the text that decides: for records, and for whoever compares generations."""
        self.pool = Pool(clock)
        self.in_use = InUse()
        """The calls that are judged by these, from the decision to the answer."""
        self._clock = clock
        self._record = record

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """The processes run; at the end none is left."""
        async with self.pool.running():
            yield

    async def load(self) -> dict[str, Sequence[Flaw]]:
        """What is wrong with each guardrail that cannot be used, by name."""
        found: dict[str, Sequence[Flaw]] = {}

        async def one(guardrail: Guardrail) -> None:
            found[guardrail.name] = await load(self.pool, guardrail.source)

        async with anyio.create_task_group() as tasks:
            for guardrail in self.chains.guardrails:
                tasks.start_soon(one, guardrail)
        return {one.name: found[one.name] for one in self.chains.guardrails if found[one.name]}

    def is_same(self, other: "Guards | NoGuards") -> bool:
        """Whether others judge by the same texts, in the same order, of the same subjects, within the same bounds."""
        return isinstance(other, Guards) and self.chains.guardrails == other.chains.guardrails

    def outside(self, caller: Caller, server: str) -> Guarded:
        """What judges the questions of a server that belong to no call: all that is for that server and caller."""
        return _GuardedCall(self, Subject(server, "", "", "", caller), self._record)

    def around(
        self, caller: Caller, entry: Entry, method: str, record: Record = record_nothing, *, is_foreign: bool = False
    ) -> Guarded:
        """The guardrails of one call, which a `Permit` has let pass; of a look at a task, those of the tool it runs; of
        a method of an extension, all of its server. `record`: what is recorded of the call.
        """
        is_about_task = method.startswith("tasks/")
        if is_about_task and method not in TASK_RESULTS:
            return UNGUARDED
        kind, own = ("", "") if is_foreign else (entry.kind, entry.own)
        if not self.chains.judge_calls(entry.server, kind, own, caller):
            return UNGUARDED
        subject = Subject(entry.server, kind, own, "tools/call" if is_about_task else method, caller)
        return _GuardedTask(self, subject, record) if is_about_task else _GuardedCall(self, subject, record)

    def judges_results(self, server: str) -> bool:
        """Whether results or questions of a server are judged at all."""
        return any(
            one.phases & {Phase.RESULT, Phase.QUESTION}
            and (one.selector.servers is None or server in one.selector.servers)
            for one in self.chains.guardrails
        )

    def judges_definitions(self, server: str) -> str:
        """What the definitions of a server are judged by, as a text that differs when that does; "": nothing."""
        judging = [
            one.source.sha256
            for one in self.chains.guardrails
            if Phase.DEFINITION in one.phases and (one.selector.servers is None or server in one.selector.servers)
        ]
        return ",".join(judging)

    async def definition(self, server: str, kind: str, own: str, value: dict[str, Any]) -> dict[str, Any]:
        """A definition, or `{"instructions": text}`, judged. Raises: Blocked."""
        return await self.judge(Phase.DEFINITION, Subject(server, kind, own), value, self._record)

    async def judge(self, phase: Phase, subject: Subject, value: Any, record: Record) -> Any:
        """`value` after all guardrails of its phase, each of which is given what the one before has left.

        Raises: Blocked.
        """
        for guardrail in self.chains.of(phase, subject):
            began = self._clock.now()
            verdict = await verdict_on(self.pool, guardrail.source, phase, subject, subject.context(phase, value))
            judgement = _judgement(guardrail, phase, subject, verdict, self._clock.now() - began)
            log_record(judgement)
            record(judgement)
            if isinstance(verdict, Rewrite):
                value = verdict.value
            elif not isinstance(verdict, Pass):
                raise Blocked(guardrail.name)
        return value


async def verdict_on(pool: Pool, source: Source, phase: Phase, subject: Subject, context: Mapping[str, Any]) -> Verdict:
    """One guardrail's verdict on a `ctx`: a rewrite has the shape that it must have. Never raises."""
    verdict = await judge(pool, source, context, MEMBER[phase])
    if isinstance(verdict, Rewrite):
        fault = shape_fault(phase, subject, context.get(MEMBER[phase]), verdict.value)
        return verdict if fault is None else Fault(fault)
    return verdict


def _judgement(
    guardrail: Guardrail, phase: Phase, subject: Subject, verdict: Verdict, seconds: float
) -> GuardrailRecord:
    reason = verdict.reason if isinstance(verdict, Reject) else verdict.why if isinstance(verdict, Fault) else ""
    return GuardrailRecord(
        guardrail.name,
        guardrail.source.sha256,
        phase,
        subject.server,
        subject.kind,
        subject.name,
        subject.caller,
        _ACTIONS[type(verdict)],
        reason,
        seconds,
    )


@dataclass(frozen=True, slots=True)
class _GuardedCall:
    """See `Guarded`."""

    guards: Guards
    subject: Subject
    record: Record

    async def call(self, params: Mapping[str, Any], send: Send) -> dict[str, Any]:
        """See `Guarded`."""
        args = args_of(self.subject, params)
        judged = await self._judge(Phase.REQUEST, args)
        try:
            result = await send(params if judged is args else with_args(params, judged))
        except UpstreamAnsweredError as error:
            raise await self._error(error) from None
        return await self._result(result)

    async def question(self, question: Question) -> Question:
        """See `Guarded`."""
        asked = {"method": question.method, "params": question.params}
        judged = await self._judge(Phase.QUESTION, asked)
        return question if judged is asked else Question(question.method, judged["params"])

    async def _judge(self, phase: Phase, value: Any) -> Any:
        return await self.guards.judge(phase, self.subject, value, self.record)

    async def _result(self, result: dict[str, Any]) -> dict[str, Any]:
        if result.get("resultType") == INPUT_REQUIRED and set(result) <= QUESTION_MEMBERS:
            return result  # no result yet; its questions have been judged one by one
        if is_task(result):
            return await self._task(result)
        return await self._judge(Phase.RESULT, result)

    async def _error(self, error: UpstreamAnsweredError) -> UpstreamAnsweredError:
        """An upstream's error says what a result could have said, so it is judged as one (I-17)."""
        told = as_result(self.subject, error)
        judged = await self._judge(Phase.RESULT, told)
        return error if judged is told else as_error(self.subject, error, judged)

    async def _task(self, task: dict[str, Any]) -> dict[str, Any]:
        """A task: what it holds inside, its result or its error, is judged; a modern one holds them itself."""
        task = dict(task)
        if is_object(task.get("result")):
            task["result"] = await self._judge(Phase.RESULT, task["result"])
        if is_object(task.get("error")):
            inner = task["error"]
            message = inner.get("message")
            code = inner.get("code")
            error = UpstreamAnsweredError(
                message if isinstance(message, str) else "",
                inner.get("data"),
                code=code if isinstance(code, int) else INTERNAL_ERROR,
            )
            judged = await self._error(error)
            task["error"] = inner if judged is error else judged.to_json()
        return task


class _GuardedTask(_GuardedCall):
    """A look at a task: its arguments were judged when it was made."""

    async def call(self, params: Mapping[str, Any], send: Send) -> dict[str, Any]:
        """See `Guarded`."""
        try:
            result = await send(params)
        except UpstreamAnsweredError as error:
            raise await self._error(error) from None
        return await self._task(result) if "taskId" in result else await self._result(result)
