"""The hot path on one screen: look the name up, decide, forward. Everything else a caller can ask is below it."""

from asyncio import CancelledError
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.era import (
    LATEST_LEGACY,
    MODERN_VERSIONS,
    declared_upstream,
    is_modern,
    knows_tasks,
)
from broker.core.logs import is_level
from broker.core.policy import ANY, Denied, Permit, decide
from broker.core.request import KIND_OF_LIST, NAMED, Kind, Request
from broker.errors import (
    Blocked,
    BrokerError,
    InvalidParams,
    LimitReached,
    MethodNotFound,
    Refused,
    UpstreamUnavailable,
)
from broker.guardrails.guards import UNGUARDED
from broker.outputs.checks import Checks
from broker.relay.call import Call
from broker.relay.exchange import Exchange
from broker.relay.extensions import extended_server, own_params
from broker.relay.forward import CONTINUING, Forwarder
from broker.relay.greeting import capabilities, greeting, visible_servers
from broker.relay.listing import Scope, finished
from broker.relay.parking import Parking
from broker.relay.readiness import all_seen, missing, refuse_if_nothing_is_known, trouble, ttl
from broker.relay.reference import referenced
from broker.relay.refusals import as_result, refused, told, unknown
from broker.relay.served import Served
from broker.relay.task_requests import find_task, list_tasks, refuse_unless_offered
from broker.relay.tasks import Task, Tasks, UnknownTask
from broker.relay.unlisted import app_tool, late_entry
from broker.relay.watches import Watches
from broker.upstream.lease import Asker
from broker.upstream.supervise import GONE
from broker.usage.quotas import Quotas
from broker.usage.trail import NO_TRAIL, Trail

_NO_ARGUMENTS: Final[Mapping[str, Any]] = {}


class Router:
    """What the fronts call; it knows the live configuration, not where a request came from."""

    def __init__(self, served: Served, parking: Parking, tasks: Tasks, quotas: Quotas, checks: Checks) -> None:
        self.served = served
        """The live configuration; `adopt` puts another in its place."""
        self._tasks = tasks
        self._quotas = quotas
        self._forwarder = Forwarder(served.me, parking, tasks, checks)

    def adopt(self, served: Served) -> None:
        """From now on another configuration is served; what is under way ends with the one that it began with."""
        self.served = served
        self._forwarder.me = served.me

    def _in_force(self) -> Served:
        """What is served, for those who wait and look again."""
        return self.served

    def answer(self, request: Request, exchange: Exchange) -> Awaitable[dict[str, Any]]:
        """The result of a request, as its caller's era has it.

        Raises: BrokerError, now or when it is awaited.
        """
        named = NAMED.get(request.method)
        if named is None:
            return self._answer_other(request, exchange)
        kind, key = named
        public = request.params.get(key)
        if not isinstance(public, str):
            raise InvalidParams(f"params.{key} must be a string")
        entry = self.served.catalog.lookup(kind, public)
        if entry is None:
            return self._answer_late(kind, public, request, exchange)
        return self._answer_named(kind, public, entry, request, exchange)

    async def _answer_late(self, kind: Kind, public: str, request: Request, exchange: Exchange) -> dict[str, Any]:
        """What names something that is not there, or not yet. Raises: BrokerError."""
        entry = await late_entry(self._in_force, kind, public, request.view, exchange.who.caller)
        return await self._answer_named(kind, public, entry, request, exchange)

    def _answer_named(
        self, kind: Kind, public: str, entry: Entry | None, request: Request, exchange: Exchange
    ) -> Awaitable[dict[str, Any]]:
        arguments = request.params.get("arguments", _NO_ARGUMENTS) if kind is Kind.TOOL else ANY
        try:
            permit = self._permit(kind, public, entry, request, exchange.who.caller, arguments, exchange.trail)
        except Refused as refusal:
            return told(as_result(refusal, request, now=self.served))
        _, key = NAMED[request.method]
        return self._forward(permit, request, {**request.params, key: permit.entry.own}, exchange)

    async def _permitted(
        self, kind: Kind, public: str, request: Request, caller: Caller, trail: Trail = NO_TRAIL
    ) -> Permit:
        """`_permit` of what is named somewhere else. Raises: as that does, but for Refused."""
        entry = self.served.catalog.lookup(kind, public) or await late_entry(
            self._in_force, kind, public, request.view, caller
        )
        return self._permit(kind, public, entry, request, caller, ANY, trail)

    def _permit(
        self,
        kind: Kind,
        public: str,
        entry: Entry | None,
        request: Request,
        caller: Caller,
        arguments: object,
        trail: Trail,
    ) -> Permit:
        """The decision on one entry, for every method that names one, also for a retry.

        Raises: UnknownName or UnknownResource, for what does not exist and for what is hidden alike; Refused, for a
        call of a visible tool; UpstreamUnavailable.
        """
        now = self.served
        if entry is None and kind is Kind.TOOL:
            entry = app_tool(now, public, request.view, caller)
        if entry is not None and entry.server not in now.pool.upstreams:
            entry = None  # of a disabled server: its names are reserved, and lead nowhere
        if entry is not None and entry.needs_task and not knows_tasks(request.version):
            entry = None  # hidden from who cannot use it, whatever the rules say
        decision = decide(now.policy, caller, request.view, entry, arguments)
        trail.decided(decision, entry, now.policy, public)
        if isinstance(decision, Denied):
            raise unknown(kind, public, request) if decision.is_hidden else refused(public, decision)
        if not decision.entry.definition and now.pool.upstreams[decision.entry.server].listing is None:
            raise UpstreamUnavailable(decision.entry.server, trouble(now, decision.entry.server))
        return decision

    async def _forward(
        self,
        permit: Permit,
        request: Request,
        params: dict[str, Any],
        exchange: Exchange,
        task: Task | None = None,
        *,
        is_foreign: bool = False,
    ) -> dict[str, Any]:
        """A permitted request, to its result: it gets its share of every limit, goes on its way, and gives back what it
        holds. Raises: BrokerError.
        """
        now, trail = self.served, exchange.trail
        upstream = now.pool.upstreams.get(permit.entry.server)
        if upstream is None:
            raise UpstreamUnavailable(permit.entry.server, GONE)  # a reload has left it out since the decision
        call = Call(permit, request, params, exchange, now, upstream, task, is_foreign)
        if now.guards.judges_calls:
            call.guard()
        for used in call.uses:
            used.begun += 1
        try:
            is_retry = not CONTINUING.isdisjoint(call.params) and self._forwarder.is_continued(call)
            call.hold = await self._quotas.admit(call.permit, call.method, is_retry=is_retry)
            if is_retry:
                self._forwarder.let_pass(call)
            if trail.must_wait:
                await trail.recorded()
            if call.guarded is UNGUARDED and self.served.policy is call.policy:
                return await self._forwarder.forward(call)
            return await call.guarded.call(call.params, lambda judged: self._send(call, judged))
        except (Blocked, LimitReached, Refused) as refusal:
            if call.method != "tools/call":
                raise
            trail.refused(refusal)
            return as_result(refusal, call.request, call.now)
        except CancelledError:
            exchange.abandon()
            raise
        finally:
            call.hold.release()
            for used in call.uses:
                used.end()
            exchange.finish()

    def _send(self, call: Call, judged: Mapping[str, Any]) -> Awaitable[dict[str, Any]]:
        """What has waited meets the rules of this moment, and what a guardrail has rewritten is another call.

        Raises: Refused, UnknownName or UnknownResource.
        """
        if judged is not call.params or self.served.policy is not call.policy:
            self._decide_again(call.permit, call.request, judged, call.exchange.trail)
        call.params = judged
        return self._forwarder.forward(call)

    def _decide_again(self, permit: Permit, request: Request, params: Mapping[str, Any], trail: Trail) -> None:
        """The decision on a call that is about to be sent, as if it came now. Raises: Refused, UnknownName or
        UnknownResource.
        """
        now, entry = self.served, permit.entry
        arguments = params.get("arguments", _NO_ARGUMENTS) if request.method == "tools/call" else ANY
        decision = decide(now.policy, permit.caller, request.view, entry, arguments)
        if isinstance(decision, Denied):
            trail.decided(decision, entry, now.policy)
            raise (
                unknown(entry.kind, entry.public, request) if decision.is_hidden else refused(entry.public, decision)
            )

    def _recorded(self, permit: Permit, trail: Trail) -> Permit:
        """The permit of what names no entry: which one was decided on is not recorded yet."""
        trail.decided(permit, permit.entry, self.served.policy)
        return permit

    async def _answer_other(self, request: Request, exchange: Exchange) -> dict[str, Any]:
        caller = exchange.who.caller
        if request.method in KIND_OF_LIST:
            return await self._list(KIND_OF_LIST[request.method], request, caller, exchange.trail)
        if request.method.startswith("tasks/"):
            return await self._task(request, exchange)
        match request.method:
            case "completion/complete":
                return await self._complete(request, exchange)
            case "server/discover" if is_modern(request.version):
                return await self.discover(request, caller, exchange.trail)
            case "ping" if not is_modern(request.version):
                return {}
            case "logging/setLevel" if not is_modern(request.version):
                return self._set_level(request, caller, exchange.who.session)
            case _:
                return await self._foreign(request, exchange)

    async def _list(self, kind: Kind, request: Request, caller: Caller, trail: Trail) -> dict[str, Any]:
        now = await all_seen(self._in_force, request.view, caller)
        shown = now.shown(request.view, caller)
        for key in shown:
            now.pool.upstreams[key].touch(kind)
        absent = missing(now, shown, kind)
        refuse_if_nothing_is_known(now, shown, absent)
        result = now.views.page(now.catalog, self._scope(request.view, caller), kind, request)
        fresh = ttl(now, shown, kind)
        self._show(trail, request.view, caller, (kind,))
        return finished(result, request, me=now.me, ttl=fresh, scope=now.cache_scope, missing=absent)

    async def _complete(self, request: Request, exchange: Exchange) -> dict[str, Any]:
        reference: Any = request.params.get("ref")
        kind, key = referenced(reference, self.served.catalog)
        permit = await self._permitted(kind, reference[key], request, exchange.who.caller, exchange.trail)
        own = {**reference, key: permit.entry.own}
        return await self._forward(permit, request, {**request.params, "ref": own}, exchange)

    async def _task(self, request: Request, exchange: Exchange) -> dict[str, Any]:
        """`tasks/...`: of this caller's tasks alone."""
        now, caller = self.served, exchange.who.caller
        refuse_unless_offered(now, request, exchange)
        if request.method == "tasks/list":
            return await list_tasks(
                self._in_force,
                self._tasks,
                request,
                caller,
                exchange.now,
                lambda permit, params: self._forward(self._recorded(permit, exchange.trail), request, params, exchange),
            )
        task, permit = find_task(now, self._tasks, request, caller, exchange.now)
        permit = self._recorded(permit, exchange.trail)
        return await self._forward(permit, request, {**request.params, "taskId": task.own}, exchange, task)

    async def _foreign(self, request: Request, exchange: Exchange) -> dict[str, Any]:
        """A method of an extension. Raises: MethodNotFound, unless one server, and one only, can be meant."""
        now = self.served
        permit = extended_server(now, request, exchange.who.caller, exchange.capabilities)
        if permit is None:
            raise MethodNotFound(request.method)
        params = own_params(now, request, permit, self._tasks)
        permit = self._recorded(permit, exchange.trail)
        return await self._forward(permit, request, params, exchange, is_foreign=True)

    def note(self, request: Request, caller: Caller, asker: Asker) -> None:
        """A notification of a legacy caller that concerns more than one request.

        One that is meant for nobody, or names what the caller may not use, goes no further.
        """
        if request.method == "notifications/roots/list_changed":
            return self.roots_changed(request.view, caller, asker.session)
        now = self.served
        permit = extended_server(now, request, caller, declared_upstream(asker.capabilities, request.version))
        if permit is not None:
            with suppress(BrokerError):
                params = own_params(now, request, permit, self._tasks)
                now.pool.pass_on(permit.entry.server, asker, request.method, params)

    async def watch_task(
        self, public: object, who: Request, caller: Caller, asker: Asker, watches: Watches, now: float
    ) -> None:
        """Let `watches` hear of a task of the caller's. Raises: UnknownTask, for any other; BrokerError."""
        task, permit = find_task(
            self.served, self._tasks, Request(who.method, {"taskId": public}, who.version, who.view), caller, now
        )
        await watches.add_task(task, self.served.pool.watching(permit.entry.server, asker))

    def knows_task(self, public: object, caller: Caller, now: float) -> bool:
        """Whether a task of the modern era is known here, and this caller's."""
        try:
            self._tasks.find(caller.principal, public, is_modern=True, now=now)
        except UnknownTask:
            return False
        return True

    async def discover(self, request: Request, caller: Caller, trail: Trail = NO_TRAIL) -> dict[str, Any]:
        """Spec: 2026-07-28 server/discover."""
        result = await self.greeting(request.view, caller, request.version, trail)
        now = self.served  # a reload may have come while the greeting was waited for
        result["supportedVersions"] = list(MODERN_VERSIONS)
        shown = now.shown(request.view, caller)
        fresh = min(ttl(now, shown, kind) for kind in Kind)
        return finished(result, request, me=now.me, ttl=fresh, scope=now.cache_scope, missing=missing(now, shown))

    async def greeting(
        self, view: str, caller: Caller, version: str = LATEST_LEGACY, trail: Trail = NO_TRAIL
    ) -> dict[str, Any]:
        """The body of `initialize` and of `server/discover`, for a caller of that version.

        Waits for no server that was ever seen.
        """
        now = await all_seen(self._in_force, view, caller)
        result = greeting(now, view, caller, version)
        self._show(trail, view, caller, tuple(Kind))
        return result

    def _show(self, trail: Trail, view: str, caller: Caller, kinds: tuple[Kind, ...]) -> None:
        """The one place where it is recorded what a caller was shown."""
        if trail.is_kept:
            now = self.served
            trail.showed(now.views.mark(now.catalog, self._scope(view, caller), kinds), now.policy)

    def _set_level(self, request: Request, caller: Caller, session: str) -> dict[str, Any]:
        """What a session wants to read. The front keeps it; upstreams that are quieter are asked to say more."""
        if "logging" not in capabilities(self.served, request.view, caller, request.version):
            raise MethodNotFound(request.method)
        level = request.params.get("level")
        if not isinstance(level, str) or not is_level(level):
            raise InvalidParams("level must be one of debug, info, notice, warning, error, critical, alert, emergency")
        for key in visible_servers(self.served, request.view, caller):
            self.served.pool.want_logs(key, Asker(caller.principal, session), level)
        return {}

    async def watch(
        self, uri: str, who: Request, caller: Caller, asker: Asker, watches: Watches, trail: Trail = NO_TRAIL
    ) -> None:
        """Let `watches` hear of changes of a resource that the caller may read. Raises: BrokerError."""
        permit = await self._permitted(Kind.RESOURCE, uri, who, caller, trail)
        self._quotas.count(permit)
        if trail.must_wait:
            await trail.recorded()
        await watches.add(self.served.pool.watching(permit.entry.server, asker), permit.entry.own)

    async def unwatch(self, uri: str, who: Request, caller: Caller, watches: Watches, trail: Trail = NO_TRAIL) -> None:
        """No more; also of what the caller may not read any more. Raises: BrokerError, for what it cannot read."""
        entry = self.served.catalog.lookup(Kind.RESOURCE, uri)
        if entry is not None and entry.server in self.served.pool.upstreams:
            await watches.remove(entry.server, entry.own)
        await self._permitted(Kind.RESOURCE, uri, who, caller, trail)

    def subscribes(self, view: str, caller: Caller) -> bool:
        """Whether any server that the caller sees in a view lets resources be watched."""
        return "subscribe" in capabilities(self.served, view, caller, LATEST_LEGACY).get("resources", {})

    def roots_changed(self, view: str, caller: Caller, session: str) -> None:
        """A caller's roots have changed: legacy upstreams that were told of roots may ask again."""
        for key in visible_servers(self.served, view, caller):
            self.served.pool.roots_changed(key, Asker(caller.principal, session))

    def _scope(self, view: str, caller: Caller) -> Scope:
        return Scope(caller, view, self.served.hidden())

    def has_view(self, view: str, caller: Caller) -> bool:
        """Whether there is such a view for this caller: one that shows it nothing is one that does not exist."""
        if not view:
            return True
        now = self.served
        return now.policy.has_view(view) and (bool(now.shown(view, caller)) or not now.policy.has_levels(caller))

    def troubles(self) -> Iterator[tuple[str, str]]:
        """Servers that are not ready, and why; for `/readyz` and the command line."""
        for key, upstream in self.served.pool.upstreams.items():
            if upstream.is_down:
                yield key, trouble(self.served, key)
