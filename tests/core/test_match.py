"""Patterns against a reference, hostile texts, and which rule wins."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.match import EVERYTHING, Pattern, Rules, Verdict, template_pattern
from tests.calls import measured

TEXTS = st.text(alphabet="ab*.[", max_size=12)
HOSTILE = 64 * 1024


def reference(pattern: str, name: str) -> bool:
    """The same by regular expression."""
    expression = ".*".join(re.escape(piece) for piece in pattern.split("*"))
    return re.fullmatch(expression, name, re.DOTALL) is not None


@given(TEXTS, TEXTS)
def test_a_pattern_is_what_a_regular_expression_says(pattern: str, name: str) -> None:
    assert Pattern(pattern).matches(name) is reference(pattern, name)


@given(st.lists(TEXTS, min_size=1, max_size=5), st.data())
def test_a_pattern_matches_whatever_stands_for_its_stars(pieces: list[str], data: st.DataObject) -> None:
    literal = [piece.replace("*", "") for piece in pieces]
    name = literal[0] + "".join(data.draw(st.text(max_size=5)) + piece for piece in literal[1:])
    assert Pattern("*".join(literal)).matches(name)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("**", "a\nb", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*a", "aba", True),
        ("ab*ba", "aba", False),
        ("*b*", "aaa", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("a?", "ab", False),
        ("A", "a", False),
    ],
)
def test_only_a_star_is_special(pattern: str, name: str, expected: bool) -> None:
    assert Pattern(pattern).matches(name) is expected


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 128, "a" * HOSTILE),
        ("*" + "a" * 127 + "b*", "a" * HOSTILE),
        ("*b" + "a" * 127 + "*", "a" * HOSTILE),
        ("*" + "a" * 60 + "b*" + "a" * 60 + "b*", "a" * HOSTILE),
        ("*ab" * 80 + "*c*", "ab" * (HOSTILE // 2)),
        ("{/id*}{?tags*}", "/a" * (HOSTILE // 2)),
        ("{a}b" * 256, "b" * HOSTILE),
        ("{a}" + "ab" * 500 + "b{c}", "ab" * (HOSTILE // 2)),
        ("{a}" * 340, "{" * HOSTILE),
        ("{" * 1024, "{" * HOSTILE),
    ],
)
def test_no_template_and_no_uri_of_64_kilobytes_is_slow(pattern: str, name: str) -> None:
    with measured() as spent:
        template_pattern(pattern).matches(name)
        Pattern(pattern).matches(name)
    assert spent.seconds < 0.05


@pytest.mark.parametrize(
    ("template", "uri", "expected"),
    [
        ("probe://docs/{id}", "probe://docs/7", True),
        ("probe://docs/{id}", "probe://doc/7", False),
        ("probe://{+path}/x{?q,r*}", "probe://a/b/x?q=1", True),
        ("probe://fixed", "probe://fixed", True),
        ("probe://{", "probe://{", True),
        ("probe://{", "probe://7", False),
        ("{{a}}", "{x}", True),
    ],
)
def test_a_template_covers_what_it_could_expand_to(template: str, uri: str, expected: bool) -> None:
    assert template_pattern(template).matches(uri) is expected


def test_deny_wins_and_what_nothing_allows_is_denied() -> None:
    rules = Rules.from_texts(["get_*", "list_*"], ["*_secret", "get_x"])
    assert rules.judge("get_y") == Verdict(True, "allow/0")
    assert rules.judge("list_y") == Verdict(True, "allow/1")
    assert rules.judge("get_secret") == Verdict(False, "deny/0")
    assert rules.judge("get_x") == Verdict(False, "deny/1")
    assert rules.judge("put_y") == Verdict(False, "allow")
    assert Rules.from_texts([], []).judge("anything") == Verdict(False, "allow")
    assert Rules().judge("anything") == Verdict(True, "allow/0")
    assert EVERYTHING.matches("anything")


def test_a_rule_on_any_of_the_names_of_an_entry_counts() -> None:
    rules = Rules.from_texts(["docs/{id}"], ["docs/7"])
    assert rules.judge("docs/8", "docs/{id}").allowed
    assert not rules.judge("docs/7", "docs/{id}").allowed
    assert not rules.judge("docs/8").allowed


@given(st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=3), TEXTS, TEXTS)
def test_one_more_denial_never_allows_more(allow: list[str], deny: list[str], new: str, name: str) -> None:
    if Rules.from_texts(allow, [*deny, new]).judge(name).allowed:
        assert Rules.from_texts(allow, deny).judge(name).allowed
