"""One permitted request of one caller, on its way upstream."""

from collections.abc import Mapping
from copy import copy
from typing import Any, Final

from broker.core.catalog import Shelf
from broker.core.era import is_modern, knows_tasks, question_for_caller
from broker.core.policy import Permit
from broker.core.questions import Question, labelled
from broker.core.request import Request
from broker.core.seal import Claims, digest_of
from broker.core.shape import is_object
from broker.guardrails.guards import UNGUARDED, Guarded
from broker.in_use import InUse
from broker.relay.exchange import Exchange
from broker.relay.served import Served
from broker.relay.tasks import Task
from broker.upstream.link import Link
from broker.upstream.supervise import Upstream
from broker.usage.quotas import NO_HOLD

RETRY_FIELDS: Final = frozenset({"inputResponses", "requestState"})
"""Parameters of a modern caller's retry. Nobody else may send them: a state is opened here first."""
NOT_FOR_ALL: Final = RETRY_FIELDS | {"task"}
"""All parameters that pass in some cases only (`Call.outgoing_params`)."""
_STATE: Final = frozenset({"requestState"})
_STATE_OR_TASK: Final = _STATE | {"task"}


def _digest(params: Mapping[str, Any]) -> str:
    arguments = params.get("arguments")
    return digest_of(arguments if is_object(arguments) else None)


class Call:
    """A permitted request, on its way: `params` already name the entry as its upstream does.

    `exchange`: what belongs to it on its caller's side. `now`: the configuration that it began with.
    `task`: the one that is asked about, if the method is one of tasks; `is_foreign`: whether the method is of an
    extension.
    """

    __slots__ = (
        *("permit", "request", "method", "version", "server", "params", "exchange", "now", "policy", "upstream"),
        *("guarded", "uses", "task", "awaited", "is_foreign", "hides", "hold", "link", "_asked"),
    )

    link: Link
    """Where it goes: given to it when it is sent."""
    hides: bool
    """Whether its caller gets results and reports without secrets, as of then: it may have waited."""

    def __init__(
        self,
        permit: Permit,
        request: Request,
        params: Mapping[str, Any],
        exchange: Exchange,
        now: Served,
        upstream: Upstream,
        task: Task | None,
        is_foreign: bool,
    ) -> None:
        self.permit = permit
        self.request = request
        self.method = request.method
        self.version = request.version
        """The caller's."""
        self.server = upstream.key
        self.params = params
        """What a guardrail makes of them takes their place."""
        self.exchange = exchange
        self.now = now
        self.policy = now.policy
        """That has permitted it."""
        self.upstream = upstream
        self.guarded: Guarded = UNGUARDED
        """What judges it, also its questions."""
        self.uses: tuple[InUse, ...] = (upstream.in_use,)
        """What a reload leaves in place until it has ended."""
        self.task = task
        self.awaited = task if task is not None and request.method == "tasks/result" else None
        """The task whose end is waited for."""
        self.is_foreign = is_foreign
        self._asked: str | None = None
        self.hold = NO_HOLD
        """What it holds of limits and budgets, once it is admitted."""

    def guard(self) -> None:
        """From here on guardrails judge it, if there are any for such a call."""
        guards, permit = self.now.guards, self.permit
        record = self.exchange.trail.judged
        self.guarded = guards.around(permit.caller, permit.entry, self.method, record, is_foreign=self.is_foreign)
        if self.guarded is not UNGUARDED:
            self.uses = (*self.uses, guards.in_use)

    @property
    def is_one_of_many(self) -> bool:
        """Whether the caller sees more than one server, so that a question must say which one asks."""
        return len(self.now.shown(self.request.view, self.permit.caller)) > 1

    @property
    def may_park(self) -> bool:
        """Whether a question of the upstream can only be answered by another request of the caller."""
        is_from_modern_to_legacy = is_modern(self.version) and not is_modern(self.link.version)
        return is_from_modern_to_legacy and self.exchange.can_be_asked

    @property
    def shelf(self) -> Shelf | None:
        """What is known of its upstream, None if nothing is."""
        return self.now.catalog.shelves.get(self.server)

    def publish(self, uri: str) -> str:
        """The public form of an upstream's own URI."""
        shelf = self.shelf
        return uri if shelf is None else shelf.publish(uri)

    def over(self, exchange: Exchange) -> "Call":
        """The same call with another way to its caller, for work that outlives what this one holds of limits."""
        call = copy(self)
        call.exchange, call.hold = exchange, NO_HOLD
        return call

    def claims(self) -> Claims:
        """What a state of this call is bound to."""
        judged = self.params.get("arguments") is not self.request.params.get("arguments")
        principal, entry = self.permit.caller.principal, self.permit.entry
        digest = _digest(self.params) if judged else self.asked
        return Claims(principal, entry.server, self.method, entry.own, digest, self.asked, expires=0.0, serial="")

    @property
    def asked(self) -> str:
        """The digest of the arguments that the caller sent."""
        if self._asked is None:
            self._asked = _digest(self.request.params)
        return self._asked

    def timeout(self) -> float:
        """Seconds that an answer may take: that to `tasks/result` comes when the task ends, at most after its time."""
        usual = self.upstream.server.timeout
        return usual if self.awaited is None else max(usual, self.awaited.expires - self.exchange.now)

    def own_params(self) -> Mapping[str, Any]:
        """The parameters less what only a retry of a modern caller may carry, and `task` of who knows none."""
        return _without(RETRY_FIELDS if knows_tasks(self.version) else NOT_FOR_ALL, self.params)

    def outgoing_params(self, state: Claims | None) -> Mapping[str, Any]:
        """The parameters as they go upstream: of a retry, with the state that the upstream itself gave.

        No `task` of a modern caller goes to a legacy upstream, which would take it for the wish of 2025-11-25 and make
        a task that is nobody's.
        """
        if not is_modern(self.version):
            return self.own_params()
        params = _without(_STATE if is_modern(self.link.version) else _STATE_OR_TASK, self.params)
        return params if state is None or state.inner is None else {**params, "requestState": state.inner}

    async def question(self, question: Question, mint: str) -> Question:
        """A question of the upstream, judged, as this caller's era has it, with the server's name if it needs one.

        Raises: Blocked.
        """
        question = question_for_caller(await self.guarded.question(question), self.version, mint)
        return labelled(question, self.server) if self.is_one_of_many else question


def _without(dropped: frozenset[str], params: Mapping[str, Any]) -> Mapping[str, Any]:
    if dropped.isdisjoint(params):
        return params
    return {name: value for name, value in params.items() if name not in dropped}
