"""Which era does it speak? The outcomes of the probe, one by one."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from broker.core.era import Version
from broker.errors import BrokerError, MalformedAnswer, UpstreamUnavailable
from broker.upstream import handshake
from broker.upstream.handshake import agree
from broker.upstream.peer import Peer
from broker.upstream.web import Refused
from tests.hostile.conftest import BrokerOf, Puppet
from tests.patience import PATIENCE
from tests.upstream.fakes import DISCOVERED, INITIALIZED, ScriptedLink, error, silence

MODERN, LEGACY = "2026-07-28", "2025-11-25"
PROBE, HELLO = "server/discover", "initialize"


async def nothing() -> Mapping[str, Any]:
    return {}


async def run(link: ScriptedLink, pinned: str | None = None, *, is_pipe: bool = False, **more: Any) -> Peer:
    version = Version(pinned) if pinned else None
    with anyio.fail_after(PATIENCE):
        return await agree(link, pinned=version, is_pipe=is_pipe, timeout=2, declare=nothing, **more)


UNSUPPORTED = error(-32022, {"supported": [MODERN], "requested": "x"})
OUTCOMES: dict[str, tuple[Any, str, list[str]]] = {
    "a discovery": (DISCOVERED, MODERN, [PROBE]),
    "-32022 that names the version asked for": ([UNSUPPORTED, DISCOVERED], MODERN, [PROBE, PROBE]),
    "-32022 that names it again and again": (UNSUPPORTED, LEGACY, [PROBE, PROBE, HELLO]),
    "-32022 that names an unknown version": (error(-32022, {"supported": ["2099-01-01"]}), LEGACY, [PROBE, HELLO]),
    "-32022 that names legacy versions": (error(-32022, {"supported": [LEGACY]}), LEGACY, [PROBE, HELLO]),
    "-32022 without data": (error(-32022), LEGACY, [PROBE, HELLO]),
    "-32022 with nonsense": (error(-32022, {"supported": {"a": 1}}), LEGACY, [PROBE, HELLO]),
    "method not found": (error(-32601), LEGACY, [PROBE, HELLO]),
    "invalid request": (error(-32600), LEGACY, [PROBE, HELLO]),
    "a code of its own": (error(7), LEGACY, [PROBE, HELLO]),
    "a malformed answer": (MalformedAnswer("up", "?"), LEGACY, [PROBE, HELLO]),
    "an empty result": ({}, LEGACY, [PROBE, HELLO]),
    "a discovery without versions": ({**DISCOVERED, "supportedVersions": []}, LEGACY, [PROBE, HELLO]),
    "a discovery with odd versions": ({**DISCOVERED, "supportedVersions": [[], 7]}, LEGACY, [PROBE, HELLO]),
    "a discovery without capabilities": ({"supportedVersions": [MODERN]}, LEGACY, [PROBE, HELLO]),
    "HTTP 401": (Refused("up", 401), LEGACY, [PROBE, HELLO]),
    "HTTP 429": (Refused("up", 429), LEGACY, [PROBE, HELLO]),
    "HTTP 503": (Refused("up", 503), LEGACY, [PROBE, HELLO]),
    "a time-out": (silence, LEGACY, [PROBE, HELLO]),
}


@pytest.mark.parametrize("case", list(OUTCOMES))
async def test_the_outcome_of_the_probe_decides_the_era(case: str) -> None:
    answer, version, asked = OUTCOMES[case]
    link = ScriptedLink({PROBE: answer, HELLO: INITIALIZED})
    peer = await run(link)
    assert (peer.version, link.version, link.peer) == (version, version, peer)
    assert [method for method, _ in link.asked] == asked
    assert link.told == ([] if version == MODERN else ["notifications/initialized"])
    assert peer.instructions == "hello" and peer.info["name"] == "fake"


async def test_a_version_of_ours_that_32022_names_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "MODERN_VERSIONS", (Version("2026-01-01"), Version(MODERN)))
    again = error(-32022, {"supported": ["2026-01-01"]})
    older = {**DISCOVERED, "supportedVersions": ["2026-01-01"]}
    link = ScriptedLink({PROBE: [again, older], HELLO: INITIALIZED})
    assert (await run(link)).version == "2026-01-01" and link.count(PROBE) == 2 and link.count(HELLO) == 0


async def test_on_a_pipe_silence_is_answered_with_initialize_and_the_first_answer_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handshake, "PROBE_SILENCE", 0.05)
    link = ScriptedLink({PROBE: silence, HELLO: INITIALIZED})
    assert (await run(link, is_pipe=True)).version == LEGACY
    late = anyio.Event()

    async def discovered(params: dict[str, Any]) -> dict[str, Any]:
        await late.wait()
        return DISCOVERED

    def refuse(params: dict[str, Any]) -> dict[str, Any]:
        late.set()
        return UNSUPPORTED

    link = ScriptedLink({PROBE: discovered, HELLO: refuse})
    assert (await run(link, is_pipe=True)).version == MODERN


async def test_a_silent_process_is_a_legacy_server_and_is_used(
    broker_of: BrokerOf,
    puppet: Puppet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handshake, "PROBE_SILENCE", 0.1)
    async with broker_of({"quiet": puppet({PROBE: []})}) as running:
        await running.innocent("quiet")
        assert running.upstream("quiet").link().version == LEGACY


FAILURES: dict[str, tuple[Any, Any, str | None, str]] = {
    "neither era": (error(-32601), error(-32601), None, "no"),
    "401 to both": (Refused("up", 401), Refused("up", 401), None, "HTTP 401"),
    "an unknown version": (error(-32601), {**INITIALIZED, "protocolVersion": "1999-01-01"}, None, "1999-01-01"),
    "a version that is no text": (error(-32601), {**INITIALIZED, "protocolVersion": 7}, None, "version 7"),
    "no version": (error(-32601), {"capabilities": {}}, None, "which the broker does not know"),
    "no capabilities": (error(-32601), {"protocolVersion": LEGACY}, None, "no capabilities"),
    "-32022 to both": (error(-32022), error(-32022), None, "no version that the broker knows"),
    "pinned legacy, speaks modern": (DISCOVERED, UNSUPPORTED, LEGACY, "does not speak"),
    "pinned legacy, answers another": (DISCOVERED, INITIALIZED, "2025-03-26", "which `protocol` pins"),
    "pinned modern, speaks legacy": (error(-32601), INITIALIZED, MODERN, "no"),
}


@pytest.mark.parametrize("case", list(FAILURES))
async def test_what_speaks_nothing_that_we_may_speak_is_refused_with_a_reason(case: str) -> None:
    discovered, initialized, pinned, expected = FAILURES[case]
    link = ScriptedLink({PROBE: discovered, HELLO: initialized})
    with pytest.raises(BrokerError) as refusal:
        await run(link, pinned)
    assert expected in refusal.value.message


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", LEGACY, MODERN])
async def test_a_pin_is_the_only_thing_that_is_asked(version: str) -> None:
    link = ScriptedLink({PROBE: DISCOVERED, HELLO: {**INITIALIZED, "protocolVersion": version}})
    assert (await run(link, version)).version == version
    assert [method for method, _ in link.asked] == [PROBE if version == MODERN else HELLO]


@pytest.mark.parametrize("version", ["2024-11-05", LEGACY])
async def test_sse_is_not_probed_and_may_answer_any_legacy_version(version: str) -> None:
    link = ScriptedLink({HELLO: {**INITIALIZED, "protocolVersion": version}})
    assert (await run(link, is_legacy=True)).version == version
    assert [method for method, _ in link.asked] == [HELLO]
    with pytest.raises(UpstreamUnavailable):
        await run(ScriptedLink({HELLO: UNSUPPORTED}), is_legacy=True)
