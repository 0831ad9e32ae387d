"""What is counted of whom, and how it adds up."""

from hypothesis import given
from hypothesis import strategies as st

from broker.core.caller import Caller
from broker.core.catalog import Entry
from broker.core.request import Kind
from broker.core.tally import MAX_NAME, Sums, Use

CALLER = Caller("key:acme/data/ci", "acme", "data", "ci")
SUMS = st.builds(Sums, *[st.integers(0, 10**12)] * 6)


def together(those: list[Sums]) -> Sums:
    found = Sums()
    for one in those:
        found.add(one)
    return found


def test_tools_and_prompts_are_told_apart_and_resources_of_a_server_are_not() -> None:
    def use(kind: Kind, own: str) -> Use:
        return Use.of(CALLER, Entry(kind, f"sql__{own}", "sql", own))

    assert use(Kind.TOOL, "query") == Use("acme", "data", "key:acme/data/ci", "sql", "tools", "query")
    assert use(Kind.PROMPT, "p" * 1000).name == "p" * MAX_NAME
    for kind in (Kind.RESOURCE, Kind.TEMPLATE):
        assert use(kind, "file:///secret").name == ""


def test_sums_add_up_but_the_slowest_is_one() -> None:
    assert together([Sums(1, 2, 3, 4, 5, 6), Sums(10, 20, 30, 40, 50, 5)]) == Sums(11, 22, 33, 44, 55, 6)
    assert together([]) == Sums()


@given(st.lists(SUMS), st.lists(SUMS))
def test_in_which_order_they_are_added_does_not_matter(some: list[Sums], others: list[Sums]) -> None:
    both = together([together(some), together(others)])
    assert both == together([*others, *some])
