"""The pages that are made of the code say what the code says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pages.__main__ import PAGES
from tests.pages.bounds import ROOMS, bounds
from tests.pages.faults import FAULTS, TESTS, WITHOUT_TEST, proofs

KNOWN = {fault for rows in FAULTS.values() for fault in rows}


@pytest.mark.parametrize(("path", "page"), PAGES.items(), ids=lambda one: getattr(one, "name", ""))
def test_a_page_that_is_made_of_the_code_is_up_to_date(path: Path, page: Callable[[], str]) -> None:
    assert path.read_text(encoding="utf-8") == page(), "run: python -m tests.pages"


def test_every_fault_has_a_test_or_a_reason_not_both() -> None:
    proven = {fault for proof in proofs(TESTS.rglob("test_*.py")) for fault in proof.faults}
    assert proven | set(WITHOUT_TEST) == KNOWN
    assert not proven & set(WITHOUT_TEST)


def test_every_bound_has_a_place_on_its_page() -> None:
    assert {bound.room for bound in bounds() if bound.is_one} <= set(ROOMS)
