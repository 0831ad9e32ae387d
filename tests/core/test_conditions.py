"""Conditions on arguments: what they say of a call, and whether any call could pass, against brute force."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import satisfy
from broker.core.conditions import Condition, Op, Scalar, is_in
from broker.core.domain import GREATEST, Domain, Numbers, Plain, Texts
from broker.core.satisfy import Clause, TooComplex, can_all_hold, can_hold
from tests.calls import measured

ABSENT = Plain.ABSENT
DOUBT = object()


def allows(condition: Condition, value: Any) -> bool:
    """What the documentation says of an allow rule, in the plainest words: `value` may be ABSENT or DOUBT."""
    if value is DOUBT:
        return False
    if condition.op is Op.EXISTS:
        return value is not None and (value is not ABSENT) is condition.value
    return value is not ABSENT and speaks_of(condition, value) and compares(condition, value)


def denies(condition: Condition, value: Any) -> bool:
    """The same of a deny rule."""
    if value is DOUBT:
        return True
    if condition.op is Op.EXISTS:
        return value is None or (value is not ABSENT) is condition.value
    if value is ABSENT:
        return condition.op is Op.NOT_IN
    return not speaks_of(condition, value) or compares(condition, value)


def word(value: Any) -> str:
    if value is None or isinstance(value, bool | dict | list | str):
        return type(value).__name__
    return "number"


def values(condition: Condition) -> tuple[Scalar, ...]:
    return condition.value if isinstance(condition.value, tuple) else (condition.value,)


def speaks_of(condition: Condition, value: Any) -> bool:
    return word(value) in {word(one) for one in values(condition)}


def compares(condition: Condition, value: Any) -> bool:
    among = any(word(one) == word(value) and one == value for one in values(condition))
    match condition.op:
        case Op.EQUALS | Op.IN:
            return among
        case Op.NOT_IN:
            return not among
        case Op.PREFIX:
            return value.startswith(condition.value)
        case Op.MIN:
            return value >= condition.value
        case _:
            return value <= condition.value


def at(arguments: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(arguments, dict):
            return DOUBT
        if key not in arguments:
            return ABSENT
        arguments = arguments[key]
    return arguments


TEXTS = ["", "p", "pq", "x"]
NUMBERS: list[Scalar] = [0, 1, 1.0, 2, 1.5]
SCALARS: list[Scalar] = [None, True, False, *TEXTS, *NUMBERS]
LEAVES: list[Any] = [ABSENT, *SCALARS, {}, [], "pz", "z", -1, 0.5, 1.25, 3]
"""Enough to stand for every class of values that conditions over the small ones can tell apart."""
PATHS = [("a",), ("b",), ("a", "b"), ("a", "c")]


@st.composite
def conditions(draw: st.DrawFn, paths: list[tuple[str, ...]] = PATHS) -> Condition:
    op = draw(st.sampled_from(list(Op)))
    match op:
        case Op.EXISTS:
            value: Any = draw(st.booleans())
        case Op.EQUALS:
            value = draw(st.sampled_from(SCALARS))
        case Op.IN | Op.NOT_IN:
            value = tuple(draw(st.lists(st.sampled_from(SCALARS), max_size=3)))
        case Op.PREFIX:
            value = draw(st.sampled_from(TEXTS))
        case _:
            value = draw(st.sampled_from(NUMBERS))
    return Condition(draw(st.sampled_from(paths)), op, value)


def some_arguments() -> Iterator[Any]:
    """Every object over two arguments, one of which may be an object over two."""

    def build(**given: Any) -> dict[str, Any]:
        return {key: value for key, value in given.items() if value is not ABSENT}

    for a, b in itertools.product(LEAVES, LEAVES):
        yield build(a=a, b=b)
    for inner, c, b in itertools.product(LEAVES, LEAVES, LEAVES):
        yield build(a=build(b=inner, c=c), b=b)


ARGUMENTS = list(some_arguments())


def class_of(value: Any) -> Any:
    """Conditions cannot tell one object from another; 1 is 1.0, and true is neither."""
    return DOUBT if value is DOUBT else (word(value), value if value.__hash__ else None)


Classes = dict[Any, tuple[Any, int]]
"""By class of values: one of them, and the set (as bits) of `ARGUMENTS` that have such a one."""


def classes_at(path: tuple[str, ...]) -> Classes:
    found: Classes = {}
    for index, arguments in enumerate(ARGUMENTS):
        value = at(arguments, path)
        _, bits = found.get(class_of(value), (value, 0))
        found[class_of(value)] = (value, bits | 1 << index)
    return found


CLASSES = {path: classes_at(path) for path in PATHS}
ALL_ARGUMENTS = (1 << len(ARGUMENTS)) - 1


def where(condition: Condition, *, denies_it: bool) -> int:
    """The set of `ARGUMENTS` for which a condition holds."""
    judge = denies if denies_it else allows
    return sum(bits for value, bits in CLASSES[condition.path].values() if judge(condition, value))


def where_all(rule: list[Condition], *, denies_it: bool) -> int:
    found = ALL_ARGUMENTS
    for one in rule:
        found &= where(one, denies_it=denies_it)
    return found


@given(conditions(), st.sampled_from(ARGUMENTS))
def test_a_condition_says_of_a_call_what_is_documented(condition: Condition, arguments: Any) -> None:
    value = at(arguments, condition.path)
    assert is_in(condition.allowed, arguments, condition.path) is allows(condition, value)
    assert is_in(condition.spared, arguments, condition.path) is not denies(condition, value)


def alternatives(rule: list[Condition], *, deny: bool) -> Clause:
    if deny:
        return [{one.path: one.spared} for one in rule]
    demands: dict[tuple[str, ...], Domain] = {}
    for one in rule:
        demands[one.path] = demands[one.path] & one.allowed if one.path in demands else one.allowed
    return [demands]


RULES = st.lists(conditions(), min_size=1, max_size=3)


@settings(max_examples=300)
@given(allow=st.lists(st.lists(RULES, min_size=1, max_size=2), max_size=2), deny=st.lists(RULES, max_size=4))
def test_a_call_could_pass_iff_there_is_one_that_passes(
    allow: list[list[list[Condition]]], deny: list[list[Condition]]
) -> None:
    passing = ALL_ARGUMENTS
    for level in allow:
        allowed = 0
        for rule in level:
            allowed |= where_all(rule, denies_it=False)
        passing &= allowed
    for rule in deny:
        passing &= ~where_all(rule, denies_it=True)
    levels = [[one for rule in level for one in alternatives(rule, deny=False)] for level in allow]
    clauses = [*levels, *(alternatives(rule, deny=True) for rule in deny)]
    assert can_all_hold(clauses) is (passing != 0)


NEAR = math.nextafter(1.0, 2.0)


@pytest.mark.parametrize(
    ("numbers", "is_empty"),
    [
        (Numbers(), False),
        (Numbers(low=1, high=1), False),
        (Numbers(low=1, high=1, but=frozenset({1.0})), True),
        (Numbers(low=2, high=1), True),
        (Numbers(low=1, high=NEAR, but=frozenset({1})), False),
        (Numbers(low=1, high=NEAR, but=frozenset({1, NEAR})), True),
        (Numbers(low=2**53, high=2**53 + 2, but=frozenset({2**53, 2**53 + 2})), False),
        (Numbers(low=2**53, high=2**53 + 1, but=frozenset({2**53, 2**53 + 1})), True),
        (Numbers(low=2**53 + 1, high=2**53 + 2, but=frozenset({2**53 + 1})), False),
        (Numbers(low=GREATEST, but=frozenset({GREATEST})), True),
        (Numbers(low=10**70, high=10**70 + 1, but=frozenset({10**70})), True),
        (Numbers(frozenset({1, 2})) & Numbers(low=3), True),
        (Numbers(low=3) & Numbers(frozenset({1, 3})), False),
    ],
)
def test_an_interval_is_empty_iff_json_has_no_number_in_it(numbers: Numbers, is_empty: bool) -> None:
    assert numbers.is_empty is is_empty


@pytest.mark.parametrize(
    ("texts", "is_empty"),
    [
        (Texts(prefix="a") & Texts(prefix="ab"), False),
        (Texts(prefix="a") & Texts(prefix="b"), True),
        (Texts(prefix="ab", but_prefixes=frozenset({"a"})), True),
        (Texts(prefix="a", but_prefixes=frozenset({"ab"}), but=frozenset({"a"})), False),
        (Texts(but_prefixes=frozenset({""})), True),
        (Texts(frozenset({"ab"})) & Texts(but_prefixes=frozenset({"a"})), True),
        (Texts(but=frozenset({"x"})) & Texts(frozenset({"x", "y"})), False),
    ],
)
def test_texts_are_empty_iff_none_is_left(texts: Texts, is_empty: bool) -> None:
    assert texts.is_empty is is_empty


@pytest.mark.parametrize(
    ("op", "value"),
    [
        (Op.EXISTS, 1),
        (Op.EXISTS, None),
        (Op.EQUALS, ("x",)),
        (Op.EQUALS, math.nan),
        (Op.EQUALS, 10**400),
        (Op.IN, "x"),
        (Op.IN, (("x",),)),
        (Op.NOT_IN, ({},)),
        (Op.PREFIX, 1),
        (Op.MIN, True),
        (Op.MIN, "1"),
        (Op.MAX, math.inf),
    ],
)
def test_a_value_that_does_not_fit_is_refused(op: Op, value: Any) -> None:
    with pytest.raises(ValueError, match="cannot ask that"):
        Condition(("a",), op, value)


def test_a_condition_needs_a_path() -> None:
    with pytest.raises(ValueError, match="cannot ask that"):
        Condition((), Op.EXISTS, True)
    assert Condition(("filter", "database"), Op.EXISTS, True).argument == "filter.database"


def test_one_argument_cannot_be_two_things() -> None:
    def demand(*those: Condition) -> bool:
        return can_hold({one.path: one.allowed for one in those})

    text = Condition(("a",), Op.EQUALS, "x")
    assert demand(text) and is_in(text.allowed, {"a": "x"}, ("a",))
    assert not demand(text, Condition(("a", "b"), Op.EXISTS, True)), "what is a text has nothing below it"
    assert not demand(text, Condition(("a", "b"), Op.EXISTS, False)), "nor is that sure: a server may parse it"
    assert demand(Condition(("a",), Op.EXISTS, False), Condition(("a", "b"), Op.EXISTS, False))
    assert demand(Condition(("a",), Op.EXISTS, True), Condition(("a", "b"), Op.EXISTS, False))
    assert not demand(Condition(("a",), Op.EXISTS, False), Condition(("a", "b"), Op.EXISTS, True))


def flag(number: int, value: bool) -> dict[tuple[str, ...], Domain]:
    return {(f"v{number}",): Condition((f"v{number}",), Op.EQUALS, value).allowed}


def test_rules_that_would_hold_the_broker_are_given_up_in_bounded_time() -> None:
    """No pigeon fits: eight of them into seven holes, the classic that every search is slow on."""
    holes, pigeons = range(7), range(8)
    somewhere: list[Clause] = [[flag(pigeon * 10 + hole, True) for hole in holes] for pigeon in pigeons]
    not_both: list[Clause] = [
        [flag(one * 10 + hole, False), flag(two * 10 + hole, False)]
        for hole in holes
        for one, two in itertools.combinations(pigeons, 2)
    ]
    with measured() as spent, pytest.raises(TooComplex):
        can_all_hold([*somewhere, *not_both])
    assert spent.seconds < 0.5


def test_any_number_of_rules_without_a_choice_is_no_search() -> None:
    clauses: list[Clause] = [[flag(number, True)] for number in range(satisfy.MAX_STEPS + 100)]
    assert can_all_hold(clauses) and can_all_hold([])
    assert not can_all_hold([*clauses, [flag(3, False)]])
    assert not can_all_hold([[]])


VALUES = [Plain.ABSENT, None, True, "prod", "production", "dev", 0, 1, 5, 9, {}, []]
SPARED = [
    (Condition(("a",), Op.EXISTS, True), [Plain.ABSENT]),
    (Condition(("a",), Op.EXISTS, False), [True, "prod", "production", "dev", 0, 1, 5, 9, {}, []]),
    (Condition(("a",), Op.EQUALS, "prod"), [Plain.ABSENT, "production", "dev"]),
    (Condition(("a",), Op.IN, ("prod", 1)), [Plain.ABSENT, "production", "dev", 0, 5, 9]),
    (Condition(("a",), Op.NOT_IN, ("prod", 1)), ["prod", 1]),
    (Condition(("a",), Op.PREFIX, "prod"), [Plain.ABSENT, "dev"]),
    (Condition(("a",), Op.MIN, 5), [Plain.ABSENT, 0, 1]),
    (Condition(("a",), Op.MAX, 5), [Plain.ABSENT, 9]),
]
ALLOWED = [
    (Condition(("a",), Op.PREFIX, "prod"), ["prod", "production"]),
    (Condition(("a",), Op.MIN, 5), [5, 9]),
    (Condition(("a",), Op.MAX, 5), [0, 1, 5]),
]


@pytest.mark.parametrize(("condition", "expected"), SPARED)
def test_a_deny_rule_surely_spares_these(condition: Condition, expected: list[Any]) -> None:
    assert [value for value in VALUES if condition.spared.has(value)] == expected


@pytest.mark.parametrize(("condition", "expected"), ALLOWED)
def test_an_allow_rule_surely_lets_these_through(condition: Condition, expected: list[Any]) -> None:
    assert [value for value in VALUES if condition.allowed.has(value)] == expected


def test_a_list_is_cut_by_a_range_from_either_side() -> None:
    few, begins = Texts(frozenset({"ab", "b"})), Texts(prefix="a")
    assert few & begins == begins & few == Texts(frozenset({"ab"}))
    some, low = Numbers(frozenset({1, 7})), Numbers(high=5)
    assert some & low == low & some == Numbers(frozenset({1}))
    assert low & Numbers(low=3, but=frozenset({4})) == Numbers(None, 3, 5, frozenset({4}))
