"""Whatever comes is taken, or refused in the way that is said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.edges import EDGES
from tests.fuzz.examples import at_least

SEEDS = [
    b"",
    b"{}",
    b'{"a":1e999}',
    b"data: x\n\n",
    b"=?base64?YQ==?=",
    b"servers: {a: {command: x}}",
    b"\0\x05HTTP/1.1 200 OK",
]


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_edge_takes_what_others_send(edge: str, seed: bytes) -> None:
    EDGES[edge](seed)


@pytest.mark.parametrize("edge", sorted(EDGES.keys() - {"answer", "configuration"}))
@settings(max_examples=at_least(50), deadline=None)
@given(data=st.binary(max_size=60))
def test_each_edge_takes_any_bytes(edge: str, data: bytes) -> None:
    EDGES[edge](data)
