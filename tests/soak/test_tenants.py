"""No organization ever gets a byte of another one (I-42), and what is hidden sounds like what is not there."""

import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tell
from tests.downstream.desk import bearer, desk
from tests.downstream.raw_http import Client, modern, modern_headers
from tests.soak.tenants import Findings, asks, canary, directory_of, soak, upstream

SECONDS = 6
ROUNDS = 20
"""Of the comparison, so that the times mean something."""


async def test_I42_no_organization_gets_a_byte_of_another(tmp_path: Path, tell: Tell) -> None:
    findings = await soak(tmp_path, tenants=4, seconds=SECONDS, seed=7)
    tell("tenants", findings.text())
    assert findings.foreign == []
    assert findings.own > 100
    assert {where.partition(" ")[0] for where in findings.asked} == {"modern", "legacy", "sse"}


def test_a_foreign_canary_is_found() -> None:
    findings = Findings()
    findings.read(1, "x", f"{canary(1)} {canary(12)}".encode())
    assert (findings.own, len(findings.foreign)) == (1, 1)


async def test_I13_what_is_hidden_sounds_like_what_is_not_there_on_every_method_and_reaches_nobody(
    tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same path: no upstream and no store is touched for either. The times are told, not judged."""
    opened: list[Any] = []
    fakes = {name: upstream(int(name[1])) for name in ("s0-0", "s0-1", "s0-2", "s1-0")}
    async with desk(tmp_path, fakes) as found:
        text = found.key(10, "org0")
        found.broker.generation.adopt(directory_of(found, 2))
        monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: opened.append(given))
        client = Client(found.front.client.port)
        client.base += bearer(text)
        session = await client.open_session()
        times: dict[str, list[float]] = {"hidden": [], "unknown": []}
        pairs = [pair for pair in zip(asks("s1-0"), asks("s9-0"), strict=True) if "s1-0" in repr(pair)]
        for number in range(ROUNDS * len(pairs)):
            pair = pairs[number % len(pairs)]
            named = list(zip(("hidden", "unknown"), pair, strict=True))
            for era in ("modern", "legacy"):
                said: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}
                # Each is the first in half of the rounds: what comes second finds everything warm.
                for what, (method, params) in named if number // len(pairs) % 2 else reversed(named):
                    body = modern(method, params)
                    headers = [] if method.startswith("tasks/") else modern_headers(body)
                    before = time.perf_counter()
                    if era == "legacy":
                        reply = await session.ask(method, params)
                    else:
                        reply = await client.post(body, headers)
                    times[what].append(time.perf_counter() - before)
                    said[what] = (reply.status, reply.headers, reply.body.replace(b"s9-0", b"s1-0"))
                assert said["hidden"] == said["unknown"], (era, pair)
                assert b'"error"' in said["hidden"][2], (era, pair, said)
        for path in ("/mcp/s1-0", "/mcp/s9-0"):
            assert (await client.post(modern("tools/list"), modern_headers(modern("tools/list")), path)).status == 404
        assert all(fake.asked == [] for fake in fakes.values()) and opened == []
    middle = {what: f"{statistics.median(those) * 1000:.2f} ms" for what, those in times.items()}
    tell("hidden and unknown", f"median of {len(times['hidden'])}: {middle['hidden']} and {middle['unknown']}")
