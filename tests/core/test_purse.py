"""A purse: what is leased is free, reserved or spent, and nothing else, whatever happens in whatever order."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.core.amount import UNIT
from broker.core.budget import Account, Limit
from broker.core.period import Period
from broker.core.purse import Purse, block_of, is_nearly_used, settle

AMOUNTS = st.integers(0, 100)


@dataclass
class Held:
    purse: Purse


def test_a_reservation_is_settled_or_released_and_the_rest_is_free_again() -> None:
    purse = Purse()
    purse.granted(10, 0)
    assert purse.reserve(6) and not purse.reserve(5)
    settle([Held(purse)], 4, 3)
    settle([Held(purse)], 2, 0)
    assert (purse.free, purse.reserved, purse.spent, purse.amount) == (7, 0, 3, 10)
    assert purse.is_dirty
    purse.granted(10, 3)
    assert not purse.is_dirty
    assert purse.give_back() == 7
    assert purse.amount == 3


def test_what_was_reserved_in_several_purses_is_settled_in_each_of_them() -> None:
    purses = [Purse(9, 4), Purse(1, 7)]
    settle([Held(one) for one in purses], 4, 1)
    assert purses == [Purse(12, 0, 1), Purse(4, 3, 1)]


def test_what_is_spent_while_the_database_is_asked_is_still_to_be_told() -> None:
    purse = Purse()
    purse.granted(10, 0)
    purse.reserve(5)
    settle([Held(purse)], 2, 2)
    told = purse.spent
    settle([Held(purse)], 1, 1)
    purse.granted(10, told)
    assert (purse.acked, purse.spent, purse.reserved, purse.free, purse.is_dirty) == (2, 3, 2, 5, True)


def test_a_block_is_what_is_needed_or_one_per_cent_or_the_least_but_never_more_than_the_rest() -> None:
    assert block_of(10_000, 1, 10) == 100
    assert block_of(100, 1, 10) == 10
    assert block_of(100, 50, 10) == 50
    assert block_of(5, 1, 10) == 5
    assert block_of(5, 6, 10) == block_of(0, 0, 10) == block_of(-5, 0, 10) == 0


@given(st.integers(-100, 10**6), st.integers(0, 10**6), st.integers(1, 1000))
def test_a_block_is_never_more_than_the_rest_and_never_less_than_what_is_needed(
    rest: int, need: int, least: int
) -> None:
    block = block_of(rest, need, least)
    assert block == 0 or need <= block <= rest
    assert (block == 0) == (need > rest or rest <= 0)


def test_eighty_per_cent_are_nearly_all_and_of_nothing_there_is_no_part() -> None:
    assert is_nearly_used(80, 100) and is_nearly_used(200, 100)
    assert not is_nearly_used(79, 100)
    assert not is_nearly_used(0, 0)


def test_a_budget_has_an_account_for_each_period_and_a_name_for_all() -> None:
    limit = Limit("team:acme/data", Period.DAY, 5 * UNIT)
    assert limit.rule == "team:acme/data/budget/day"
    account = limit.account(90_000.0)
    assert account == Account("team:acme/data", Period.DAY, 86_400)
    assert account.end == 172_800


class Spent(RuleBasedStateMachine):
    """Two purses of one budget, and a database whose answers get lost and whose leases end."""

    LIMIT = 100

    def __init__(self) -> None:
        super().__init__()
        self.purses = [Purse(), Purse()]
        self.open: list[list[int]] = [[], []]
        self.leases = [(0, 0), (0, 0)]
        """Amount and spent, as the database has them."""
        self.is_late = [False, False]
        """Whose lease has ended without its knowledge: what it reserves from here on is its own risk."""

    def tell(self, who: int, need: int, *, gives_back: bool = False) -> tuple[int, int]:
        """What the ledger does."""
        purse = self.purses[who]
        if gives_back or self.is_late[who]:
            purse.give_back()
        amount = max(purse.spent + purse.reserved, 0 if gives_back else self.leases[who][0])
        rest = self.LIMIT - self.leases[1 - who][0] - amount
        self.leases[who] = (amount + (block_of(rest, need, 5) if need else 0), purse.spent)
        self.is_late[who] = False
        return self.leases[who]

    @rule(who=st.integers(0, 1), need=AMOUNTS, gives_back=st.booleans(), is_lost=st.booleans())
    def ask(self, who: int, need: int, gives_back: bool, is_lost: bool) -> None:
        answer = self.tell(who, need, gives_back=gives_back)
        if not is_lost:
            self.purses[who].granted(*answer)

    @rule(who=st.integers(0, 1), amount=AMOUNTS)
    def reserve(self, who: int, amount: int) -> None:
        if not self.is_late[who] and self.purses[who].reserve(amount):
            self.open[who].append(amount)

    @rule(who=st.integers(0, 1), part=st.integers(0, 100))
    def settle(self, who: int, part: int) -> None:
        if self.open[who]:
            amount = self.open[who].pop(0)
            settle([Held(self.purses[who])], amount, amount * part // 100)

    @rule(who=st.integers(0, 1))
    def release(self, who: int) -> None:
        if self.open[who]:
            settle([Held(self.purses[who])], self.open[who].pop(), 0)

    @rule(who=st.integers(0, 1))
    def end_lease_of_idle(self, who: int) -> None:
        """Nothing is reserved in it, and all that was spent is known: a broker that rests."""
        if not self.purses[who].reserved and not self.purses[who].is_dirty:
            self.leases[who] = (self.leases[who][1], self.leases[who][1])
            self.is_late[who] = True

    @invariant()
    def no_more_is_held_than_there_is(self) -> None:
        for purse, held in zip(self.purses, self.open, strict=True):
            assert min(purse.free, purse.reserved, purse.spent) >= 0
            assert purse.acked <= purse.spent
            assert purse.reserved == sum(held)
        assert sum(amount for amount, _ in self.leases) <= self.LIMIT
        assert sum(purse.spent + purse.reserved for purse in self.purses) <= self.LIMIT

    def teardown(self) -> None:
        """After one more word of each the database knows all that was spent, once."""
        for who in range(2):
            self.purses[who].granted(*self.tell(who, 0))
            assert self.leases[who][1] == self.purses[who].spent == self.purses[who].acked


TestSpent = Spent.TestCase
TestSpent.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_purses_are_values_that_compare() -> None:
    assert replace(Purse(), free=1) == Purse(1)
