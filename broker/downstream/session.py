"""A legacy session: what `initialize` opened, and what is in flight in it.

Ids are random and bound to the principal that opened them; for anybody else the session does not exist (SP-80, I-33).
"""

import hashlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from broker.clock import Clock
from broker.core.caller import Caller
from broker.core.era import LEGACY_VERSIONS, Version
from broker.core.logs import EVERYTHING
from broker.downstream.asking import Asking, Put
from broker.downstream.engine import Answer, Who
from broker.downstream.in_flight import InFlight
from broker.downstream.message import Incoming
from broker.downstream.replay import EventLog, Replay
from broker.downstream.vigil import is_gone
from broker.errors import InvalidRequest
from broker.identity.admission import Admission
from broker.relay.exchange import Emit, Exchange
from broker.relay.watches import Watches

SESSION_HEADER: Final = "mcp-session-id"
SESSION_PARAMETER: Final = "session"
"""How the old transport names it, in the address of messages."""
MAX_PER_PRINCIPAL: Final = 100
"""Sessions that one principal may hold: more than any host opens, less than hurts (F-79)."""
IDLE_TIMEOUT: Final = 30 * 60.0
"""Seconds after which a session without requests or streams is forgotten."""
RESUMABLE_SINCE: Final = LEGACY_VERSIONS[-1]
"""Older hosts may choke on an event without data."""
MAX_IN_FLIGHT: Final = 1000
"""Requests of one session at a time."""


@dataclass(slots=True, eq=False)
class LegacySession:
    """One session. `view` is the endpoint it was opened at; it is unknown at any other."""

    id: str
    caller: Caller
    view: str
    version: Version
    capabilities: Mapping[str, Any] = field(default_factory=dict[str, Any])
    last_used: float = 0.0
    admission: Admission | None = None
    """How the last request in it was admitted; None on a pipe."""
    log_level: str = EVERYTHING
    """The least severe message that it wants to read: all, until it says otherwise."""
    asking: Asking = field(default_factory=Asking)
    watches: Watches = field(default_factory=Watches)
    replay: Replay = field(default_factory=Replay)
    is_initialized: bool = False
    """Whether its caller has said that the handshake is complete."""
    is_closed: bool = False
    front: str = "http"
    """By which it came, as the audit has it."""

    @property
    def reference(self) -> str:
        """What stands for its id where others see it: the id itself is its caller's alone."""
        return hashlib.sha256(self.id.encode()).hexdigest()[:24]

    stream: anyio.CancelScope | None = None
    """The open event stream: one at a time, so that nothing is told twice (I-33)."""
    in_flight: dict[str | int, InFlight] = field(default_factory=dict[str | int, InFlight])
    who: Who = field(init=False)
    """Who asks in it: made once, and again whenever something of it changes (`_renew`)."""

    def __post_init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self.who = Who(
            self.caller, self.version, self.view, self.capabilities, self.log_level, self.watches, self.id, self.front
        )

    def is_of(self, admission: Admission) -> bool:
        """Whether the session belongs to whoever was admitted, who then is the one that asks in it (SP-80)."""
        if admission.caller.principal != self.caller.principal:
            return False
        self.caller, self.admission = admission.caller, admission
        self._renew()
        return True

    def agree(self, version: Version, capabilities: Mapping[str, Any]) -> None:
        """Its caller has sent `initialize` in it."""
        self.version, self.capabilities = version, capabilities
        self._renew()

    def succeed(self, before: "LegacySession") -> None:
        """It takes the place of another one of the same caller: what that was asked, and what it watches, go on."""
        self.watches, self.asking = before.watches, before.asking
        self._renew()

    def new_log(self) -> EventLog | None:
        """That of one stream, if its version knows streams that begin with an id and can be taken up again."""
        return self.replay.open() if self.version >= RESUMABLE_SINCE else None

    def note(self, incoming: Incoming) -> None:
        """A message that needs no answer: a response to a question, or a cancellation."""
        if incoming.answer is not None:
            self.asking.answer(incoming)
        elif incoming.method == "notifications/cancelled":
            self.cancel(incoming.params)
        elif incoming.method == "notifications/initialized":
            self.is_initialized = True

    def learn(self, incoming: Incoming, answer: Answer) -> None:
        """A request was answered: a level that was accepted is this session's from now on."""
        if incoming.method == "logging/setLevel" and answer.code is None:
            self.log_level = incoming.params["level"]
            self._renew()

    @property
    def is_orphaned(self) -> bool:
        """Whether its caller is not admitted any more, whatever credential it brings."""
        return self.admission is not None and is_gone(self.admission)

    @property
    def is_busy(self) -> bool:
        """Whether something of it is going on."""
        return bool(self.in_flight) or self.stream is not None

    def begin(self, request_id: str | int) -> InFlight:
        """A request has come: from now on it can be cancelled by its id. Whoever works for it must enter it.

        Raises: InvalidRequest, for an id that is in flight already (F-75).
        """
        if self.is_closed:
            raise InvalidRequest("the session has ended")
        if request_id in self.in_flight:
            raise InvalidRequest("a request with this id is in flight")
        if len(self.in_flight) >= MAX_IN_FLIGHT:
            raise InvalidRequest(f"more than {MAX_IN_FLIGHT} requests in flight")
        return InFlight(self.in_flight, request_id)

    @contextmanager
    def streaming(self) -> Generator[None, None, None]:
        """Owns the event stream; the one that was open before ends."""
        if self.stream is not None:
            self.stream.cancel()
        with anyio.CancelScope() as scope:
            self.stream = scope
            try:
                yield
            finally:
                if self.stream is scope:
                    self.stream = None

    def cancel(self, params: Mapping[str, Any]) -> None:
        """`notifications/cancelled`: of an id that is not in flight here, nothing (SP-34)."""
        request_id = params.get("requestId")
        if type(request_id) is int or type(request_id) is str:
            request = self.in_flight.get(request_id)
            if request is not None:
                request.cancel()

    def close(self) -> None:
        """Cancel all that is in flight, end the stream, and watch nothing any more."""
        self.is_closed = True
        self.watches.clear()
        if self.stream is not None:
            self.stream.cancel()
        for request in tuple(self.in_flight.values()):
            request.cancel()


class SessionStream:
    """See `Stream`: the open stream of a session. `put` takes a question, `emit` a notification."""

    def __init__(self, session: LegacySession, clock: Clock, emit: Emit, put: Put) -> None:
        self._session = session
        channel = session.asking.channel(put)
        self._exchange = Exchange(clock, session.who, emit, channel)

    @property
    def version(self) -> Version:
        """See `Stream`."""
        return self._session.version

    @property
    def is_open(self) -> bool:
        """See `Stream`."""
        return self._session.is_initialized

    def talk(self) -> Exchange:
        """See `Stream`. One exchange for all, since the rate of log messages is bounded in it."""
        self._exchange.renew(self._session.who)
        return self._exchange


class Sessions:
    """The open sessions of an HTTP front. `on_closed` is told the id of each that ends."""

    def __init__(self, on_closed: Callable[[str], None]) -> None:
        self._on_closed = on_closed
        self._sessions: dict[str, LegacySession] = {}
        self._own: dict[str, dict[str, LegacySession]] = {}
        """The same by principal, which of a session never changes: opening one looks at those of its caller only."""

    def __len__(self) -> int:
        return len(self._sessions)

    def listed(self) -> tuple[LegacySession, ...]:
        """All of them."""
        return tuple(self._sessions.values())

    def open(self, session: LegacySession) -> bool:
        """Keep a new session; an idle one of the same principal makes room if it has too many. False if none is."""
        own = self._own.get(session.caller.principal, {})
        if len(own) >= MAX_PER_PRINCIPAL:
            idle = min((one for one in own.values() if not one.is_busy), key=lambda one: one.last_used, default=None)
            if idle is None:
                return False
            self.close(idle)
        self._sessions[session.id] = session
        self._own.setdefault(session.caller.principal, {})[session.id] = session
        return True

    def find(self, session_id: str, admission: Admission, view: str, now: float) -> LegacySession | None:
        """The session of that id, if it is this caller's, at this endpoint.

        From now on it is that of the caller as it came now: with the place, role and scopes of this credential, and not
        of the one that opened it (SP-27).
        """
        session = self._sessions.get(session_id)
        if session is None or session.view != view:
            return None
        if session.admission is not admission and not session.is_of(admission):
            return None
        session.last_used = now
        return session

    def close(self, session: LegacySession) -> None:
        """End a session and what is in flight in it."""
        self._sessions.pop(session.id, None)
        own = self._own.get(session.caller.principal, {})
        own.pop(session.id, None)
        if not own:
            self._own.pop(session.caller.principal, None)
        session.close()
        self._on_closed(session.id)

    def expire(self, now: float) -> None:
        """End sessions that nobody has used for long, and those of callers that cannot come back (I-08); of the others,
        let streams go that have long ended.
        """
        for session in tuple(self._sessions.values()):
            if (not session.is_busy and now - session.last_used > IDLE_TIMEOUT) or session.is_orphaned:
                self.close(session)
            else:
                session.replay.forget(now)
