"""What an upstream says of itself is cleaned where it is for reading, and left alone where it is for machines."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.cleaning import MAX_DESCRIPTION, MAX_TITLE, clean, clean_item, cut
from tests.calls import measured

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["description", "title", "properties", "enum", "items", "$defs", "name", "default"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ITEM = st.dictionaries(
    st.sampled_from(
        [
            *("name", "title", "description", "inputSchema", "outputSchema", "annotations", "icons", "arguments"),
            *("_meta", "uri", "x"),
        ]
    ),
    JSON,
    max_size=6,
)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("Grüße, 漢字 🙂\tok\n", "Grüße, 漢字 🙂\tok\n"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x1b[8mhidden\x1b[0m", "hidden"),
        ("\x1b[1;31mred\x1b[m \x9b2Jx", "red x"),
        ("\x1b]8;;https://evil.example\x07click\x1b]8;;\x1b\\", "click"),
        ("\x1b]52;c;Y2xpcA==\x07copy", "copy"),
        ("\x9d0;title\x9cafter", "after"),
        ("\x1bcreset \x1b(Bx", "reset x"),
        ("end\x1b", "end"),
        ("end\x1b[", "end"),
        ("a\u202eb\u2066c\u200bd\ufeffe\u00adf", "abcdef"),
        ("tag\U000e0041\U000e007f", "tag"),
        ("nul\x00 bell\x07 del\x7f c1\x85", "nul bell del c1"),
        ("lone \ud800", "lone "),
    ],
)
def test_I39_I40_invisible_characters_and_terminal_sequences_are_taken_out(text: str, seen: str) -> None:
    assert clean(text) == seen


@given(st.text())
def test_cleaning_is_done_once_for_all(text: str) -> None:
    once = clean(text)
    assert clean(once) == once and len(once) <= len(text)


def test_a_hostile_text_is_cleaned_in_linear_time() -> None:
    for text in ("\x1b[" * 500_000, "\x1b]" * 500_000, "\x1b[" + "0" * 1_000_000, "\x1b]" + "x" * 1_000_000):
        with measured() as spent:
            clean(text)
        assert spent.seconds < 1


EVIL = "good\u202e\x1b[8m"


def test_every_text_for_reading_in_a_definition_is_cleaned_and_said() -> None:
    tool = {
        "name": "t\u202e",
        "title": EVIL,
        "description": EVIL,
        "annotations": {"title": EVIL, "readOnlyHint": True},
        "inputSchema": {
            "type": "object",
            "description": EVIL,
            "properties": {
                "description": {"type": "string", "description": EVIL},
                "enum": {"title": EVIL},
                "a": {"anyOf": [{"description": EVIL}, True], "default": {"description": EVIL}, "enum": [EVIL]},
            },
            "$defs": {"default": {"description": EVIL}},
            "pattern": EVIL,
        },
        "outputSchema": {"items": {"title": EVIL}},
        "_meta": {"description": EVIL},
    }
    cleaned, said = clean_item(tool, has_own_name=False)
    assert cleaned == {
        "name": "t\u202e",
        "title": "good",
        "description": "good",
        "annotations": {"title": "good", "readOnlyHint": True},
        "inputSchema": {
            "type": "object",
            "description": "good",
            "properties": {
                "description": {"type": "string", "description": "good"},
                "enum": {"title": "good"},
                "a": {"anyOf": [{"description": "good"}, True], "default": {"description": EVIL}, "enum": [EVIL]},
            },
            "$defs": {"default": {"description": "good"}},
            "pattern": EVIL,
        },
        "outputSchema": {"items": {"title": "good"}},
        "_meta": {"description": EVIL},
    }
    assert said == (
        "title: invisible characters taken out",
        "description: invisible characters taken out",
        "annotations.title: invisible characters taken out",
        "inputSchema: a description: invisible characters taken out",
        "inputSchema: a title: invisible characters taken out",
        "outputSchema: a title: invisible characters taken out",
    )


def test_what_only_looks_like_a_definition_passes_as_it_is() -> None:
    tool = {
        "name": "t",
        "description": 7,
        "arguments": ["a", {"name": "b", "description": None}],
        "icons": [{"src": 7}],
    }
    cleaned, said = clean_item(tool, has_own_name=False)
    assert cleaned == {**tool, "icons": []}
    assert said == ("icons: 1 left out, which are neither https: nor an image",)


def test_a_name_is_for_reading_only_where_a_uri_identifies() -> None:
    item = {"uri": "x\u202e", "name": EVIL}
    assert clean_item(item, has_own_name=True)[0] == {"uri": "x\u202e", "name": "good"}
    assert clean_item(item, has_own_name=False) == (item, ())


def test_arguments_of_a_prompt_keep_their_names() -> None:
    prompt = {"name": "p", "arguments": [{"name": EVIL, "title": EVIL, "description": EVIL, "required": True}, "x"]}
    assert clean_item(prompt, has_own_name=False) == (
        {"name": "p", "arguments": [{"name": EVIL, "title": "good", "description": "good", "required": True}, "x"]},
        ("arguments.title: invisible characters taken out", "arguments.description: invisible characters taken out"),
    )


def test_SP55_icons_are_https_or_images() -> None:
    good: list[Any] = [
        {"src": "https://x.example/i.png"},
        {"src": "HTTPS://x.example"},
        {"src": "data:image/png;base64,AA=="},
        {"src": "data:image/svg+xml,<svg/>"},
    ]
    bad: list[Any] = [
        {"src": "http://x.example/i.png"},
        {"src": "javascript:alert(1)"},
        {"src": "file:///etc/passwd"},
        {"src": "data:text/html,<script>"},
        {"src": " https://x.example"},
        {"src": 1},
        {},
        "https://x.example",
    ]
    cleaned, said = clean_item({"name": "t", "icons": [*good, *bad]}, has_own_name=False)
    assert cleaned["icons"] == good
    assert said == ("icons: 8 left out, which are neither https: nor an image",)


def test_long_texts_are_cut_and_it_is_said() -> None:
    item = {"name": "t", "title": "x" * 300, "description": "word " * 2000}
    cleaned, said = clean_item(item, has_own_name=False)
    assert len(cleaned["title"]) <= MAX_TITLE and len(cleaned["description"]) <= MAX_DESCRIPTION
    assert cleaned["description"].endswith("[cut: 10000 characters, 4096 shown]")
    assert said == ("title: cut to 256 characters", "description: cut to 4096 characters")
    assert cut("abc", 2) == "[c"


@given(ITEM, st.booleans())
def test_any_definition_can_be_cleaned_and_only_what_is_said_changes(item: dict[str, Any], has_own_name: bool) -> None:
    cleaned, said = clean_item(item, has_own_name=has_own_name)
    assert (cleaned is item) is (said == ())
    assert cleaned.keys() == item.keys()
    assert clean_item(cleaned, has_own_name=has_own_name) == (cleaned, ())


def test_what_is_fine_is_the_same_object() -> None:
    icons = [{"src": "https://example.com/a.png"}]
    schema = {"type": "object", "properties": {"a": {"title": "A"}}}
    tool = {"name": "t", "description": "fine", "inputSchema": schema, "icons": icons}
    assert clean_item(tool, has_own_name=False)[0] is tool
