"""`cost:` of servers and tools, the budgets that they are counted against, and `usage:`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias, cast

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from broker.config import rules
from broker.config.document import Finding, Path, shown
from broker.config.problem import Fault
from broker.config.strict import TAG, Freeze, Lists, Strictest
from broker.core.amount import NoAmount, written_amount
from broker.core.budget import Budget
from broker.core.cost import FREE, Cost, Prices
from broker.core.match import Rules
from broker.core.period import Period
from broker.core.shape import is_object


def amount(value: object) -> object:
    """Raises: Fault. Never a float afterwards: who uses it takes `written_amount` of it."""
    try:
        written_amount(value)
    except NoAmount as why:
        raise Fault(str(why), "Write it as in 0.25.") from None
    return value


def _keys(path: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(path, str):
        return rules.value_path(path)
    if not path or len(path) > _MAX_KEYS or not all(path):
        raise Fault(f"must have 1 to {_MAX_KEYS} names")
    return path


def _path_tag(value: object) -> str:
    return TAG + ("keys" if isinstance(value, list | tuple) else "dotted")


def _cost_tag(value: object) -> str:
    return TAG + ("terms" if isinstance(value, dict | CostSettings) else "amount")


_MAX_KEYS: int = 8
_Amount = Annotated[Any, AfterValidator(amount)]
_Path = Annotated[
    Annotated[str, Tag(TAG + "dotted")] | Annotated[Annotated[tuple[str, ...], Lists], Tag(TAG + "keys")],
    Discriminator(_path_tag),
    AfterValidator(_keys),
]


class CostSettings(Strictest):
    """What a call costs that gives a result."""

    call: _Amount = Field(default=0, description="Of every call.")
    result: _Path | None = Field(
        default=None,
        description="Where its result names more: structuredContent.usage.cost, or a list of names if one has a dot.",
    )
    max: _Amount | None = Field(
        default=None,
        description="Of what a result names, at most. It is reserved before the call, and charged when in doubt.",
    )

    @model_validator(mode="after")
    def _has_a_maximum(self) -> "CostSettings":
        if self.result is not None and self.max is None:
            raise Fault("a cost from a result needs max", "Add max: what a call can cost, at most.")
        if self.result is None and self.max is not None:
            raise Fault("max without result", "Add result, the place of the cost in a result, or remove max.")
        return self


AnyCost: TypeAlias = Annotated[
    Annotated[_Amount, Tag(TAG + "amount")] | Annotated[CostSettings, Tag(TAG + "terms")], Discriminator(_cost_tag)
]
ToolCosts: TypeAlias = Annotated[Mapping[Annotated[str, Field(min_length=1, max_length=256)], AnyCost], *Freeze]


class BudgetSettings(Strictest):
    """What calls may cost together, in each period of UTC."""

    hour: _Amount | None = Field(default=None, description="In an hour.")
    day: _Amount | None = Field(default=None, description="In a day.")
    month: _Amount | None = Field(default=None, description="In a month.")

    @model_validator(mode="after")
    def _limits_something(self) -> "BudgetSettings":
        if not budget_of(self):
            raise Fault("a budget without a period", "Write it as in {day: 100, month: 2000}.")
        return self


class UsageSettings(Strictest):
    enabled: bool | None = Field(
        default=None,
        description="Whether it is recorded what callers use and what it costs. null: where they have credentials.",
    )
    keep_days: int = Field(default=400, ge=1, le=3660, description="Days after which records are removed.")


def budget_of(settings: BudgetSettings | None) -> Budget:
    """In micro-units."""
    if settings is None:
        return {}
    written = {period: getattr(settings, period) for period in Period}
    return {period: written_amount(value) for period, value in written.items() if value is not None}


def cost_of(settings: object) -> Cost:
    """Of `cost:`, an amount or its terms."""
    if not isinstance(settings, CostSettings):
        return Cost(written_amount(settings))
    if settings.result is None:
        return Cost(written_amount(settings.call))
    path = settings.result
    keys = tuple(path.split(".")) if isinstance(path, str) else path
    return Cost(written_amount(settings.call), keys, written_amount(settings.max))


def prices_of(cost: object, tools: Mapping[str, object]) -> Prices:
    """Of one server."""
    return Prices(FREE if cost is None else cost_of(cost), {own: cost_of(one) for own, one in tools.items()})


def cost_conflicts(servers: object, organizations: object) -> list[Finding]:
    """Over the data as it was read: prices of tools that are not served, and budgets of which nothing is ever spent."""
    entries = servers if is_object(servers) else {}
    found = [finding for key, entry in entries.items() if is_object(entry) for finding in _unserved(key, entry)]
    if not any(is_object(entry) and _has_price(entry) for entry in entries.values()):
        message, remedy = "a budget, but no server has a cost", "Add cost to the servers whose calls are to be counted."
        found += [Finding(path, message, remedy) for path in _budgets(("organizations",), organizations)]
    return found


def _has_price(entry: Mapping[str, Any]) -> bool:
    return entry.get("cost") is not None or bool(entry.get("tool_costs"))


def _unserved(key: str, entry: Mapping[str, Any]) -> Iterator[Finding]:
    names, costs = entry.get("tools"), entry.get("tool_costs")
    texts = names if is_object(names) else {}
    served = Rules.from_texts(_texts(texts.get("allow"), ("*",)), _texts(texts.get("deny"), ()))
    for own in costs if is_object(costs) else ():
        if not served.judge(own).allowed:
            message = f'the server serves no tool "{shown(own)}": allow or deny leaves it out'
            yield Finding(("servers", key, "tool_costs", own), message, "Remove it, or serve the tool.")


def _texts(given: object, usual: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(given, list | tuple):
        return usual
    return tuple(one for one in cast(Sequence[object], given) if isinstance(one, str))


def _budgets(path: Path, data: object) -> Iterator[Path]:
    """Every budget below organizations, teams or keys."""
    for name, level in data.items() if is_object(data) else ():
        if is_object(level):
            limits = level.get("limits")
            if is_object(limits) and limits.get("budget") is not None:
                yield (*path, name, "limits", "budget")
            for word in ("teams", "keys"):
                yield from _budgets((*path, name, word), level.get(word))
