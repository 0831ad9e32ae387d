"""From the configuration to the one `Audit` of a broker, and to its `Budgets`."""

import hashlib
import hmac
import importlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from broker import __version__
from broker.clock import Clock
from broker.config import Config, reveal
from broker.core.budget import Limit
from broker.identity.key_secret import NoKeySecret, make_key_secret
from broker.stores.location import Location
from broker.stores.opening import open_index, open_index_to_read, open_ledger, open_usage
from broker.usage.audit import NO_AUDIT, Audit, LineAudit
from broker.usage.budgets import Budgets
from broker.usage.excerpt import Excerpts
from broker.usage.files import Bounds, Files
from broker.usage.indexing import NO_INDEXER, Indexer, NoIndexer
from broker.usage.journal import Journal
from broker.usage.line_trail import Book
from broker.usage.meter import NO_METER, Counts, Meter, NoMeter
from broker.usage.purses import Purses
from broker.usage.searching import Archive
from broker.usage.tallies import Tallies
from broker.usage.terms import Terms
from broker.usage.traces import NO_TRACES, Traces
from broker.usage.writer import NO_WRITER, Writer

log = logging.getLogger(__name__)

DIRECTORY: Final = "audit"
"""In the state directory."""
BUDGETS: Final = "budgets"
"""Likewise."""


def is_audited(config: Config, state: Path) -> bool:
    """Whether anything is recorded: unless it is said, where callers have credentials."""
    if config.audit.enabled is not None:
        return config.audit.enabled
    if config.organizations or config.identity.jwt or config.audit.required:
        return True
    return Location.of(config.store, state).holds_something()


def meter_of(config: Config) -> Counts | NoMeter:
    """Where is counted, if `/metrics` is served."""
    return NO_METER if config.metrics.access == "off" else Counts(config.servers)


def traces_of(config: Config) -> Traces:
    """Where spans go, if requests are traced. OpenTelemetry is loaded here, and only then."""
    settings = config.traces
    if not settings.enabled:
        return NO_TRACES
    otel: Any = importlib.import_module("broker.usage.otel")
    return otel.OtelTraces(config.broker.name, __version__, endpoint=settings.endpoint, sample=settings.sample)


def audit_of(config: Config, state: Path, clock: Clock, hashes: Mapping[str, str], meter: Meter = NO_METER) -> Audit:
    """`hashes`: of the guardrails in force, by name. Nothing is made on the disk before the first record."""
    traces = traces_of(config)
    if is_audited(config, state):
        return LineAudit(_book(config, state, clock, hashes, meter, traces), indexer_of(config, state, clock))
    return LineAudit(Book(NO_WRITER, clock, meter, traces=traces)) if meter.is_on or traces.is_on else NO_AUDIT


def is_used(config: Config, state: Path) -> bool:
    """Whether it is recorded what callers use: unless it is said, where they have credentials."""
    if config.usage.enabled is not None:
        return config.usage.enabled
    return bool(config.organizations or config.identity.jwt) or Location.of(config.store, state).holds_something()


def budgets_of(
    config: Config,
    state: Path,
    clock: Clock,
    terms: Terms,
    warned: Callable[[Limit, int], Awaitable[None]],
) -> Budgets:
    """`warned`: a budget is nearly used up. Nothing is opened before the first call that costs something."""
    location, me = Location.of(config.store, state), clock.token()
    purses = Purses(clock, lambda: open_ledger(location, me), Journal(state / BUDGETS, me), warned)
    tallies = Tallies(clock, lambda: open_usage(location, me), config.usage.keep_days)
    counts_local = config.usage.enabled is True
    return Budgets(clock, terms, purses, tallies if is_used(config, state) else None, counts_local=counts_local)


def audit_of_administration(config: Config, state: Path, clock: Clock) -> Audit:
    """For who changes who may do what: recorded unless the file says no, since the first key is made by nobody."""
    if config.audit.enabled is False:
        return NO_AUDIT
    return LineAudit(_book(config, state, clock, {}, NO_METER))


def indexer_of(config: Config, state: Path, clock: Clock) -> Indexer | NoIndexer:
    """What brings records into the store; `NO_INDEXER`, if they are not wanted there."""
    if not config.audit.index:
        return NO_INDEXER
    location = Location.of(config.store, state)
    return Indexer(state / DIRECTORY, lambda: open_index(location), clock, config.audit.keep_days)


def archive_of(config: Config, state: Path) -> Archive:
    """The records, to ask of them. Nothing is made for that."""
    location = Location.of(config.store, state)

    async def no_index() -> None:
        return None

    return Archive(state / DIRECTORY, (lambda: open_index_to_read(location)) if config.audit.index else no_index)


def _book(
    config: Config,
    state: Path,
    clock: Clock,
    hashes: Mapping[str, str],
    meter: Meter,
    traces: Traces = NO_TRACES,
) -> Book:
    settings = config.audit
    bounds = Bounds(settings.keep_days, settings.max_bytes, settings.sync)
    writer = Writer(Files(state / DIRECTORY, bounds, clock), clock)
    secret = _secret(config, state, clock) if settings.arguments or settings.results else b""
    book = Book(
        writer,
        clock,
        meter,
        settings.required,
        Excerpts(settings.arguments, secret) if settings.arguments else None,
        Excerpts(settings.results, secret) if settings.results else None,
        traces,
    )
    book.guard(hashes)
    return book


def _secret(config: Config, state: Path, clock: Clock) -> bytes:
    """What values are hashed with: made from the secret of keys, so that brokers that share that can be compared."""
    try:
        base = config.identity.key_secret or make_key_secret(state, clock.random_bytes)
    except NoKeySecret as error:
        log.warning("hashes in the audit can be compared until the next start only: %s", error)
        return clock.random_bytes(32)
    return hmac.new(reveal(base).encode(), b"audit", hashlib.sha256).digest()
