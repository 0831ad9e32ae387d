"""`mcp-broker serve`: the broker over HTTP, until somebody ends it."""

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import anyio

from broker.admin.api import Api
from broker.admin.desk import Office
from broker.admin.journal import AuditJournal
from broker.admin.premises import Premises
from broker.allocation import settle_in
from broker.app import Broker, run, run_async
from broker.cli.begin import begin_to_serve, read_config, warn
from broker.cli.callers import with_advice
from broker.cli.descriptors import bounds_of
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.key_secret import key_secret_of
from broker.cli.reloading import serve_reloads
from broker.cli.shift import ALONE_AT_WORK, Shift
from broker.cli.words import count, line
from broker.compiled import state_directory
from broker.config import Config, Loaded, Secret
from broker.core.directory import Directory
from broker.downstream.door import Door
from broker.downstream.guard import Guard
from broker.downstream.health import Health, Unwell
from broker.downstream.memory import Memory, limit_of_machine
from broker.downstream.metrics import Metrics
from broker.downstream.room import Room
from broker.downstream.server import bind, is_loopback, serve_http
from broker.downstream.vitals import Vitals
from broker.identity.assembly import change_of, identity_of, resource_of
from broker.identity.identity import Identity
from broker.identity.key_secret import NoKeySecret, read_key_secret
from broker.identity.supplies import Supplies
from broker.reload import NotReloadable, Prepare, Reloads
from broker.stores.errors import StoreError, StoreUnusable
from broker.stores.location import Location
from broker.stores.opening import open_store
from broker.stores.watch import Watch
from broker.usage.assembly import archive_of
from broker.usage.audit import LineAudit
from broker.usage.gauges import Gauge
from broker.usage.meter import Counts
from broker.workers.assignment import MAX_WORKERS

log = logging.getLogger(__name__)

MIB: Final = 1 << 20


def serve(
    config: Path | None, host: str, port: int, workers: int | None, level: str, *, logs_json: bool = False
) -> int:
    """The exit code. Raises: Stop."""
    begin_to_serve(level, as_json=logs_json)
    loaded = with_advice(read_config(config))
    count = workers or loaded.config.server.workers
    if count > 1:
        given = {"config": str(config) if config else None, "host": host, "level": level, "logs_json": logs_json}
        _become_supervisor(loaded, count, lambda: _bound(host, port), given)
    return serve_loaded(loaded, host, lambda: _bound(host, port), ALONE_AT_WORK)


def _become_supervisor(
    loaded: Loaded, count: int, listen: Callable[[], socket.socket], given: dict[str, Any]
) -> NoReturn:
    """The file is good; once the port is ours too, all else is the workers' business. Raises: Stop."""
    from broker.workers.supervisor import Plan, become_supervisor

    if count > MAX_WORKERS:
        raise Stop(f"--workers {count} is refused: at most {MAX_WORKERS}", BAD_INPUT)
    listener = listen()
    plan = Plan(count, listener.fileno(), loaded.config.broker.drain, given["level"], given["logs_json"], given)
    try:
        become_supervisor(plan)
    except OSError as error:
        raise Stop(f"--workers {count} is not possible here: {error.strerror}", FAILED) from None


def _bound(host: str, port: int) -> socket.socket:
    """Raises: Stop."""
    try:
        return bind(host, port)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise Stop(
            f"cannot listen on {host}:{port}: {why}. Choose another --port, or 0 for a free one.", FAILED
        ) from None


def serve_loaded(loaded: Loaded, host: str, listen: Callable[[], socket.socket], shift: Shift) -> int:
    """The exit code. `listen`: gives the listening socket, once it is needed. Raises: Stop."""
    settle_in()
    broker = Broker(loaded, worker=shift.crew.worker, counting=shift.counting)
    location = Location.of(loaded.config.store, state_directory(loaded.config))
    watch = Watch(location, lambda: open_store(location), broker.clock, _adopt(broker))
    premises = _premises(broker, location)
    may_have_keys = location.holds_something()
    if may_have_keys:
        _refuse_unusable(location)
    supplies = _supplies(broker, lambda: broker.loaded.config, watch)
    door, identity = _door(broker, host, supplies, may_have_keys=may_have_keys)
    room = Room(bounds_of(loaded.config), shift.held)
    reloads = Reloads(broker, os.environ, _prepare(broker, door, identity, room, watch))
    most = loaded.config.server.memory_max
    memory = most * MIB if most is not None else limit_of_machine(shift.crew.worker.count)
    vitals = Vitals(broker.clock, Memory(memory))
    listener = listen()
    metrics = metrics_of(broker, reloads.gauges)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/mcp"

    def ready() -> None:
        _announce(loaded, url, door.has_source, is_first=shift.crew.worker.number == 1)
        shift.is_ready()

    async def front(broker: Broker) -> None:
        async with premises.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(watch.serve)
            await tasks.start(serve_reloads, reloads)
            tasks.start_soon(shift.serve, broker.engine.closing, lambda: broker.drain)
            if may_have_keys:
                # Before the first request is answered: what the store does not say yet, nobody may do.
                await watch.settled.wait()
            broker.budgets.prepare()
            api = Api(premises, lambda: broker.generation, archive_of(loaded.config, location.directory))
            await serve_http(
                broker.engine,
                door,
                listener,
                ready,
                metrics,
                api,
                room,
                _health(broker, watch, reloads, vitals),
                lambda: broker.drain,
                vitals,
                shift.crew,
            )
            tasks.cancel_scope.cancel()

    run_async(lambda: run(broker, front))
    log.info("stopped")
    return OK


def _premises(broker: Broker, location: Location) -> Premises:
    async def furnish() -> Office:
        return Office(
            await open_store(location),
            lambda: broker.generation.file,
            lambda: tuple(broker.generation.config.servers),
            broker.clock,
            lambda: key_secret_of(broker.loaded),
            AuditJournal(broker.audit),
        )

    return Premises(furnish)


def _refuse_unusable(location: Location) -> None:
    """Raises: Stop, for a store that somebody has to mend first (F-93). One that is down may come back."""
    trouble = ""

    async def look() -> None:
        nonlocal trouble
        try:
            await (await open_store(location)).aclose()
        except StoreUnusable as error:
            trouble = str(error)
        except StoreError as error:
            log.warning("%s", error)

    run_async(look)
    if trouble:
        raise Stop(line(trouble, 1000), FAILED)


def _adopt(broker: Broker) -> Callable[[Directory], None]:
    def adopt(stored: Directory) -> None:
        broker.generation.adopt(stored)

    return adopt


def _supplies(broker: Broker, config: Callable[[], Config], watch: Watch) -> Supplies:
    state = state_directory(broker.loaded.config)

    def key_secret() -> Secret | None:
        return config().identity.key_secret or read_key_secret(state)

    return Supplies(broker.clock, broker.engine.router, key_secret, watch.silence)


def _door(broker: Broker, host: str, supplies: Supplies, *, may_have_keys: bool) -> tuple[Door, Identity]:
    """Who comes in. Raises: Stop, if everybody would."""
    config = broker.loaded.config
    try:
        supplies.key_secret()
    except NoKeySecret as error:
        raise Stop(str(error), BAD_INPUT) from None
    identity = identity_of(config.identity, supplies, is_private=is_loopback(host))
    if not is_loopback(host) and not (identity.is_reachable or may_have_keys):
        raise Stop(
            f"--host {line(host)} is refused: no credential source is configured, so everybody who reaches that "
            "address could use every server. Use --host 127.0.0.1, and a tunnel or an authenticating proxy; or make "
            "a key (mcp-broker key create), or name an issuer (identity.jwt).",
            BAD_INPUT,
        )
    return Door(_guard(config), identity, resource_of(config.identity, config.broker.name), broker.audit), identity


def _guard(config: Config) -> Guard:
    return Guard(config.server.allowed_hosts, config.server.allowed_origins, config.identity.public_url)


def _prepare(broker: Broker, door: Door, identity: Identity, room: Room, watch: Watch) -> Prepare:
    """How the front takes another configuration."""

    def prepare(loaded: Loaded) -> Callable[[], None]:
        config = loaded.config
        supplies = _supplies(broker, lambda: config, watch)
        try:
            supplies.key_secret()
        except NoKeySecret as error:
            raise NotReloadable(str(error)) from None
        change = change_of(identity, broker.loaded.config.identity, config.identity, supplies)
        guard, resource = _guard(config), resource_of(config.identity, config.broker.name)
        bounds = bounds_of(config)

        def commit() -> None:
            change()
            door.adopt(guard, resource)
            room.bounds = bounds

        return commit

    return prepare


def _health(broker: Broker, watch: Watch, reloads: Reloads, vitals: Vitals) -> Health:
    """What `/readyz` looks at."""

    def store() -> Unwell | None:
        if not watch.trouble:
            return None
        grace = broker.loaded.config.identity.store_grace
        is_needed = watch.known is None or watch.silence() > grace
        return Unwell("store", "unusable" if watch.is_unusable else "down", is_needed)

    def audit() -> Unwell | None:
        if not isinstance(broker.audit, LineAudit) or not broker.audit.book.writer.is_failing:
            return None
        return Unwell("audit", "failing", broker.loaded.config.audit.required)

    def reload() -> Unwell | None:
        return Unwell("reload", "failed", is_needed=False) if reloads.trouble else None

    return Health([store, audit, reload, *vitals.checks()])


def metrics_of(broker: Broker, more: Callable[[], list[Gauge]] = list) -> Metrics | None:
    """The page of `/metrics`, if it is served. `more`: what the broker itself does not know."""
    access = broker.loaded.config.metrics.access
    if access == "off" or not isinstance(broker.meter, Counts):
        return None
    return Metrics(broker.meter, lambda: [*broker.gauges(), *more()], access)


def _announce(loaded: Loaded, url: str, has_source: bool, *, is_first: bool) -> None:
    if not is_first:  # one of several workers has said it
        return log.info("serving")
    # Said at every level: with --port 0 nobody else knows the port.
    log.setLevel(logging.INFO)
    enabled = sum(server.enabled for server in loaded.config.servers.values())
    log.info("serving %s: %s on %s", line(loaded.config.broker.name), count(enabled, "server"), url)
    if not has_source:
        log.warning("no credential source is configured: every caller is 'local' and may use all of it")
    else:
        sources = ["an API key", *(f"a token of {line(one.issuer)}" for one in loaded.config.identity.jwt)]
        log.info("every request needs a credential: %s", " or ".join(sources))
    warn(loaded)
