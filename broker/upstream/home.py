"""Whose is it? What an upstream sends without naming a call: questions and log messages on a pipe, or on a stream that
belongs to no request.

| calls in flight on the link | `shared` | `caller` | `session` |
|---|---|---|---|
| one, and none given up by another session | that call's | that call's | that call's |
| none | nobody's: -32601 | the caller's one open legacy stream | the session's open stream |
| several, all of one session | nobody's: refused | that session's open stream | that session's open stream |
| several, of more than one session | nobody's: refused | nobody's: refused | there are none |

A legacy request on the stream that streamable HTTP has for what belongs to no call, and any `roots/list`, which servers
send when they please, is asked on the session's stream before that of its only call, if that stream is open: asked on a
short call, it would be taken back with it.

A call counts until its upstream has answered it, also if it was cancelled or has timed out (`link.ABANDONED_FOR`). A
modern request is a session of its own, so two of one caller are two sessions; and a modern caller has no stream, so
what none of its calls owns is refused. The only caller of a front (`mcp-broker stdio`) has every link for itself.
"""

from collections.abc import Collection
from typing import Any, Protocol

from broker.core.questions import Question
from broker.errors import INTERNAL_ERROR, CannotAsk, printable


class Home(Protocol):
    """Where a link that has one owner brings what no call owns. `session` names the owner's session; "": any of it."""

    @property
    def remedy(self) -> str:
        """What else to do if even that cannot tell whose it is."""
        ...

    def is_open(self, session: str) -> bool:
        """Whether that session has a stream, on which it can be asked now."""
        ...

    async def ask(self, session: str, question: Question) -> dict[str, Any]:
        """The owner's result. Raises: BrokerError."""
        ...

    def notice(self, session: str, method: str, params: dict[str, Any]) -> None:
        """A notification. Must neither block nor raise."""
        ...


class NoHome:
    """Of a link that many callers share: there is nobody to ask."""

    remedy = (
        "set isolation: caller or session for this server, call it one call at a time, or reach it over streamable"
        " HTTP, where each call has its own stream"
    )

    def is_open(self, session: str) -> bool:
        """See `Home`."""
        return False

    async def ask(self, session: str, question: Question) -> dict[str, Any]:
        """See `Home`."""
        raise CannotAsk(f"Method not found: nobody can be asked {printable(question.method)}")

    def notice(self, session: str, method: str, params: dict[str, Any]) -> None:
        """See `Home`: the link has logged it."""


NO_HOME = NoHome()


def session_of(
    in_flight: Collection[str], given_up: Collection[str], home: Home, *, stands_alone: bool = False
) -> str | None:
    """Whose is it? See the module. None: the only call's; else the session, at `home` ("": whichever it has).

    `in_flight`, `given_up`: the sessions of calls that are waited for, and of those that are not any more;
    `stands_alone`: it rather belongs to no call at all.

    Raises: CannotAsk, if it cannot be told.
    """
    sessions = {*in_flight, *given_up}
    if not sessions:
        return ""
    is_one = len(sessions) == 1 and "" not in sessions
    if is_one and stands_alone and home.is_open(next(iter(sessions))):
        return sessions.pop()
    if len(in_flight) == 1 and (is_one or not given_up):
        return None
    if is_one and home is not NO_HOME:
        return sessions.pop()
    if len(in_flight) > 1:
        why = "several calls are in flight, and nothing tells whose this is"
        raise CannotAsk(f"{why}: {home.remedy}", code=INTERNAL_ERROR)
    raise CannotAsk("it may belong to a call that was cancelled a moment ago: try again", code=INTERNAL_ERROR)
