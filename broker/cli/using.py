"""`mcp-broker usage`: who has used what, what it cost, and what is left of budgets. No broker need run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from broker.admin.desk import Office
from broker.admin.usage import Asked, BudgetView, UsageView, asked, budgets, used
from broker.cli.moments import ago, shown
from broker.cli.office import look
from broker.cli.screen import Screen
from broker.cli.words import count, line
from broker.clock import SystemClock
from broker.core.caller import LOCAL
from broker.stores.usage_rows import Group

_HOURLY: Final = 2 * 86_400
"""Seconds of a span that is still drawn hour by hour; a longer one day by day."""
_SUMS: Final = ("calls", "failed", "refused", "cost", "mean ms", "max ms")
_BUDGETS: Final = ("budget", "per", "resets", "spent", "leased", "of")
_TIME: Final = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}


@dataclass(frozen=True)
class Found:
    """What was asked, what was used in all and in each time, and the budgets."""

    question: Asked
    groups: Sequence[UsageView]
    times: Sequence[UsageView]
    budgets: Sequence[BudgetView]


def usage(config: Path | None, by: Group, since: str, until: str | None, *, as_json: bool, level: str) -> int:
    """The exit code. Raises: Stop."""
    now = SystemClock().wall()
    begins, ends = ago(since, now), now if until is None else ago(until, now)
    step = "hour" if ends - begins <= _HOURLY else "day"

    async def ask(office: Office) -> Found:
        in_all, in_times = asked(by, "all", begins, ends, now), asked(by, step, begins, ends, now)
        groups, times = await used(office, LOCAL, in_all), await used(office, LOCAL, in_times)
        return Found(in_all, groups, times, await budgets(office, LOCAL))

    def show(screen: Screen, found: Found) -> None:
        if as_json:
            screen.json(_plain(found))
        else:
            _show(screen, step, found)

    return look(config, level, ask, show)


def _show(screen: Screen, step: str, found: Found) -> None:
    question, groups = found.question, found.groups
    # What costs nothing is drawn by its calls.
    worth = _cost if any(map(_cost, groups)) else _calls
    ordered = sorted(groups, key=lambda one: (-worth(one), -_calls(one), _name(question.by, one)))
    rows = [(_name(question.by, one), *_sums(one)) for one in ordered]
    screen.bars((question.by, *_SUMS), rows, _shares([worth(one) for one in ordered]), words=1)
    if screen.out.is_terminal and found.times:
        drawn = _by_time(found.times, worth)
        screen.say("")
        moments = [datetime.fromtimestamp(at, UTC).strftime(_TIME[step]) for at in drawn]
        said = [(moment, f"{value.normalize():f}") for moment, value in zip(moments, drawn.values(), strict=True)]
        screen.bars(
            (f"{step} (UTC)", "cost" if worth is _cost else "calls"), said, _shares(list(drawn.values())), words=1
        )
    if found.budgets:
        if screen.out.is_terminal:
            screen.say("")
        lines = [
            (line(one.level), one.period, shown(one.resets) or "", one.spent, one.leased, one.limit)
            for one in found.budgets
        ]
        screen.bars(_BUDGETS, lines, [_share(Decimal(one.spent), Decimal(one.limit)) for one in found.budgets], words=3)
    screen.note(f"{count(int(sum(map(_calls, groups))), 'call')} since {shown(question.since)}", "dim")


def _name(by: Group, one: UsageView) -> str:
    match by:
        case "tool":
            return line(f"{one.server} {one.name or one.kind}".strip()) or "(others)"
        case "server":
            return line(one.server) or "(others)"
        case "key":
            place = "/".join(part for part in (one.organization, one.team) if part)
            return line(f"{one.principal} {f'({place})' if place else ''}".strip())
        case "team":
            return line("/".join(part for part in (one.organization, one.team) if part)) or "(local)"
        case "organization":
            return line(one.organization) or "(local)"


def _sums(one: UsageView) -> tuple[str, ...]:
    mean = 1000 * one.seconds / one.calls if one.calls else 0.0
    return str(one.calls), str(one.failed), str(one.refused), one.cost, f"{mean:.1f}", f"{1000 * one.slowest:.1f}"


def _calls(one: UsageView) -> Decimal:
    return Decimal(one.calls)


def _cost(one: UsageView) -> Decimal:
    return Decimal(one.cost)


def _by_time(times: Sequence[UsageView], worth: Callable[[UsageView], Decimal]) -> Mapping[int, Decimal]:
    """The sum in each time in which there was something."""
    found: dict[int, Decimal] = {}
    for one in times:
        found[one.at] = found.get(one.at, Decimal(0)) + worth(one)
    return found


def _shares(values: Sequence[Decimal]) -> list[float]:
    """Of the greatest of them, which fills its bar, but not red: nothing is used up."""
    greatest = max(values, default=Decimal(0))
    return [0.999 * _share(value, greatest) for value in values]


def _share(value: Decimal, of: Decimal) -> float:
    return float(value / of) if of else 1.0


def _plain(found: Found) -> dict[str, Any]:
    question = found.question
    return {
        "by": question.by,
        "since": shown(question.since),
        "until": shown(question.until),
        "usage": [{name: value for name, value in asdict(one).items() if name != "at"} for one in found.groups],
        "budgets": [{**asdict(one), "began": shown(one.began), "resets": shown(one.resets)} for one in found.budgets],
    }
