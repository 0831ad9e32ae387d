"""What no call owns, on a link that has one owner: to that owner's open legacy stream.

Whose it is, `upstream/home.py` says. The streams are those of the `Hub`; of several that are open none is meant, so
none is asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio

from broker.core.caller import Caller
from broker.core.era import question_for_caller
from broker.core.questions import Question, labelled
from broker.errors import INTERNAL_ERROR, REFUSED, Blocked, CannotAsk, printable
from broker.guardrails.guards import NO_GUARDS, Guards, NoGuards
from broker.relay.notify import Hub, Stream, Subscriber

OPENS_WITHIN: Final = 10.0
"""Seconds that a question waits for a stream: a server may ask as soon as it has shaken hands, while its caller's own
handshake is still under way."""


@dataclass(frozen=True, slots=True)
class StreamHome:
    """See `upstream/home.py`, `Home`: of one server, and of one owner (`session`: "" for any of the principal's)."""

    server: str
    principal: str
    session: str
    has_roots: bool
    patience: float
    """Seconds to wait for a stream that is not open yet."""
    hub: Hub
    mint: Callable[[], str]
    """An unguessable id."""
    shown: Callable[[str, Caller], tuple[str, ...]]
    """The servers of a view that a caller may use."""
    guards: Guards | NoGuards = NO_GUARDS

    @property
    def remedy(self) -> str:
        """See `Home`."""
        return "call this server one call at a time, or set isolation: session for it"

    def is_open(self, session: str) -> bool:
        """See `Home`."""
        return len(self._streams(session)) == 1

    async def ask(self, session: str, question: Question) -> dict[str, Any]:
        """See `Home`."""
        if question.method == "roots/list" and not self.has_roots:
            raise CannotAsk(f"Method not found: {question.method} is switched off for this server")
        subscriber, stream = await self._open(session, question.method)
        try:
            question = await self.guards.outside(subscriber.caller, self.server).question(question)
        except Blocked:  # by whom is not the upstream's affair
            raise CannotAsk("the question is refused", code=REFUSED) from None
        question = question_for_caller(question, stream.version, self.mint())
        if len(self.shown(subscriber.view, subscriber.caller)) > 1:
            question = labelled(question, self.server)
        return await stream.talk().ask(question)

    def notice(self, session: str, method: str, params: dict[str, Any]) -> None:
        """See `Home`."""
        found = self._streams(session)
        if len(found) == 1:
            found[0][1].talk().notice(method, params)

    async def _open(self, session: str, method: str) -> tuple[Subscriber, Stream]:
        """The one open stream. Raises: CannotAsk."""
        with anyio.move_on_after(self.patience):
            while not self._streams(session):
                await self.hub.opened()
        found = self._streams(session)
        if not found:
            raise CannotAsk(f"Method not found: no open stream of the caller can be asked {printable(method)}")
        if len(found) > 1:
            why = "the caller has several sessions, and nothing tells whose this is"
            raise CannotAsk(f"{why}: set isolation: session for this server", code=INTERNAL_ERROR)
        return found[0]

    def _streams(self, session: str) -> list[tuple[Subscriber, Stream]]:
        wanted = session or self.session
        return [
            (subscriber, stream)
            for subscriber, stream in self.hub.streams(self.principal)
            if wanted in ("", subscriber.session) and self.server in self.shown(subscriber.view, subscriber.caller)
        ]
