"""Only a `Permit` gets here: send the call upstream, and bring back what the caller may read.

The request and the result change only where they must: names, URIs, the `_meta` of one hop, and what differs
between the eras (`core/era.py`). Everything else passes as it came, unknown fields included.

A question in the middle of a call takes one of four ways:

| caller \\ upstream | legacy (asks while it works) | modern (answers `input_required`) |
|---|---|---|
| legacy | the caller is asked on the stream of its call | the broker asks the caller, and asks the upstream again |
| modern | the call is parked until the retry brings the answer | passes, its state inside a sealed one of ours |
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import anyio

from broker.core.catalog import Shelf
from broker.core.era import declared_upstream, error_for_caller, is_modern, result_for_caller
from broker.core.extensions import is_foreign
from broker.core.policy import Permit
from broker.core.questions import Question, questions_of, requests_of, unanswerable, url_questions
from broker.core.request import Kind, Request
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
from broker.relay.agreed import Agreed
from broker.relay.call import Call, claims_of
from broker.relay.exchange import Exchange
from broker.relay.hiding import scrubbed_result
from broker.relay.parking import ParkedCall, Parking
from broker.relay.tasks import Tasks
from broker.secrecy import scrubbed_report
from broker.upstream.isolated import Asker, Lease
from broker.upstream.link import ANSWER_TIMEOUT, Link
from broker.upstream.pool import Pool
from broker.upstream.supervise import Upstream

INPUT_REQUIRED: Final = "input_required"
COMPLETE: Final = (None, "complete")
MAX_ROUNDS: Final = 16
"""Times that an upstream may ask again in one call of a legacy caller (SP-66)."""
UNTRACED: Final = nullcontext()


class Forwarder:
    """What forwarding needs beside the call: the broker's own `serverInfo`, parked calls, and whose task is whose."""

    def __init__(self, me: Mapping[str, Any], parking: Parking, tasks: Tasks) -> None:
        self.me = me
        self._parking = parking
        self._tasks = tasks

    async def forward(self, call: Call, pool: Pool, shelf: Shelf | None, exchange: Exchange) -> dict[str, Any]:
        """The result of `call`, as its caller's era has it.

        Raises: BrokerError: the upstream's own error, or that it is unavailable, out of time or malformed.
        """
        if call.awaited is not None:
            call.awaited.waiting.append(exchange)
        try:
            state = self._state_of(call)
            if state is not None and state.parked is not None:
                # Before anything of the upstream is asked for: what it said may be here, and it may be gone.
                return await self._resume(call, state, exchange)
            upstream = pool.upstreams[call.server]
            if not upstream.server.roots:
                exchange.withhold("roots")
            asker = Asker(call.permit.caller.principal, exchange.owner, exchange.capabilities)
            try:
                lease = await pool.lease(call.server, asker, call.patience)
            except BrokerError:
                if state is not None:
                    self._parking.take_back(state)
                raise
            try:
                params = call.outgoing_params(state, lease.link.version)
                timeout = call.timeout(upstream.server.timeout, exchange.now)
                agreed = Agreed(call, lease.link, shelf, self._tasks)
                hides = upstream.server.redact == "results"
                way = _Way(call, lease.link, timeout, agreed, self.me, self._parking, hides)
                if not is_modern(call.version) or is_modern(lease.link.version) or not exchange.can_be_asked:
                    return await way.run(params, exchange)
                return await self._park(call, way, lease, upstream, exchange)
            finally:
                lease.give_back()
        except anyio.get_cancelled_exc_class():
            exchange.abandon()
            raise
        finally:
            exchange.finish()
            if call.awaited is not None:
                call.awaited.waiting.remove(exchange)

    def is_continued(self, permit: Permit, request: Request, params: Mapping[str, Any]) -> bool:
        """Whether a request goes on with one that was admitted: a retry that brings answers, or a further page of a
        server's tasks.
        """
        if request.method == "tasks/list":
            return "cursor" in params
        if not is_modern(request.version) or "requestState" not in params:
            return False
        return self._parking.is_good(params["requestState"], claims_of(permit, request.method, digest=""))

    def _state_of(self, call: Call) -> Claims | None:
        """What the state of a modern caller's retry holds. Raises: InvalidState."""
        if not is_modern(call.version) or "requestState" not in call.params:
            return None
        return self._parking.unseal(call.params["requestState"], call.claims())

    async def _resume(self, call: Call, state: Claims, exchange: Exchange) -> dict[str, Any]:
        """A retry brings the answers of a parked call. Raises: BrokerError."""
        responses = call.params.get("inputResponses")
        answers = responses if is_object(responses) else dict[str, Any]()
        return self._stamped(call, await self._parking.resume(state, answers, exchange.relay, exchange.is_gone))

    async def _park(
        self, call: Call, way: "_Way", lease: Lease, upstream: Upstream, exchange: Exchange
    ) -> dict[str, Any]:
        """A modern caller before a legacy upstream: what that asks parks the call. Raises: BrokerError."""

        async def run(parked: ParkedCall) -> dict[str, Any]:
            inner, own = exchange.via(parked, parked.notice), lease.again()
            try:
                with upstream.in_use:
                    return await way.run(call.own_params(), inner)
            finally:
                own.give_back()
                inner.finish()  # what progress was kept comes before the result, and no timer outlives the call

        return self._stamped(call, await self._parking.begin(call.claims(), exchange.relay, run, exchange.is_gone))

    def _stamped(self, call: Call, result: dict[str, Any]) -> dict[str, Any]:
        """What the parking answers, as the caller gets it: a result is finished, questions are the broker's own."""
        if result.get("resultType") != INPUT_REQUIRED:
            return result
        return result_for_caller("", result, upstream=call.version, caller=call.version, server=self.me)


@dataclass(slots=True)
class _Way:
    """One call to one link, as often as it takes. Never changed."""

    call: Call
    link: Link
    timeout: float
    agreed: Agreed
    me: Mapping[str, Any]
    parking: Parking
    hides: bool = False
    """Whether its caller gets results and reports without secrets."""

    async def run(self, params: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        """To the final result, or to a question that only a modern caller's retry can answer. Raises: BrokerError."""
        for _ in range(MAX_ROUNDS):
            result = await self._request(params, exchange)
            if result.get("resultType") != INPUT_REQUIRED:
                return await self._finished(result, exchange)
            questions = await self._questions(result, exchange)
            if is_modern(self.call.version):
                return self._passed_on(result, questions)
            answers = await self._ask_all(questions, exchange)
            params = {**self.call.own_params(), "inputResponses": answers}
            if result.get("requestState") is not None:
                params["requestState"] = result["requestState"]
        raise BrokerError(
            f"Server {self.call.server!r} asked {MAX_ROUNDS} times in one call", {"upstream": self.call.server}
        )

    async def _request(self, params: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        async def ask(question: Question) -> dict[str, Any]:
            return await self._ask(question, exchange)

        def notice(method: str, params: dict[str, Any]) -> None:
            params = publish_related(params, self.call.server)
            if self.hides:
                params = scrubbed_report(params)
            if not is_foreign(method):
                exchange.notice(method, params)
            elif self.agreed.extends(exchange):
                exchange.pass_on(method, self.agreed.foreign(params))

        span = exchange.trail.span.calling(self.call.server, self.call.method)
        try:
            with span or UNTRACED:
                return await self.link.request(
                    self.call.method,
                    params if span is None else span.context.on(params),
                    timeout=self.timeout,
                    on_notice=notice,
                    on_question=ask,
                    owner=exchange.owner,
                    task=self.call.awaited.own if self.call.awaited is not None else "",
                    wants_progress=exchange.wants_progress,
                    capabilities=declared_upstream(exchange.capabilities, self.link.version),
                    log_level=exchange.log_level,
                )
        except UpstreamAnsweredError as error:
            if error.code == URL_ELICITATION_REQUIRED and is_modern(self.call.version):
                questions = url_questions(error.data)
                if questions and all(unanswerable(one, exchange.capabilities) is None for one in questions.values()):
                    return {"resultType": INPUT_REQUIRED, "inputRequests": requests_of(questions), "requestState": ""}
            raise self._error_for_caller(error) from None

    async def _ask(self, question: Question, exchange: Exchange) -> dict[str, Any]:
        """What the upstream asks while it works: the caller's result, as the upstream names things.

        Raises: BrokerError: the caller's own error, or that it cannot be asked.
        """
        question = Question(question.method, publish_related(question.params, self.call.server))
        is_beyond = is_foreign(question.method)
        if is_beyond:
            question = self._beyond(question, exchange)
        try:
            judged = await self.call.question(question, self.parking.mint())
        except Blocked:  # by whom is not the upstream's affair
            raise CannotAsk("the question is refused", code=REFUSED) from None
        answer = await (exchange.ask_beyond(judged) if is_beyond else exchange.ask(judged))
        return own_related(self.call.in_own_words(answer) if is_beyond else answer, self.agreed.own_task)

    def _beyond(self, question: Question, exchange: Exchange) -> Question:
        """A request of an extension, with public names.

        Spec: 2026-07-28 basic/patterns/mrtr: values of `inputRequests` "MUST be one of ElicitRequest,
        CreateMessageRequest, ListRootsRequest", so that a modern caller cannot be asked anything else.

        Raises: CannotAsk, unless both sides have declared the extension, and the caller takes requests.
        """
        if is_modern(self.call.version) or not self.agreed.extends(exchange):
            raise CannotAsk(f"Method not found: the caller does not offer {printable(question.method)}")
        return Question(question.method, self.agreed.foreign(question.params))

    def _error_for_caller(self, error: UpstreamAnsweredError) -> UpstreamAnsweredError:
        entry = self.call.permit.entry
        uri = entry.public if entry.kind is Kind.RESOURCE else None
        data = self.agreed.error_data(error.data)
        code, data = error_for_caller(error.code, data, upstream=self.link.version, caller=self.call.version, uri=uri)
        return UpstreamAnsweredError(error.message, data, code=code)

    async def _questions(self, result: Mapping[str, Any], exchange: Exchange) -> dict[str, Question]:
        """The questions of a result, each of which the caller has offered to answer. Raises: BrokerError."""
        questions = questions_of(result)
        if questions is None:
            raise MalformedAnswer(self.call.server, "an input_required result without questions or state")
        if any(unanswerable(question, exchange.capabilities) is not None for question in questions.values()):
            raise _unexpected(self.call.server)
        return {key: await self.call.question(question, self.parking.mint()) for key, question in questions.items()}

    def _passed_on(self, result: dict[str, Any], questions: Mapping[str, Question]) -> dict[str, Any]:
        """A modern upstream's question to a modern caller: its state travels inside ours."""
        if questions:
            result["inputRequests"] = requests_of(questions)
        if result.get("requestState") is not None:
            inner = str(result["requestState"])
            # A question that the broker made of an error has no state upstream: the retry is simply the call again.
            result["requestState"] = self.parking.seal(
                self.call.claims(), inner=inner if is_modern(self.link.version) else None
            )
        return result_for_caller("", result, upstream=self.link.version, caller=self.call.version, server=self.me)

    async def _ask_all(self, questions: Mapping[str, Question], exchange: Exchange) -> dict[str, Any]:
        """All answers, asked for at once. Raises: BrokerError: the first error of the caller."""
        answers: dict[str, Any] = {}
        failures: list[BrokerError] = []

        async def ask(key: str, question: Question) -> None:
            try:
                answers[key] = await exchange.ask(question)
            except BrokerError as error:
                failures.append(error)

        with anyio.move_on_after(ANSWER_TIMEOUT) as patience:
            async with anyio.create_task_group() as tasks:
                for key, question in questions.items():
                    tasks.start_soon(ask, key, question)
        if failures:
            raise failures[0]
        if patience.cancelled_caught:
            raise BrokerError(f"no answer came within {ANSWER_TIMEOUT:g} s", {"upstream": self.call.server})
        return answers

    async def _finished(self, result: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        if not self.agreed.takes_task(result, exchange):
            if result.get("resultType") not in COMPLETE and not self.agreed.knows_kind(result, exchange):
                raise _unexpected(self.call.server)
            method = "tools/call" if self.call.method == "tasks/result" else self.call.method
            rewrite_result(method, result, self.agreed.publish)
        if self.hides:
            result = await scrubbed_result(result)
        if self.call.is_foreign:
            result = self.agreed.foreign(result)
        if self.call.method in TASK_METHODS:
            self.agreed.about_task(result, exchange)
            if is_modern(self.call.version) and "inputRequests" in result:
                result["inputRequests"] = requests_of(await self._questions(result, exchange))
        result = publish_related(result, self.call.server)
        return result_for_caller(
            self.call.method,
            result,
            upstream=self.link.version,
            caller=self.call.version,
            server=self.me,
            scope=self.call.cache_scope,
        )


def _unexpected(server: str) -> BrokerError:
    """No such capability was declared to it, so the question is the upstream's fault; it must not pass for a result."""
    return BrokerError(
        f"Server {server!r} asked for input that its caller did not offer", {"upstream": server, "reason": "question"}
    )
