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
from dataclasses import dataclass
from typing import Any, Final

import anyio

from broker.core.catalog import Shelf
from broker.core.era import (
    Version,
    declared_upstream,
    error_for_caller,
    is_modern,
    question_for_caller,
    result_for_caller,
)
from broker.core.policy import Permit
from broker.core.questions import Question, labelled, questions_of, requests_of, unanswerable, url_questions
from broker.core.request import Kind
from broker.core.rewrite import rewrite_error_data, rewrite_result
from broker.core.seal import Claims, digest_of
from broker.core.shape import is_object
from broker.errors import URL_ELICITATION_REQUIRED, BrokerError, MalformedAnswer, UpstreamAnsweredError
from broker.relay.exchange import Exchange
from broker.relay.parking import ParkedCall, Parking
from broker.upstream.link import ANSWER_TIMEOUT, Link
from broker.upstream.supervise import Upstream

INPUT_REQUIRED: Final = "input_required"
COMPLETE: Final = (None, "complete")
MAX_ROUNDS: Final = 16
"""Times that an upstream may ask again in one call of a legacy caller (SP-66)."""
RETRY_FIELDS: Final = ("inputResponses", "requestState")
"""Parameters of a modern caller's retry. Nobody else may send them: a state is opened here first."""


@dataclass(frozen=True, slots=True)
class Call:
    """A permitted request, on its way: `params` already name the entry as its upstream does."""

    permit: Permit
    method: str
    params: Mapping[str, Any]
    version: Version
    """The caller's."""
    patience: float = 0.0
    """Seconds to wait for an upstream that is connecting for the first time."""
    is_one_of_many: bool = False
    """Whether the caller sees more than one server, so that a question must say which one asks."""

    @property
    def server(self) -> str:
        """The upstream's key."""
        return self.permit.entry.server

    def claims(self) -> Claims:
        """What a state of this call is bound to."""
        arguments = self.params.get("arguments")
        return Claims(
            principal=self.permit.caller.principal,
            server=self.server,
            method=self.method,
            name=self.permit.entry.own,
            digest=digest_of(arguments if is_object(arguments) else None),
            expires=0.0,
            serial="",
        )

    def own_params(self) -> dict[str, Any]:
        """The parameters less what only a retry of a modern caller may carry."""
        return {name: value for name, value in self.params.items() if name not in RETRY_FIELDS}

    def outgoing_params(self, state: Claims | None) -> dict[str, Any]:
        """The parameters as they go upstream: of a retry, with the state that the upstream itself gave."""
        if not is_modern(self.version):
            return self.own_params()
        params = {name: value for name, value in self.params.items() if name != "requestState"}
        return params if state is None or state.inner is None else {**params, "requestState": state.inner}

    def question(self, question: Question, mint: str) -> Question:
        """A question of the upstream as this caller's era has it, with the server's name if it needs one."""
        question = question_for_caller(question, self.version, mint)
        return labelled(question, self.server) if self.is_one_of_many else question


class Forwarder:
    """What forwarding needs beside the call: the broker's own `serverInfo`, and where calls are parked."""

    def __init__(self, me: Mapping[str, Any], parking: Parking) -> None:
        self._me = me
        self._parking = parking

    async def forward(self, call: Call, upstream: Upstream, shelf: Shelf | None, exchange: Exchange) -> dict[str, Any]:
        """The result of `call`, as its caller's era has it.

        Raises: BrokerError: the upstream's own error, or that it is unavailable, out of time or malformed.
        """
        try:
            state = self._state_of(call)
            if state is not None and state.parked is not None:
                # Before anything of the upstream is asked for: what it said may be here, and it may be gone.
                return await self._resume(call, state, exchange)
            try:
                link = await upstream.first_link(call.patience)
            except BrokerError:
                if state is not None:
                    self._parking.take_back(state)
                raise
            params = call.outgoing_params(state)
            way = _Way(call, link, upstream.server.timeout, shelf, self._me, self._parking)
            if not is_modern(call.version) or is_modern(link.version) or not exchange.can_be_asked:
                return await way.run(params, exchange)
            return await self._park(call, way, exchange)
        except anyio.get_cancelled_exc_class():
            exchange.abandon()
            raise
        finally:
            exchange.finish()

    def _state_of(self, call: Call) -> Claims | None:
        """What the state of a modern caller's retry holds. Raises: InvalidState."""
        if not is_modern(call.version) or "requestState" not in call.params:
            return None
        return self._parking.unseal(call.params["requestState"], call.claims())

    async def _resume(self, call: Call, state: Claims, exchange: Exchange) -> dict[str, Any]:
        """A retry brings the answers of a parked call. Raises: BrokerError."""
        responses = call.params.get("inputResponses")
        answers = responses if is_object(responses) else dict[str, Any]()
        return self._stamped(call, await self._parking.resume(state, answers, exchange.relay))

    async def _park(self, call: Call, way: "_Way", exchange: Exchange) -> dict[str, Any]:
        """A modern caller before a legacy upstream: what that asks parks the call. Raises: BrokerError."""

        async def run(parked: ParkedCall) -> dict[str, Any]:
            inner = exchange.via(parked, parked.notice)
            try:
                return await way.run(call.own_params(), inner)
            finally:
                inner.finish()  # what progress was kept comes before the result, and no timer outlives the call

        return self._stamped(call, await self._parking.begin(call.claims(), exchange.relay, run))

    def _stamped(self, call: Call, result: dict[str, Any]) -> dict[str, Any]:
        """What the parking answers, as the caller gets it: a result is finished, questions are the broker's own."""
        if result.get("resultType") != INPUT_REQUIRED:
            return result
        return result_for_caller("", result, upstream=call.version, caller=call.version, server=self._me)


@dataclass(frozen=True, slots=True)
class _Way:
    """One call to one link, as often as it takes."""

    call: Call
    link: Link
    timeout: float
    shelf: Shelf | None
    me: Mapping[str, Any]
    parking: Parking

    async def run(self, params: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        """To the final result, or to a question that only a modern caller's retry can answer. Raises: BrokerError."""
        for _ in range(MAX_ROUNDS):
            result = await self._request(params, exchange)
            if result.get("resultType") != INPUT_REQUIRED:
                return self._finished(result)
            questions = self._questions(result, exchange)
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
            return await exchange.ask(self.call.question(question, self.parking.mint()))

        try:
            return await self.link.request(
                self.call.method,
                params,
                timeout=self.timeout,
                on_notice=exchange.notice,
                on_question=ask,
                owner=exchange.owner,
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

    def _error_for_caller(self, error: UpstreamAnsweredError) -> UpstreamAnsweredError:
        entry = self.call.permit.entry
        uri = entry.public if entry.kind is Kind.RESOURCE else None
        data = rewrite_error_data(error.data, self._publish)
        code, data = error_for_caller(error.code, data, upstream=self.link.version, caller=self.call.version, uri=uri)
        return UpstreamAnsweredError(error.message, data, code=code)

    def _questions(self, result: Mapping[str, Any], exchange: Exchange) -> dict[str, Question]:
        """The questions of a result, each of which the caller has offered to answer. Raises: BrokerError."""
        questions = questions_of(result)
        if questions is None:
            raise MalformedAnswer(self.call.server, "an input_required result without questions or state")
        if any(unanswerable(question, exchange.capabilities) is not None for question in questions.values()):
            raise _unexpected(self.call.server)
        return {key: self.call.question(question, self.parking.mint()) for key, question in questions.items()}

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

    def _finished(self, result: dict[str, Any]) -> dict[str, Any]:
        if result.get("resultType") not in COMPLETE:
            raise _unexpected(self.call.server)
        rewrite_result(self.call.method, result, self._publish)
        return result_for_caller(
            self.call.method, result, upstream=self.link.version, caller=self.call.version, server=self.me
        )

    def _publish(self, uri: str) -> str:
        return uri if self.shelf is None else self.shelf.publish(uri)


def _unexpected(server: str) -> BrokerError:
    """No such capability was declared to it, so the question is the upstream's fault; it must not pass for a result."""
    return BrokerError(
        f"Server {server!r} asked for input that its caller did not offer", {"upstream": server, "reason": "question"}
    )
