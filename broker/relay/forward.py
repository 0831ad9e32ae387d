"""Only a `Permit` gets here: send the call upstream, and bring back what the caller may read.

The request and the result change only where they must: names, URIs, the `_meta` of one hop, and what differs
between the eras (`core/era.py`). Everything else passes as it came, unknown fields included.

A question in the middle of a call takes one of four ways:

| caller \\ upstream | legacy (asks while it works) | modern (answers `input_required`) |
|---|---|---|
| legacy | the caller is asked on the stream of its call | the broker asks the caller, and asks the upstream again |
| modern | the call is parked until the retry brings the answer | passes, its state inside a sealed one of ours |
"""

from collections.abc import Awaitable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import anyio

from broker.core.era import CACHEABLE, PER_HOP, RELATED_TASK, error_for_caller, is_modern, result_for_caller
from broker.core.extensions import is_foreign
from broker.core.questions import Question, questions_of, requests_of, unanswerable, url_questions
from broker.core.request import Kind
from broker.core.rewrite import rewrite_result
from broker.core.seal import Claims
from broker.core.shape import is_object
from broker.core.tasks import TASK_METHODS, own_related, publish_related
from broker.errors import (
    REFUSED,
    URL_ELICITATION_REQUIRED,
    Blocked,
    BrokerError,
    CannotAsk,
    MalformedAnswer,
    UpstreamAnsweredError,
    printable,
)
from broker.outputs.checks import Checks
from broker.relay.agreed import Agreed
from broker.relay.call import NOT_FOR_ALL, Call
from broker.relay.extensions import own_params
from broker.relay.hiding import scrubbed_result
from broker.relay.parking import ParkedCall, Parking
from broker.relay.tasks import Tasks
from broker.secrecy import scrubbed_report
from broker.upstream.lease import Asker, Lease
from broker.upstream.waiting import ANSWER_TIMEOUT
from broker.usage.traces import NO_SPAN

INPUT_REQUIRED: Final = "input_required"
COMPLETE: Final = (None, "complete")
CONTINUING: Final = frozenset({"cursor", "requestState"})
"""Parameters without any of which no request goes on with another."""
MAX_ROUNDS: Final = 16
"""Times that an upstream may ask again in one call of a legacy caller (SP-66)."""


class Forwarder:
    """What forwarding needs beside the call: the broker's own `serverInfo`, parked calls, whose task is whose, and who
    looks at results now and then.
    """

    def __init__(self, me: Mapping[str, Any], parking: Parking, tasks: Tasks, checks: Checks) -> None:
        self.me = me
        self.parking = parking
        self.tasks = tasks
        self.checks = checks

    def forward(self, call: Call) -> Awaitable[dict[str, Any]]:
        """The result of `call`, as its caller's era has it.

        Raises: BrokerError: the upstream's own error, or that it is unavailable, out of time or malformed.
        """
        meta = call.params.get("_meta")
        if is_object(meta) and RELATED_TASK in meta:
            call.params = own_related(dict(call.params), self._agreed(call).own_task)
        if not call.upstream.server.roots:
            call.exchange.withhold("roots")
        # A link that all share, and is there, is not waited for and not given back.
        link = None if call.server in call.now.pool.isolated else call.upstream.live
        if link is None or call.awaited is not None or not NOT_FOR_ALL.isdisjoint(call.params):
            return self._forward_special(call)
        call.link = link
        if call.exchange.capabilities and call.may_park:
            return self._park(call, Lease(link))
        return self._run(call, call.params)

    async def _forward_special(self, call: Call) -> dict[str, Any]:
        """A retry, a wait for the end of a task, or a call whose link is its caller's own, or not there yet.

        Raises: BrokerError.
        """
        state = self._state_of(call) if "requestState" in call.params else None
        if state is not None and state.parked is not None:
            # Before anything of the upstream is asked for: what it said may be here, and it may be gone.
            return await self._resume(call, state)
        lease: Lease | None = None
        if call.awaited is not None:
            call.awaited.waiting.append(call.exchange)
        try:
            lease = await self._leased(call, state)
            call.link = lease.link
            if call.may_park:
                return await self._park(call, lease)
            return await self._run(call, call.outgoing_params(state))
        finally:
            if lease is not None:
                lease.give_back()
            if call.awaited is not None:
                call.awaited.waiting.remove(call.exchange)

    async def _leased(self, call: Call, state: Claims | None) -> Lease:
        """The link that is the caller's own, or is not there yet. Raises: UpstreamUnavailable."""
        exchange = call.exchange
        asker = Asker(call.permit.caller.principal, exchange.who.session, exchange.capabilities)
        try:
            return await call.now.pool.lease(call.server, asker, call.now.first_wait)
        except BrokerError:
            if state is not None:
                self.parking.take_back(state)
            raise

    def is_continued(self, call: Call) -> bool:
        """Whether a request goes on with one that was admitted: a retry that brings answers, or a further page of a
        server's tasks.
        """
        if call.method == "tasks/list":
            return isinstance(call.params.get("cursor"), str)  # the first page of a list may have one that is null
        if "requestState" not in call.params or not is_modern(call.version):
            return False
        return self.parking.is_good(call.params["requestState"], call.claims())

    def let_pass(self, call: Call) -> None:
        """What goes on was admitted with its call: not so the next time. Raises: BrokerError, as `unseal` does."""
        if call.method != "tasks/list":
            self.parking.let_pass(call.params["requestState"])

    def _state_of(self, call: Call) -> Claims | None:
        """What the state of a modern caller's retry holds. Raises: InvalidState."""
        if not is_modern(call.version):
            return None
        return self.parking.unseal(call.params["requestState"], call.claims())

    async def _resume(self, call: Call, state: Claims) -> dict[str, Any]:
        """A retry brings the answers of a parked call. Raises: BrokerError."""
        responses = call.params.get("inputResponses")
        answers = responses if is_object(responses) else dict[str, Any]()
        exchange = call.exchange
        return self._settled(call, await self.parking.resume(state, answers, exchange.relay, exchange.who.is_gone))

    async def _park(self, call: Call, lease: Lease) -> dict[str, Any]:
        """A modern caller before a legacy upstream: what that asks parks the call. Raises: BrokerError."""
        exchange = call.exchange

        async def run(parked: ParkedCall) -> dict[str, Any]:
            inner, own = call.over(exchange.via(parked, parked.notice)), lease.again()
            for used in inner.uses:
                used.begun += 1
            try:
                return await self._run(inner, inner.own_params())
            finally:
                for used in inner.uses:
                    used.end()
                own.give_back()
                inner.exchange.finish()  # what progress was kept comes before the result; no timer outlives the call

        return self._settled(call, await self.parking.begin(call.claims(), exchange.relay, run, exchange.who.is_gone))

    def _settled(self, call: Call, result: dict[str, Any]) -> dict[str, Any]:
        """What the parking answers, as the caller gets it: a result is finished, questions are the broker's own."""
        if result.get("resultType") == INPUT_REQUIRED:
            result = result_for_caller("", result, upstream=call.version, caller=call.version, server=self.me)
        call.hold.settle(result)
        return result

    async def _run(self, call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
        """To the final result, or to a question that only a modern caller's retry can answer. Raises: BrokerError."""
        exchange, call.hides = call.exchange, call.upstream.server.redact == "results"
        request = call.link.request if exchange.trail.span is NO_SPAN else partial(self._traced, call)
        for _ in range(MAX_ROUNDS):
            try:
                result = await request(
                    call.method,
                    params,
                    timeout=call.upstream.server.timeout if call.awaited is None else call.timeout(),
                    on_notice=partial(self._notice, call),
                    on_question=partial(self._ask, call),
                    owner=exchange.who.session,
                    task="" if call.awaited is None else call.awaited.own,
                    wants_progress=exchange.token is not None,
                    capabilities=exchange.capabilities,
                    log_level=exchange.who.log_level,
                )
            except UpstreamAnsweredError as error:
                result = self._asked_by(call, error)
            kind = result.get("resultType")
            if kind != INPUT_REQUIRED:
                break
            questions = await self._questions(call, result)
            if is_modern(call.version):
                return self._passed_on(call, result, questions)
            params = {**call.own_params(), "inputResponses": await self._ask_all(call, questions)}
            if result.get("requestState") is not None:
                params["requestState"] = result["requestState"]
        else:
            raise BrokerError(f"Server {call.server!r} asked {MAX_ROUNDS} times in one call", {"upstream": call.server})
        # Here it is as it came; at the end it has public names, and is as the caller's era has it.
        if "outputSchema" in call.permit.entry.definition and kind in COMPLETE:
            self._offer(call, result)
        meta = result.get("_meta")
        if is_object(meta) and PER_HOP.issuperset(meta):
            del result["_meta"]  # most say nothing else: there is nothing in it to look for
        if (kind in COMPLETE and "task" not in result) or not self._takes_task(call, result, kind):
            rewrite_result(call.method if call.awaited is None else "tools/call", result, call.publish)
        if call.hides or call.is_foreign or call.method in TASK_METHODS:
            result = await self._publish_beyond(call, result)
        if "_meta" in result:
            result = publish_related(result, call.server)
        scope = call.now.cache_scope if call.method in CACHEABLE else "private"
        upstream, caller = call.link.version, call.version
        result = result_for_caller(call.method, result, upstream=upstream, caller=caller, server=self.me, scope=scope)
        call.hold.settle(result)
        return result

    def _offer(self, call: Call, result: Mapping[str, Any]) -> None:
        """What a tool with an `outputSchema` has answered, as it came; errors and tasks have no such content."""
        entry = call.permit.entry
        if call.method == "tools/call" and not result.get("isError") and "task" not in result:
            schema = entry.definition["outputSchema"]
            self.checks.offer(call.server, call.upstream.outputs, entry.own, schema, result)

    async def _traced(self, call: Call, method: str, params: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """`Link.request` in a span of its own, if anybody wants one."""
        span = call.exchange.trail.span.calling(call.server, method)
        if span is None:
            return await call.link.request(method, params, **more)
        with span:
            return await call.link.request(method, span.context.on(params), **more)

    def _notice(self, call: Call, method: str, params: dict[str, Any]) -> None:
        params = publish_related(params, call.server)
        if call.hides:
            params = scrubbed_report(params)
        if not is_foreign(method):
            call.exchange.notice(method, params)
        elif (agreed := self._agreed(call)).extends():
            call.exchange.pass_on(method, agreed.foreign(params))

    def _asked_by(self, call: Call, error: UpstreamAnsweredError) -> dict[str, Any]:
        """The questions that an upstream's error stands for. Raises: UpstreamAnsweredError, if it stands for none."""
        if error.code == URL_ELICITATION_REQUIRED and is_modern(call.version):
            questions = url_questions(error.data)
            offered = call.exchange.capabilities
            if questions and all(unanswerable(one, offered) is None for one in questions.values()):
                return {"resultType": INPUT_REQUIRED, "inputRequests": requests_of(questions), "requestState": ""}
        raise self._error_for_caller(call, error) from None

    async def _ask(self, call: Call, question: Question) -> dict[str, Any]:
        """What the upstream asks while it works: the caller's result, as the upstream names things.

        Raises: BrokerError: the caller's own error, or that it cannot be asked.
        """
        question = Question(question.method, publish_related(question.params, call.server))
        is_beyond = is_foreign(question.method)
        if is_beyond:
            question = self._beyond(call, question)
        try:
            judged = await call.question(question, self.parking.mint())
        except Blocked:  # by whom is not the upstream's affair
            raise CannotAsk("the question is refused", code=REFUSED) from None
        if not is_beyond:
            return own_related(await call.exchange.ask(judged), self._agreed(call).own_task)
        answer = replace(call.request, params=await call.exchange.ask_beyond(judged))
        own = own_params(call.now, answer, call.permit, self.tasks)
        return own_related(own, self._agreed(call).own_task)

    def _beyond(self, call: Call, question: Question) -> Question:
        """A request of an extension, with public names.

        Spec: 2026-07-28 basic/patterns/mrtr: values of `inputRequests` "MUST be one of ElicitRequest,
        CreateMessageRequest, ListRootsRequest", so that a modern caller cannot be asked anything else.

        Raises: CannotAsk, unless both sides have declared the extension, and the caller takes requests.
        """
        if is_modern(call.version) or not self._agreed(call).extends():
            raise CannotAsk(f"Method not found: the caller does not offer {printable(question.method)}")
        return Question(question.method, self._agreed(call).foreign(question.params))

    def _error_for_caller(self, call: Call, error: UpstreamAnsweredError) -> UpstreamAnsweredError:
        entry = call.permit.entry
        uri = entry.public if entry.kind is Kind.RESOURCE else None
        data = self._agreed(call).error_data(error.data)
        code, data = error_for_caller(error.code, data, upstream=call.link.version, caller=call.version, uri=uri)
        return UpstreamAnsweredError(error.message, data, code=code)

    async def _questions(self, call: Call, result: Mapping[str, Any]) -> dict[str, Question]:
        """The questions of a result, each of which the caller has offered to answer. Raises: BrokerError."""
        questions = questions_of(result)
        if questions is None:
            raise MalformedAnswer(call.server, "an input_required result without questions or state")
        if any(unanswerable(question, call.exchange.capabilities) is not None for question in questions.values()):
            raise _unexpected(call.server)
        mint = self.parking.mint
        return {key: await call.question(question, mint()) for key, question in questions.items()}

    def _passed_on(self, call: Call, result: dict[str, Any], questions: Mapping[str, Question]) -> dict[str, Any]:
        """A modern upstream's question to a modern caller: its state travels inside ours."""
        if questions:
            result["inputRequests"] = requests_of(questions)
        if result.get("requestState") is not None:
            inner = str(result["requestState"])
            # A question that the broker made of an error has no state upstream: the retry is simply the call again.
            result["requestState"] = self.parking.seal(
                call.claims(), inner=inner if is_modern(call.link.version) else None
            )
        result_for_caller("", result, upstream=call.link.version, caller=call.version, server=self.me)
        call.hold.settle(result)
        return result

    async def _ask_all(self, call: Call, questions: Mapping[str, Question]) -> dict[str, Any]:
        """All answers, asked for at once. Raises: BrokerError: the first error of the caller."""
        answers: dict[str, Any] = {}
        failures: list[BrokerError] = []

        async def ask(key: str, question: Question) -> None:
            try:
                answers[key] = await call.exchange.ask(question)
            except BrokerError as error:
                failures.append(error)

        with anyio.move_on_after(ANSWER_TIMEOUT) as patience:
            async with anyio.create_task_group() as tasks:
                for key, question in questions.items():
                    tasks.start_soon(ask, key, question)
        if failures:
            raise failures[0]
        if patience.cancelled_caught:
            raise BrokerError(f"no answer came within {ANSWER_TIMEOUT:g} s", {"upstream": call.server})
        return answers

    def _takes_task(self, call: Call, result: dict[str, Any], kind: Any) -> bool:
        """Whether a result of that kind, which is not simply complete, is a task: the caller's, from here on.

        Raises: BrokerError, for one that nobody can expect.
        """
        agreed = self._agreed(call)
        if (kind == "task" or "task" in result) and agreed.takes_task(result):
            return True
        if kind not in COMPLETE and not agreed.knows_kind(result):
            raise _unexpected(call.server)
        return False

    async def _publish_beyond(self, call: Call, result: dict[str, Any]) -> dict[str, Any]:
        """What few results need: secrets hidden, what is of extensions and tasks. Raises: BrokerError."""
        if call.hides:
            result = await scrubbed_result(result)
        if call.is_foreign:
            result = self._agreed(call).foreign(result)
        if call.method in TASK_METHODS:
            self._agreed(call).about_task(result)
            if is_modern(call.version) and "inputRequests" in result:
                result["inputRequests"] = requests_of(await self._questions(call, result))
        return result

    def _agreed(self, call: Call) -> Agreed:
        return Agreed(call, self.tasks)


def _unexpected(server: str) -> BrokerError:
    """No such capability was declared to it, so the question is the upstream's fault; it must not pass for a result."""
    return BrokerError(
        f"Server {server!r} asked for input that its caller did not offer", {"upstream": server, "reason": "question"}
    )
