"""What an upstream receives is what its caller sent, and back: numbers, strings, order and emptiness."""

import json
import math
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.callers.caller import Caller
from tests.callers.pipe import pipe
from tests.callers.web import Web
from tests.e2e.brokers import TIMEOUT, Brokers, Json, Served, command
from tests.peers import Peers

RECORDER = Path(__file__).with_name("recorder.py")
UPSTREAMS = ["pipe", "web"]
EXAMPLES = 60

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.one_of(
    st.integers(-(10**60), 10**60),
    st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 0, -1]),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
arguments = st.dictionaries(texts, values, max_size=5)


@dataclass
class Recorded:
    """A broker in front of two recorders."""

    served: Served
    logs: dict[str, Path]
    callers: dict[str, Caller]

    async def trip(self, era: str, upstream: str, body: str) -> tuple[str, str]:
        """Send the very text `body` as arguments; what the upstream read, and what came back."""
        self.logs[upstream].write_bytes(b"")
        caller = self.callers[era]
        assert isinstance(caller, Web)
        params = caller.enveloped({"name": f"{upstream}__echo"})
        head = json.dumps({"jsonrpc": "2.0", "id": caller.next_id(), "method": "tools/call", "params": params})
        assert head.endswith("}}")
        message = f'{head[:-2]}, "arguments": {body}}}}}'
        with anyio.fail_after(TIMEOUT):
            answer = await caller.post(message.encode(), caller.headers("tools/call", params))
        read = self.logs[upstream].read_bytes().decode().split("\n")
        return read[0], answer.decode()


@pytest.fixture(scope="module")
async def recorder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorded]:
    peers = Peers(tmp_path_factory.mktemp("recorders"))
    brokers = Brokers(tmp_path_factory.mktemp("recorders-broker"))
    try:
        yield await recorded(peers, brokers)
    finally:
        brokers.close()
        peers.close()


async def recorded(peers: Peers, brokers: Brokers) -> Recorded:
    logs = {upstream: peers.directory / f"{upstream}.log" for upstream in UPSTREAMS}
    port_file = peers.directory / "recorder.url"
    argv = [sys.executable, str(RECORDER)]
    peers.spawn([*argv, "--http", "--log", str(logs["web"]), "--port-file", str(port_file)])
    with anyio.fail_after(TIMEOUT):
        while not port_file.exists():  # noqa: ASYNC110
            await anyio.sleep(0.01)
    servers: dict[str, Json] = {
        "pipe": command([*argv, "--log", str(logs["pipe"])]),
        "web": {"url": port_file.read_text(encoding="utf-8")},
    }
    served = await brokers.aserve(brokers.configure(servers))
    callers: dict[str, Caller] = {era: await Web(served.url, era).greet() for era in ("modern", "legacy")}
    return Recorded(served, logs, callers)


def exact(text: str) -> Any:
    """JSON with every number as what it denotes, so that 1 and 1.0 and a rounded one differ."""
    return json.loads(text, parse_int=lambda digits: ("int", int(digits)), parse_float=lambda digits: _float(digits))


def _float(digits: str) -> Any:
    return ("float", math.copysign(1, float(digits)), float(digits))


def check(sent: str, read: str, answer: str) -> None:
    assert exact(read) == exact(sent)
    assert list(json.loads(read)) == list(json.loads(sent)), "the order of keys"
    message = exact(answer)
    assert message["result"]["structuredContent"] == exact(sent)


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_arguments_reach_the_upstream_as_they_were_sent_and_come_back_as_it_sent_them(
    recorder: Recorded, era: str, upstream: str
) -> None:
    samples: list[str] = []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(arguments)
    def collect(value: Json) -> None:
        samples.append(json.dumps(value, ensure_ascii=len(samples) % 2 == 0))

    collect()
    for sample in samples:
        check(sample, *await recorder.trip(era, upstream, sample))


@pytest.mark.parametrize(
    "number",
    ["1e400", "-1e400", "1" * 400, "0.1234567890123456789012345678901234567890", "1E5", "-0", "-0.0", "5e-324"],
)
async def test_a_number_is_kept_or_refused_but_never_changed(recorder: Recorded, number: str) -> None:
    for era in ("modern", "legacy"):
        for upstream in UPSTREAMS:
            read, answer = await recorder.trip(era, upstream, f'{{"n": {number}}}')
            if '"error"' in answer:
                assert not read
                continue
            (kept,) = json.loads(read, parse_int=str, parse_float=str).values()
            assert float(kept) == float(number) and abs(Decimal(kept) - Decimal(number)) <= abs(
                Decimal(number) * Decimal("1e-15")
            ), (number, kept)


@pytest.mark.parametrize(
    "body", ['{"a": NaN}', '{"a": Infinity}', '{"a": "\\ud800"}', '{"a": 01}', '{"a": 1,}', '{"a": "\\x00"}']
)
async def test_what_is_no_json_never_reaches_an_upstream(recorder: Recorded, body: str) -> None:
    for era in ("modern", "legacy"):
        for upstream in UPSTREAMS:
            read, answer = await recorder.trip(era, upstream, body)
            assert "error" in json.loads(answer) and not read


async def test_the_pipe_keeps_json_as_well(peers: Peers, brokers: Brokers) -> None:
    log = peers.directory / "log"
    config = brokers.configure({"pipe": command([sys.executable, str(RECORDER), "--log", str(log)])})
    given: Json = {"": {"": [None, True, 10**59 + 7, 1.5, -0.0]}, "é\u2028\U0001f600": "\x7f\u200b\t", "e": {}, "l": []}
    async with pipe(brokers.stdio(config), "legacy") as caller:
        result = await caller.call("pipe__echo", given)
    assert json.dumps(result["structuredContent"]) == json.dumps(given)
    assert json.dumps(json.loads(log.read_text(encoding="utf-8"))) == json.dumps(given)
