"""`limits:` of servers, organizations, teams and keys: calls in a time, and calls at a time."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from broker.config import rules
from broker.config.costs import BudgetSettings, budget_of
from broker.config.problem import Fault
from broker.config.strict import Freeze, Lists, Strictest
from broker.core.quota import MAX_COUNT, MAX_SECONDS, QUEUE, WAIT, LevelLimits, Limits, Rate, ServerLimits, rate_of

MAX_WAIT: float = 300
"""Seconds. Who waits longer before anything has begun is gone."""
MAX_QUEUE: int = 10_000
MAX_RATES: int = 8
"""Of one level: an hour, a day and a month are three."""


def _rate(text: str) -> str:
    try:
        rate_of(text)
    except ValueError:
        remedy = "Write it as in 100/minute, 2000/day or 20/90s: second, minute, hour, day, or a number of s, m, h, d."
        message = f"a rate is calls in a time: 1 to {MAX_COUNT} in at most {MAX_SECONDS // 86_400} days"
        raise Fault(message, remedy) from None
    return text


def _listed(value: object) -> object:
    """One rate needs no list."""
    return [value] if isinstance(value, str) else value


def _lengths(rates: tuple[str, ...]) -> tuple[str, ...]:
    """Of two limits in one time only the tighter one would ever be reached: one of them is a mistake."""
    seconds = [rate_of(text).seconds for text in rates]
    if len(set(seconds)) < len(seconds):
        raise Fault("two limits in the same time", "Remove the one that is not meant.")
    return rates


_Rates: TypeAlias = Annotated[
    tuple[Annotated[str, AfterValidator(_rate)], ...],
    Lists,
    Field(min_length=1, max_length=MAX_RATES),
    BeforeValidator(_listed),
    AfterValidator(_lengths),
]


class LimitSettings(Strictest):
    """What all limits have in common; all that is written must hold."""

    rate: _Rates | None = Field(
        default=None, description="Calls in a time: 100/minute, or a list: [20/second, 2000/day]. Windows move."
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Calls at a time. More wait, and callers take turns."
    )
    queue: int = Field(default=QUEUE, ge=0, le=MAX_QUEUE, description="Calls that wait, at most. 0: none waits.")
    wait: float = Field(default=WAIT, gt=0, le=MAX_WAIT, description="Seconds that a call waits, at most.")

    @model_validator(mode="after")
    def _limits_something(self) -> "LimitSettings":
        if not self.model_fields_set:
            raise Fault("limits that limit nothing", "Add rate or concurrency, or remove them.")
        if self.concurrency is None and self.model_fields_set & {"queue", "wait"}:
            raise Fault("nobody waits without concurrency", "Add concurrency, or remove queue and wait.")
        return self


class LevelLimitSettings(LimitSettings):
    """Of an organization, a team or a key."""

    servers: Annotated[Mapping[Annotated[str, AfterValidator(rules.word)], LimitSettings], *Freeze] = Field(
        default={}, validate_default=True, description="Limits of this level at single servers, by key."
    )
    budget: BudgetSettings | None = Field(
        default=None, description="What calls may cost together in an hour, a day, a month: {day: 100}."
    )


class ServerLimitSettings(LimitSettings):
    """Of a server."""

    per_caller: LimitSettings | None = Field(
        default=None, description="Limits of each caller at this server. limits: those of all callers together."
    )


def limits_of(settings: LimitSettings | None) -> Limits:
    """One level's numbers."""
    if settings is None:
        return Limits()
    rates: tuple[Rate, ...] = tuple(map(rate_of, settings.rate or ()))
    return Limits(rates, settings.concurrency, settings.queue, settings.wait)


def level_limits_of(settings: LevelLimitSettings | None) -> LevelLimits:
    """Of an organization, a team or a key."""
    if settings is None:
        return LevelLimits()
    servers = {key: limits_of(one) for key, one in settings.servers.items()}
    return LevelLimits(limits_of(settings), servers, budget_of(settings.budget))


def server_limits_of(settings: ServerLimitSettings | None) -> ServerLimits:
    """Of a server."""
    if settings is None:
        return ServerLimits()
    return ServerLimits(limits_of(settings), limits_of(settings.per_caller))
