"""A secret is seen by nobody but the caller of `reveal`."""

import copy
import os
import pickle
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import BadReferenceError, Secret, Sources, expand, reveal
from broker.config.secret import MAX_SECRET_FILE

SOURCES = Sources({"TOKEN": "hunter2", "EMPTY": "", "NESTED": "${env:TOKEN}"})
PRINTABLE = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(deadline=None)
@given(before=PRINTABLE, value=PRINTABLE, after=PRINTABLE)
def test_what_a_reference_brings_in_arrives_unchanged_and_makes_the_whole_a_secret(
    before: str, value: str, after: str
) -> None:
    text = f"{before.replace('$', '')}${{env:X}}{after.replace('$', '')}"
    expanded = expand(text, Sources({"X": value}))
    assert isinstance(expanded, Secret)
    assert expanded.reveal() == before.replace("$", "") + value + after.replace("$", "")


@settings(deadline=None)
@given(text=PRINTABLE)
def test_an_escaped_text_comes_back_as_it_was_and_is_no_secret(text: str) -> None:
    plain = text.replace("$", "")
    assert expand(f"{plain}$${{env:X}}", SOURCES) == plain + "${env:X}"


@settings(deadline=None)
@given(text=st.text(alphabet="${}:-env file/TOKENX", max_size=60))
def test_any_text_expands_or_is_a_bad_reference(text: str) -> None:
    try:
        assert isinstance(expand(text, SOURCES), str | Secret)
    except BadReferenceError as error:
        assert error.faults


@settings(deadline=None)
@given(value=st.text(alphabet="QZX9", min_size=6, max_size=12))
def test_no_view_of_a_secret_shows_it(value: str) -> None:
    secret = Secret(value)
    views = [str(secret), repr(secret), f"{secret}", f"{secret:>60}", repr([secret]), "%s %r" % (secret, secret)]  # noqa: UP031
    assert not any(value in view for view in views)


def test_a_secret_cannot_be_pickled_or_hashed_and_its_copy_is_itself() -> None:
    secret = Secret("hunter2")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(secret, protocol)
    with pytest.raises(TypeError):
        hash(secret)
    with pytest.raises(TypeError):
        secret.__getstate__()
    assert copy.copy(secret) is copy.deepcopy(secret) is secret


def test_secrets_are_equal_by_text_and_never_equal_to_a_text() -> None:
    assert Secret("\ud800a") == Secret("\ud800a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert reveal("a") == reveal(Secret("a")) == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${env:TOKEN}", "hunter2"),
        ("${env:NOPE:-x:-y}", "x:-y"),
        ("${env:EMPTY:-x}", "x"),
        ("a${env:EMPTY}b", "ab"),
        ("${env:NESTED}", "${env:TOKEN}"),
        ("$$${env:TOKEN}", "$${env:TOKEN}"),
        ("$$$${env:TOKEN}", "$$${env:TOKEN}"),
    ],
)
def test_references_are_expanded_once(text: str, expected: str) -> None:
    assert reveal(expand(text, SOURCES)) == expected


@pytest.mark.parametrize(
    "text", ["${hunter2}", "${env:}", "${env:a-hunter2}", "${env:A:-${env:hunter2}}", "${hunter2", "${file:hunter2}"]
)
def test_a_bad_reference_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(BadReferenceError) as caught:
        expand(text, SOURCES)
    assert "hunter2" not in "".join(fault.message + fault.remedy for fault in caught.value.faults)


def test_every_bad_reference_of_a_text_is_named() -> None:
    with pytest.raises(BadReferenceError) as caught:
        expand("${env:ONE} ${env:TWO} ${env:TOKEN}", SOURCES)
    assert [fault.message.split()[3] for fault in caught.value.faults] == ["ONE", "TWO"]


@pytest.mark.parametrize(("raw", "text"), [(b"k\n", "k"), (b"k\r\n", "k"), (b"k\n\n", "k\n"), (b" k", " k"), (b"", "")])
def test_a_file_loses_one_line_end(tmp_path: Path, raw: bytes, text: str) -> None:
    (tmp_path / "key").write_bytes(raw)
    assert reveal(expand(f"${{file:{tmp_path}/key}}", SOURCES)) == text
    assert reveal(expand("${file:~/key}", Sources({"HOME": str(tmp_path)}))) == text


def test_a_file_that_is_large_or_binary_or_missing_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (MAX_SECRET_FILE + 1))
    (tmp_path / "binary").write_bytes(b"hunter2\xff")
    os.mkfifo(tmp_path / "fifo")
    for name in ("large", "binary", "missing", "fifo", "."):
        with pytest.raises(BadReferenceError) as caught:
            expand(f"${{file:{tmp_path}/{name}}}", SOURCES)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.faults[0].__context__)
        assert "hunter2" not in shown
    (tmp_path / "large").write_bytes(b"x" * MAX_SECRET_FILE)
    assert len(reveal(expand(f"${{file:{tmp_path}/large}}", SOURCES))) == MAX_SECRET_FILE
