"""Values that a header cannot carry as they are: what is encoded comes back, and no two spellings mean the same."""

import base64

from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.core.headers import decoded, encoded
from tests.fuzz.examples import at_least

LIKE_ENCODED = st.builds("=?base64?{}?=".format, st.text(alphabet="QUJD+/=_- \n", max_size=12))
TEXTS = st.text(max_size=30) | LIKE_ENCODED


@settings(max_examples=at_least(150), deadline=None)
@given(TEXTS)
@example("")
@example("a\r\nX-Admin: 1")
@example("=?base64?YQ==?=")
@example("\x00")
def test_any_text_becomes_one_line_of_ascii_and_comes_back(text: str) -> None:
    header = encoded(text)
    assert header.isascii() and header.isprintable() and header.strip(" ") == header
    assert decoded(header) == text


@settings(max_examples=at_least(150), deadline=None)
@given(TEXTS, TEXTS)
@example("=?base64?YQ==?=", "a")
@example("=?base64?YR==?=", "=?base64?YQ==?=")
def test_two_headers_that_differ_never_mean_the_same(one: str, other: str) -> None:
    """But for a value that is plain, and its own encoding, of which the message says only one."""
    meanings = decoded(one), decoded(other)
    if one != other and meanings[0] is not None and meanings[0] == meanings[1]:
        assert {one, other} <= {meanings[0], f"=?base64?{_base64(meanings[0])}?="}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
