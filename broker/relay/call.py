"""One permitted request of one caller, on its way upstream."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.core.era import Version, is_modern, knows_tasks, question_for_caller
from broker.core.policy import Permit
from broker.core.questions import Question, labelled
from broker.core.seal import Claims, digest_of
from broker.core.shape import is_object
from broker.guardrails.guards import UNGUARDED, Guarded
from broker.relay.tasks import Task

RETRY_FIELDS: Final = ("inputResponses", "requestState")
"""Parameters of a modern caller's retry. Nobody else may send them: a state is opened here first."""


def claims_of(permit: Permit, method: str, digest: str) -> Claims:
    """Of a state that is not made yet. `digest`: of the arguments."""
    principal, entry = permit.caller.principal, permit.entry
    return Claims(principal, entry.server, method, entry.own, digest, expires=0.0, serial="")


@dataclass(slots=True)
class Call:
    """A permitted request, on its way: `params` already name the entry as its upstream does. Never changed."""

    permit: Permit
    method: str
    params: Mapping[str, Any]
    version: Version
    """The caller's."""
    patience: float = 0.0
    """Seconds to wait for an upstream that is connecting for the first time."""
    is_one_of_many: Callable[[], bool] = lambda: False
    """Whether the caller sees more than one server, so that a question must say which one asks."""
    cache_scope: str = "private"
    """The widest `cacheScope` that a result may have."""
    is_foreign: bool = False
    """Whether the method is of an extension."""
    task: Task | None = None
    """The task that is asked about, if the method is one of tasks."""
    guarded: Guarded = UNGUARDED
    """What judges its questions. Its arguments and its result are judged around all this."""
    in_own_words: Callable[[dict[str, Any]], dict[str, Any]] = lambda said: said
    """What the caller says in the words of an extension, as the upstream names things. Raises: BrokerError, if it names
    what the caller may not use."""

    @property
    def server(self) -> str:
        """The upstream's key."""
        return self.permit.entry.server

    def claims(self) -> Claims:
        """What a state of this call is bound to."""
        arguments = self.params.get("arguments")
        return claims_of(self.permit, self.method, digest_of(arguments if is_object(arguments) else None))

    @property
    def awaited(self) -> Task | None:
        """The task whose end is waited for."""
        return self.task if self.method == "tasks/result" else None

    def timeout(self, usual: float, now: float) -> float:
        """Seconds that an answer may take: that to `tasks/result` comes when the task ends, at most after its time."""
        return usual if self.awaited is None else max(usual, self.awaited.expires - now)

    def own_params(self) -> dict[str, Any]:
        """The parameters less what only a retry of a modern caller may carry, and `task` of who knows none."""
        dropped = RETRY_FIELDS if knows_tasks(self.version) else (*RETRY_FIELDS, "task")
        return {name: value for name, value in self.params.items() if name not in dropped}

    def outgoing_params(self, state: Claims | None, upstream: Version) -> dict[str, Any]:
        """The parameters as they go upstream: of a retry, with the state that the upstream itself gave.

        No `task` of a modern caller goes to a legacy upstream, which would take it for the wish of 2025-11-25 and make
        a task that is nobody's.
        """
        if not is_modern(self.version):
            return self.own_params()
        dropped = ("requestState",) if is_modern(upstream) else ("requestState", "task")
        params = {name: value for name, value in self.params.items() if name not in dropped}
        return params if state is None or state.inner is None else {**params, "requestState": state.inner}

    async def question(self, question: Question, mint: str) -> Question:
        """A question of the upstream, judged, as this caller's era has it, with the server's name if it needs one.

        Raises: Blocked.
        """
        question = question_for_caller(await self.guarded.question(question), self.version, mint)
        return labelled(question, self.server) if self.is_one_of_many() else question
