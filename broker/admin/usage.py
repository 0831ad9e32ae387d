"""Who has used what, and what is left of budgets: of what the actor administers, and of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from broker.admin.authority import Authority
from broker.admin.desk import Office, looking
from broker.admin.errors import Invalid
from broker.config import Fault
from broker.config.rules import seconds
from broker.core.amount import amount_text
from broker.core.budget import Limit
from broker.core.caller import Caller, Role
from broker.core.directory import merge
from broker.core.limits import all_budgets, budgets_of
from broker.core.period import Period, begin_of, end_of
from broker.core.tally import Sums
from broker.stores.usage_rows import Group, Held, Seen

DAYS: Final = 7
"""That are shown unless it is said."""
MAX_HOURS: Final = 10 * 366 * 24
"""Of one question."""
_NAMES: Final = ("organization", "team", "principal", "server", "kind", "name")
_STEPS: Final = {"hour": 3600, "day": 86_400, "all": MAX_HOURS * 3600}


@dataclass(frozen=True, slots=True)
class Asked:
    """`by`: what is told apart; `step`: in which times. `since` and `until`: seconds since 1970, whole hours."""

    by: Group
    step: str
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class UsageView:
    """What one of a group has used in one time. What the group does not tell apart is "".

    `at`: when the time began, of `step: all` the whole span. `cost`: a decimal, exact. Of `calls`, `failed` gave no
    result or one that says `isError`; `refused` were refused by a budget, and are no calls. `seconds`: all together.
    """

    at: int
    organization: str
    team: str
    principal: str
    server: str
    kind: str
    name: str
    calls: int
    failed: int
    refused: int
    cost: str
    seconds: float
    slowest: float


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget in the period of now. `level`: whose. Amounts are decimals, exact: of `limit`, `spent` is spent as far
    as brokers have told, and `leased` is with brokers that have not spent it. `began`, `resets`: seconds since 1970.
    """

    level: str
    period: str
    limit: str
    spent: str
    leased: str
    began: int
    resets: int


def asked(by: Group, step: str, since: str | float, until: str | float, now: float) -> Asked:
    """A question. Times as people write them, or seconds; "" for the last days until now. Raises: Invalid."""
    ends = now if until == "" else _moment(until)
    begins = ends - DAYS * 86_400 if since == "" else _moment(since)
    first, last = begin_of(Period.HOUR, begins), end_of(Period.HOUR, begin_of(Period.HOUR, ends))
    if not 0 <= first < last:
        raise Invalid("since must be before until, and not before 1970")
    if last - first > MAX_HOURS * 3600:
        raise Invalid("that is more than ten years")
    return Asked(by, step, first, last)


async def used(office: Office, actor: Caller, question: Asked) -> list[UsageView]:
    """What the actor may see of it, by time. Raises: AdminError, StoreError, Unrecorded."""
    async with looking(office, actor, "usage.show", f"usage:{question.by}") as desk:
        seen = _seen(desk.authority, actor)
    rows = await office.store.used(question.by, question.since, question.until, _STEPS[question.step], seen)
    return [_view(question, row.at, row.of, row.sums) for row in rows]


async def budgets(office: Office, actor: Caller) -> list[BudgetView]:
    """Those that the actor administers, and those that its own calls are paid from.

    Raises: AdminError, StoreError, Unrecorded.
    """
    stored = (await office.store.load()).directory
    directory, _ = merge(office.file(), stored)
    own = budgets_of(directory, actor)
    async with looking(office, actor, "budget.list", "budget:*") as desk:
        found = [
            limit
            for organization, team, limit in all_budgets(directory)
            if limit in own or desk.authority.has(_role_for(team), organization, team)
        ]
    accounts = [limit.account(desk.now) for limit in found]
    held = await office.store.held(accounts, desk.now)
    return [_budget(limit, desk.now, held.get(account, Held())) for limit, account in zip(found, accounts, strict=True)]


def _moment(given: str | float) -> float:
    if not isinstance(given, str):
        return given
    try:
        return seconds(given)
    except Fault as fault:
        raise Invalid(f"since and until: {fault.message}. {fault.remedy}") from None


def _seen(authority: Authority, actor: Caller) -> Seen:
    """Whose usage: of the places where the actor is an administrator, and its own."""
    if authority.has(Role.ADMIN):
        return Seen(everything=True)
    places: Sequence[tuple[str, str]] = [
        (organization, team)
        for organization, team in authority.roles
        if authority.has(_role_for(team), organization, team)
    ]
    return Seen(places, actor.principal)


def _role_for(team: str) -> Role:
    return Role.TEAM_ADMIN if team else Role.ORG_ADMIN


def _view(question: Asked, at: int, group: Mapping[str, str], sums: Sums) -> UsageView:
    return UsageView(
        question.since if question.step == "all" else at,
        **{name: group.get(name, "") for name in _NAMES},
        calls=sums.calls,
        failed=sums.failed,
        refused=sums.refused,
        cost=amount_text(sums.cost),
        seconds=sums.micros / 1_000_000,
        slowest=sums.slowest / 1_000_000,
    )


def _budget(limit: Limit, now: float, held: Held) -> BudgetView:
    account = limit.account(now)
    amounts = map(amount_text, (limit.amount, held.spent, held.leased))
    return BudgetView(limit.where, limit.period.value, *amounts, began=account.begin, resets=account.end)
