"""Secrets are planted wherever one can be, and everything that the broker says or keeps is read: none is there."""

import logging
from pathlib import Path
from typing import Any

import pytest

from broker.core.caller import Role
from tests.downstream.desk import bearer, desk
from tests.downstream.raw_http import modern, modern_headers
from tests.relay.fake import Fake, Json, Refuse, tool

ARGUMENT, HEADER, UPSTREAM, CONFIGURED, RESULT, GUESS, BAGGAGE, URI = (
    f"canary-{word}-7f3a9c" for word in ("arg", "header", "upstream", "config", "result", "guess", "baggage", "uri")
)


async def test_no_planted_secret_is_in_any_log_record_metric_or_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Any) -> Json:
        raise Refuse(1001, {"token": UPSTREAM}, f"cannot log in with {UPSTREAM}")

    async def say(_: Any) -> Json:
        return {"content": [{"type": "text", "text": RESULT}], "structuredContent": {"secret": RESULT, "n": 1}}

    names = ("echo", "bad")
    fakes = {
        "one": Fake(
            tools=[tool(name) for name in names],
            answers={"echo": say, "bad": fail},
            resources=[{"uri": f"postgres://user:{URI}@host/x", "name": "db"}],
        )
    }
    settings = {"one": {"headers": {"X-Token": CONFIGURED}}}
    audit = {
        "enabled": True,
        "arguments": {"one__echo": {"password": "hash", "token": "mask"}},
        "results": {"one__echo": {"n": "plain"}},
    }
    with caplog.at_level(logging.DEBUG):
        async with desk(tmp_path, fakes, servers=settings, metrics={"access": "admin"}, audit=audit) as place:
            client = place.front.client
            key, token, boss = place.key(1), place.token(), place.key(3, role=Role.ADMIN)
            place.adopt()
            for credential in (key, token, GUESS):
                for name in (*names, ARGUMENT[:3]):
                    given = {"password": ARGUMENT, "token": ARGUMENT, "other": {"deep": ARGUMENT}}
                    body = modern("tools/call", {"name": f"one__{name}", "arguments": given})
                    body["params"]["_meta"]["baggage"] = f"key={BAGGAGE}"
                    headers = [*bearer(credential), ("X-Secret", HEADER), ("Mcp-Param-Secret", HEADER)]
                    await client.post(body, [*modern_headers(body), *headers])
                read = modern("resources/read", {"uri": f"one+postgres://user:{URI}@host/x"})
                await client.post(read, [*modern_headers(read), *bearer(credential)])
                listed = modern("tools/list")
                await client.post(listed, [*modern_headers(listed), *bearer(credential)])
            metrics = (await client.raw(client.request("GET", "/metrics", None, bearer(boss)))).body.decode()
    kept = {path: path.read_text("utf-8", "replace") for path in (tmp_path / "state" / "audit").iterdir()}
    said = {"log": caplog.text, "metrics": metrics, **{str(path): text for path, text in kept.items()}}
    assert "one__echo" in "".join(kept.values()) and "mcp_broker_calls_total" in metrics
    secrets = (ARGUMENT, HEADER, UPSTREAM, CONFIGURED, RESULT, GUESS, BAGGAGE, URI, key, boss, token)
    assert [(where, secret) for where, text in said.items() for secret in secrets if secret in text] == []
