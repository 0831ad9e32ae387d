"""What may be written: judged before anything is compiled, with the line of every flaw."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.guardrails import dialect, guest
from broker.guardrails.source import MAX_SOURCE, Flaw

HEAD = "def check(ctx):\n"
END = "    return {'action': 'allow'}\n"


def flaws(text: str | bytes) -> list[Flaw]:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    try:
        dialect.translate(data, guest.KNOWN_NAMES, guest.KNOWN_ATTRIBUTES)
    except dialect.NotAccepted as error:
        return error.flaws
    return []


def test_every_flaw_is_said_with_its_line_and_in_their_order() -> None:
    text = "import os\n" + HEAD + "    x = ctx.arguments\n    y = misspelt\n    _z = 1\n" + END
    assert [flaw.line for flaw in flaws(text)] == [1, 3, 4, 5]


def test_a_million_flaws_are_twenty() -> None:
    assert len(flaws(HEAD + "    a.__b\n" * 400 + END)) == dialect.MAX_PROBLEMS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "there is no function check(ctx)"),
        ("check = 1\n", "there is no function check(ctx)"),
        ("def check():\n    pass\n", "must take exactly one argument"),
        ("def check(ctx, more):\n    pass\n", "must take exactly one argument"),
        ("def check(*ctx):\n    pass\n", "must take exactly one argument"),
        ("def check(ctx=1):\n    pass\n", "must take exactly one argument"),
        (HEAD + END + HEAD + END, "defined twice"),
        ("if 1:\n    def check(ctx):\n        pass\n", "there is no function check(ctx)"),
        (HEAD + "    return 2 ** 3\n", "Pow may not be used"),
        (HEAD + "    return 1 << 3\n", "LShift may not be used"),
        (HEAD + "    return 1j\n", "complex literals"),
        (HEAD + "    return b''\n", "bytes literals"),
        (HEAD + "    return ...\n", "ellipsis literals"),
        (HEAD + "    return " + "9" * 65 + "\n", "more than 64 digits"),
        (HEAD + "    try:\n        pass\n    except:\n        pass\n", "a bare except"),
        (HEAD + "    try:\n        pass\n    finally:\n        return 1\n", "may not stand in finally"),
        ("@check\n" + HEAD + END, "decorators"),
        (HEAD + "    ctx['a'] += 1\n", "only names can be changed"),
        (HEAD + "    del ctx.a\n", "attributes cannot be set or deleted"),
        (HEAD + "    ä = 1\n", "names must be ASCII"),
        (HEAD + "    x: int = 1\n", "AnnAssign may not be used"),
        (HEAD + "    return (yield)\n", "Yield may not be used"),
        (HEAD + "  \u202e  pass\n", "U+202E may not stand"),
        (HEAD + "    x = '\x1b[2J'\n", "U+001B may not stand"),
        (b"\xff" + HEAD.encode(), "not UTF-8"),
        (HEAD + "    return (\n", "syntax:"),
        ("#" * (MAX_SOURCE + 1), "longer than"),
        (HEAD + "    x = 0\n" * 3000, "more than 5000 syntax nodes"),
        (HEAD + "    return " + "-" * 70 + "1\n", "nested deeper than 60"),
    ],
)
def test_what_may_not_be_written_is_said_in_plain_words(text: str | bytes, said: str) -> None:
    assert any(said in flaw.message for flaw in flaws(text)), flaws(text)


@pytest.mark.parametrize(
    "line",
    [
        "x, *rest = ctx['args']['a'].split(',')",
        "found = {k: v for k, v in ctx['args'].items() if isinstance(v, str) and not v.startswith('-')}",
        "pairs = sorted(zip([1, 2], [2, 1]), key=lambda pair: pair[1], reverse=True)",
        "ok = any(re2.matches(r'^--', word) for word in ctx['args'].get('argv', []))",
        "text = f'{len(ctx):>3} {ctx!r}'",
        "ctx['args']['x'] = json.loads('[1]')[0]",
        "n = 1\n    n += 2\n    n -= 1",
        "max(*[1, 2], **{})",
        "assert 1 == 1, 'no'",
        "for i, (a, b) in enumerate([(1, 2)]):\n        pass",
        "# a comment in any alphabet: ä 漢字 🙂\n    s = 'ä 漢字 🙂'",
    ],
)
def test_plain_python_over_values_may_be_written(line: str) -> None:
    assert flaws(HEAD + f"    {line}\n" + END) == []


def test_windows_line_ends_and_a_byte_order_mark_are_no_flaw() -> None:
    assert flaws(b"\xef\xbb\xbf" + (HEAD + END).replace("\n", "\r\n").encode()) == []


def test_the_transformer_stops_what_the_judge_has_missed() -> None:
    tree = ast.parse("class A:\n    pass\n")
    transformer = dialect.Dialect()
    transformer.visit(tree)
    assert transformer.errors == ["Line 1: ClassDef statements are not allowed."]


def test_no_name_and_no_attribute_that_a_guest_can_write_leads_out_of_plain_values() -> None:
    named = set(guest.KNOWN_NAMES) | set(guest.KNOWN_ATTRIBUTES)
    assert not {name for name in named if name.startswith("_")}
    assert not named & {"format", "format_map", "mro", "eval", "exec", "open", "type", "getattr", "print", "hex", "id"}
    assert all(kind.__module__ in ("builtins", "broker.guardrails.guest") for kind in guest.ATTRIBUTES)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_makes_the_judge_do_anything_but_accept_or_refuse(text: str | bytes) -> None:
    found = flaws(text)
    assert all(flaw.line >= 1 and flaw.message for flaw in found)
