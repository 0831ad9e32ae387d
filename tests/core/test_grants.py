"""What a rule covers: full names of the kinds it speaks of."""

import pytest

from broker.core.conditions import Condition, Op
from broker.core.grants import Rule, full_name
from broker.core.match import Pattern
from broker.core.request import Kind


def patterns(*texts: str) -> tuple[Pattern, ...]:
    return tuple(map(Pattern, texts))


SQL = ("sql", "query")


def test_full_names_have_the_key_and_the_own_name() -> None:
    assert full_name(Kind.TOOL, "sql", "query") == "sql__query"
    assert full_name(Kind.PROMPT, "sql", "a.b") == "sql__a.b"
    assert full_name(Kind.RESOURCE, "docs", "ui://rest") == "docs+ui://rest"
    assert full_name(Kind.TEMPLATE, "docs", "file:///{id}") == "docs+file:///{id}"


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [
        (Rule(), set[Kind]()),
        (Rule(servers=patterns("*")), set(Kind)),
        (Rule(servers=patterns("docs", "s*")), set(Kind)),
        (Rule(servers=patterns("docs")), set[Kind]()),
        (Rule(servers=()), set[Kind]()),
        (Rule(names={Kind.TOOL: patterns("*__query")}), {Kind.TOOL}),
        (Rule(names={Kind.TOOL: patterns("query")}), set[Kind]()),
        (Rule(names={Kind.RESOURCE: patterns("*")}), {Kind.RESOURCE}),
        (Rule(names={Kind.RESOURCE: patterns("*"), Kind.TEMPLATE: patterns("sql+*")}), {Kind.RESOURCE, Kind.TEMPLATE}),
        (Rule(servers=patterns("sql"), names={Kind.TOOL: patterns("docs__*", "sql__q*")}), {Kind.TOOL}),
        (Rule(servers=patterns("docs"), names={Kind.TOOL: patterns("*")}), set[Kind]()),
        (Rule(servers=patterns("*"), when=(Condition(("a",), Op.EXISTS, True),)), {Kind.TOOL}),
    ],
)
def test_a_rule_covers_what_its_servers_and_its_names_both_say(rule: Rule, kinds: set[Kind]) -> None:
    assert {kind for kind in Kind if rule.covers(kind, *SQL)} == kinds


def test_a_condition_names_its_argument_as_it_is_written() -> None:
    assert Condition(("filter", "database"), Op.EQUALS, "x").argument == "filter.database"
