"""A caller cannot tell whether it talks to the upstream or to the broker.

The table stands at the end of the run; `python -m tests.fidelity` prints that of all cells.
"""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Tell
from tests.fidelity.difference import difference, own
from tests.fidelity.matrix import CELLS, Cell, Matrix, Outcome, table
from tests.fidelity.names import LEGACY, MODERN, Names

PIPES = [
    Cell("stdio", caller, upstream, transport, 3)
    for caller in (LEGACY, MODERN)
    for upstream, transport in ((LEGACY, "stdio"), (MODERN, "http"))
]
"""Of the cells with a stdio front, each of which starts a broker of its own; the table has all of them."""
CHOSEN = [cell for cell in CELLS if cell.front == "http"] + PIPES


@pytest.fixture(scope="module")
async def outcome(tmp_path_factory: pytest.TempPathFactory, tell: Tell) -> AsyncIterator[Outcome]:
    matrix = Matrix(tmp_path_factory.mktemp("fidelity"))
    try:
        matrix.start()
        found = await matrix.run(CHOSEN)
        tell("fidelity", table(found))
        yield found
    finally:
        matrix.close()


@pytest.mark.parametrize("cell", CHOSEN, ids=str)
async def test_nothing_is_lost_in_between(outcome: Outcome, cell: Cell) -> None:
    titles = outcome.cells[cell]
    assert len(titles) > 40
    assert {title: rows for title, rows in titles.items() if rows} == {}


def test_a_difference_is_seen() -> None:
    left = {"a": [1, {"b": 1.0}], "c": None}
    assert difference(left, {"a": [1, {"b": 1.0}], "c": None}) == []
    assert difference(left, {"a": [1, {"b": 1}], "d": None}) == [
        ".c: null -> missing",
        ".d: added null",
        ".a[1].b: 1.0 -> 1",
    ]


def test_a_uri_that_was_not_made_public_is_seen() -> None:
    record = {"result": {"contents": [{"uri": "probe://x"}, {"uri": "key+probe://x"}]}}
    turned = own(record, Names("key"), is_one_of_many=False)
    assert [one["uri"] for one in turned["result"]["contents"]] == ["NOT PUBLIC probe://x", "probe://x"]
