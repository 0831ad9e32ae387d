"""Calls of modern callers that wait for an answer: parked, resumed by a retry, or given up.

A legacy upstream asks in the middle of a call and keeps the call open; a modern caller can only be answered. So the
upstream's call goes on here, in a task of its own, while its caller gets `input_required` with the questions and a
sealed `requestState`. Its retry brings the answers and takes the call up again: progress and log messages that came in
between are delivered then. A call belongs to one process (one worker of several: the state says which); a state that
finds no call gets the one frozen answer.
"""

import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import anyio
import anyio.abc

from broker.clock import Clock
from broker.core.questions import Question, requests_of
from broker.core.seal import NONCE_SIZE, Claims, Sealer, Unsealable
from broker.core.shape import is_object
from broker.errors import BrokerError, CannotAsk, InvalidParams, UpstreamUnavailable
from broker.logs import internal_error
from broker.relay.spent import SpentStates
from broker.relay.who import never
from broker.upstream.link import MAX_QUESTIONS
from broker.upstream.supervise import GONE
from broker.workers.assignment import ALONE, Worker

log = logging.getLogger(__name__)

PARKED_FOR: Final = 600.0
"""Seconds that a parked call, or any sealed state, is good for: as long as a person may take to fill in a form."""
MAX_PARKED: Final = 64
"""Parked calls of one principal; each holds a call of its upstream."""
MAX_KEPT: Final = 100
"""Notifications kept for a parked call's caller; the oldest go first."""
GATHER: Final = 0.05
"""Seconds in which further questions join the first, so that a caller is asked once."""

RECHECK: Final = 10.0
"""Seconds between two looks at whether the callers of parked calls are still admitted: what a revoked key has left open
must end within 30."""

Notify = Callable[[str, dict[str, Any]], None]
Run = Callable[["ParkedCall"], Awaitable[dict[str, Any]]]
"""The upstream's call, from its beginning to its result as the caller's era has it."""


class InvalidState(InvalidParams):
    """The one answer to any state that is not good for this retry: it says nothing; the log says why."""

    def __init__(self) -> None:
        super().__init__("Invalid or expired requestState", {"reason": "invalid_request_state"})


@dataclass(slots=True)
class _Asked:
    question: Question
    done: anyio.Event = field(default_factory=anyio.Event)
    answer: dict[str, Any] | None = None


class ParkedCall:
    """One upstream call that outlives the requests of its caller; the channel and the sink of that call."""

    def __init__(self, claims: Claims, is_gone: Callable[[], bool]) -> None:
        self.claims = claims
        self.is_gone = is_gone
        """Whether its caller cannot come back for it."""
        self.scope = anyio.CancelScope()
        self.deadline = float("inf")
        """When a call that waits for its caller is given up, by the clock."""
        self.outcome: dict[str, Any] | BrokerError | None = None
        self._asked: dict[str, _Asked] = {}
        self._serial = 0
        self._changed = anyio.Event()
        self._notify: Notify | None = None
        self._kept: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_KEPT)

    async def ask(self, question: Question) -> dict[str, Any]:
        """See `BackChannel`: waits for a retry that brings the answer."""
        if len(self._asked) >= MAX_QUESTIONS:
            raise CannotAsk("too many questions are open", code=-32603)
        self._serial += 1
        key, asked = f"q{self._serial}", _Asked(question)
        self._asked[key] = asked
        self._changed.set()
        try:
            await asked.done.wait()
        finally:
            self._asked.pop(key, None)
        assert asked.answer is not None
        return asked.answer

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """A notification of the upstream: to the request that is there, or kept for the next."""
        if self._notify is not None:
            self._notify(method, params)
        else:
            self._kept.append((method, params))

    def attach(self, notify: Notify) -> None:
        """A request of the caller is there: it gets what was kept, and what comes."""
        self._notify = notify
        while self._kept:
            notify(*self._kept.popleft())

    def detach(self) -> None:
        """The request has been answered."""
        self._notify = None

    def answer(self, responses: Mapping[str, Any]) -> None:
        """The caller's answers by the keys of their questions; what is not there is asked again."""
        for key, asked in self._asked.items():
            response = responses.get(key)
            if is_object(response) and asked.answer is None:
                asked.answer = response
                asked.done.set()

    @property
    def open_questions(self) -> dict[str, Question]:
        """What is asked and not answered, by key."""
        return {key: asked.question for key, asked in self._asked.items() if asked.answer is None}

    def finish(self, outcome: dict[str, Any] | BrokerError) -> None:
        """The upstream has answered. Of an error only what it says is kept: the way to it, and to its causes, leads
        through the request and the configuration of its time, and its caller may be gone for long."""
        if isinstance(outcome, BrokerError):
            outcome.__traceback__ = outcome.__context__ = outcome.__cause__ = None
        self.outcome = outcome
        self._changed.set()

    async def settled(self) -> None:
        """Wait for the outcome, or for a question and those that come right behind it."""
        while self.outcome is None:
            if self.open_questions:
                with anyio.move_on_after(GATHER):
                    while self.outcome is None:
                        self._changed = anyio.Event()
                        await self._changed.wait()
                return
            self._changed = anyio.Event()
            await self._changed.wait()


class Parking:
    """The parked calls of this process. `running` must be entered around its use."""

    def __init__(self, clock: Clock, sealer: Sealer, worker: Worker = ALONE) -> None:
        self._clock = clock
        self._sealer = sealer
        self._worker = worker
        self._parked: dict[str, ParkedCall] = {}
        self._spent = SpentStates()
        self._passed = SpentStates()
        """Those that were admitted with their calls, whatever came of it."""
        self._is_lost: Callable[[str], bool] = lambda _server: False
        """Whether no name leads to a server any more."""
        self._tasks: anyio.abc.TaskGroup | None = None

    def __len__(self) -> int:
        return len(self._parked)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Owns the upstream calls; at the end all are cancelled, upstream too."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._expire)
            try:
                yield
            finally:
                self._tasks = None
                self._parked.clear()
                tasks.cancel_scope.cancel()

    async def begin(
        self, claims: Claims, notify: Notify, run: Run, is_gone: Callable[[], bool] = never
    ) -> dict[str, Any]:
        """Start a call and wait for its result, or for its first questions. `is_gone`: whether its caller is not
        admitted any more; then nobody will come back for it.

        Raises: BrokerError: what the call raised.
        """
        assert self._tasks is not None
        call = ParkedCall(claims, is_gone)
        self._tasks.start_soon(self._run, call, run)
        return await self._next(call, notify)

    async def resume(
        self, state: Claims, responses: Mapping[str, Any], notify: Notify, is_gone: Callable[[], bool] = never
    ) -> dict[str, Any]:
        """Take a parked call up again with the caller's answers.

        Raises: InvalidState, if it is not here; BrokerError: what the call raised.
        """
        call = self._parked.pop(state.parked or "", None)
        if call is None:
            log.info("requestState refused: no such call is parked here")
            raise InvalidState
        call.deadline, call.is_gone = float("inf"), is_gone
        call.answer(responses)
        return await self._next(call, notify)

    def give_up(self, is_lost: Callable[[str], bool]) -> None:
        """Calls on servers that are lost: no name leads there any more, so that nobody can come back for them. One that
        runs may end, but not be parked.
        """
        self._is_lost = is_lost
        for key, call in tuple(self._parked.items()):
            if is_lost(call.claims.server):
                self._drop(key, call)

    def _drop(self, key: str, call: ParkedCall) -> None:
        del self._parked[key]
        call.scope.cancel()

    def mint(self) -> str:
        """An unguessable id."""
        return self._clock.token()

    def seal(self, claims: Claims, *, inner: str | None = None, parked: str | None = None) -> str:
        """A state for these claims, good once, for `PARKED_FOR` seconds."""
        claims = replace(
            claims,
            expires=self._clock.wall() + PARKED_FOR,
            serial=self._clock.token(),
            inner=inner,
            parked=parked,
        )
        return self._worker.mark(self._sealer.seal(claims, os.urandom(NONCE_SIZE)))

    def unseal(self, text: object, retry: Claims) -> Claims:
        """What a state carries, if it was made for this very request, and is used for the first time.

        Raises: InvalidState; BrokerError, if this principal has used too many.
        """
        try:
            state = self._sealer.unseal(self._worker.unmark(text))
            state.refuse_other_use(retry, self._clock.wall())
            self._spent.add(state)
        except Unsealable as why:
            log.warning("requestState refused on %s: %s", retry.method, why)
            raise InvalidState from None
        return state

    def is_good(self, text: object, retry: Claims) -> bool:
        """Whether a state is this caller's, for what it asked, and was neither used nor admitted: `unseal` says if what
        guardrails have made of these arguments is also what they made of the first.
        """
        try:
            state = self._sealer.unseal(self._worker.unmark(text))
            state.refuse_other_use(replace(retry, digest=state.digest), self._clock.wall())
        except Unsealable:
            return False
        return state.asked == retry.asked and not (self._spent.has(state) or self._passed.has(state))

    def let_pass(self, text: object) -> None:
        """A state that is good was admitted. Raises: BrokerError, if this principal has used too many."""
        with suppress(Unsealable):  # the same came twice at once
            self._passed.add(self._sealer.unseal(self._worker.unmark(text)))

    def take_back(self, state: Claims) -> None:
        """A state was unsealed and could not be used: nothing was done with it, so it is good once more."""
        self._spent.take_back(state)

    async def _run(self, call: ParkedCall, run: Run) -> None:
        with call.scope:
            try:
                call.finish(await run(call))
            except BrokerError as error:
                call.finish(error)
            except Exception as fault:
                call.finish(internal_error(log, self._clock.token(), fault))
        if call.outcome is None:
            call.finish(InvalidState())

    async def _next(self, call: ParkedCall, notify: Notify) -> dict[str, Any]:
        """What the caller's request is answered with. A request that is cancelled takes its call with it."""
        call.attach(notify)
        try:
            await call.settled()
        except BaseException:
            call.scope.cancel()
            raise
        finally:
            call.detach()
        if isinstance(call.outcome, BrokerError):
            raise call.outcome
        if call.outcome is not None:
            return call.outcome
        return self._park(call)

    def _park(self, call: ParkedCall) -> dict[str, Any]:
        """Raises: BrokerError, if nobody could come back for it, or one caller has too many."""
        if self._is_lost(call.claims.server):
            call.scope.cancel()
            raise UpstreamUnavailable(call.claims.server, GONE)
        principal = call.claims.principal
        if sum(other.claims.principal == principal for other in self._parked.values()) >= MAX_PARKED:
            call.scope.cancel()
            raise BrokerError(f"more than {MAX_PARKED} calls wait for answers: answer or abandon one first")
        parked = self._clock.token()
        call.deadline = self._clock.now() + PARKED_FOR
        self._parked[parked] = call
        return {
            "resultType": "input_required",
            "inputRequests": requests_of(call.open_questions),
            "requestState": self.seal(call.claims, parked=parked),
        }

    async def _expire(self) -> None:
        looked = self._clock.now()
        while True:
            await self._clock.sleep(1.0)
            now = self._clock.now()
            looks = now - looked >= RECHECK
            looked = now if looks else looked
            self._drop_lost(now, looks=looks)
            wall = self._clock.wall()
            self._spent.forget(wall)
            self._passed.forget(wall)

    def _drop_lost(self, now: float, *, looks: bool) -> None:
        """Give up what nobody came back for, or, if it `looks` for that, can come back for. Apart from the loop
        above, which would keep the last of them while it sleeps, and all that leads from it.
        """
        for key, call in tuple(self._parked.items()):
            if now >= call.deadline or (looks and call.is_gone()):
                self._drop(key, call)
