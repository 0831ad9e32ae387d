"""`/metrics`: what is counted, for whom, and that nobody can make it grow."""

from pathlib import Path

import pytest

from broker.core.caller import Caller, Role
from broker.usage.meter import MAX_RULES, Counts
from tests.downstream.conftest import Start
from tests.downstream.desk import bearer, desk
from tests.downstream.raw_http import Client
from tests.relay.fake import Fake, tool
from tests.usage.trails import call_of


async def page(client: Client, *headers: tuple[str, str], method: str = "GET") -> tuple[int, str]:
    reply = await client.raw(client.request(method, "/metrics", None, headers))
    return reply.status, reply.body.decode()


async def test_calls_are_counted_by_rule_upstream_kind_and_outcome(start: Start) -> None:
    one = Fake(tools=[tool("echo", outputSchema={"type": "object"})])
    async with start({"one": one, "two": Fake(state="down")}, metrics={"access": "public"}) as front:
        await front.client.ask("tools/call", {"name": "one__echo", "arguments": {}})
        await front.client.ask("tools/call", {"name": "one__nothing", "arguments": {}})
        await front.client.ask("tools/list")
        await front.client.ask("tools/list")
        await front.client.open_session()
        status, text = await page(front.client)
        assert (await page(front.client, method="POST"))[0] == 405
    assert status == 200
    for line in (
        'mcp_broker_calls_total{kind="tools",outcome="done",rule="server:one/tools/allow/0",upstream="one"} 1.0',
        'mcp_broker_calls_total{kind="",outcome="denied",rule="unknown",upstream=""} 1.0',
        'mcp_broker_call_duration_seconds_count{kind="tools",upstream="one"} 1.0',
        "mcp_broker_requests_in_flight 0.0",
        'mcp_broker_discoveries_total{method="tools/list"} 2.0',
        'mcp_broker_upstream_up{upstream="one"} 1.0',
        'mcp_broker_upstream_up{upstream="two"} 0.0',
        'mcp_broker_upstream_strays_total{upstream="one",what="answer"} 0.0',
        'mcp_broker_upstream_output_checks_total{result="mismatched",upstream="one"} 1.0',
        'mcp_broker_upstream_output_checks_total{result="matched",upstream="one"} 0.0',
        'mcp_broker_upstream_output_checks_total{result="unchecked",upstream="two"} 0.0',
        'mcp_broker_list_pages_total{cache="hit"} 1.0',
        "mcp_broker_sessions 1.0",
        "mcp_broker_streams 0.0",
    ):
        assert line in text.splitlines(), line


async def test_metrics_are_for_administrators_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    async with desk(tmp_path, {"one": Fake(tools=[tool("echo")])}, metrics={"access": "admin"}) as place:
        client = place.front.client
        member, boss = place.key(1), place.key(3, role=Role.ADMIN)
        place.adopt()
        assert (await page(client))[0] == 401
        assert (await page(client, *bearer(member)))[0] == 403
        status, text = await page(client, *bearer(boss))
        assert status == 200 and 'mcp_broker_refused_credentials_total{status="401"} 1.0' in text


async def test_without_the_setting_there_is_no_such_path(start: Start) -> None:
    async with start({"one": Fake()}) as front:
        assert (await page(front.client))[0] == 404


@pytest.mark.parametrize("rule", ["key:acme/{}/unknown", "team:acme/{}/deny/0"])
def test_what_callers_make_up_makes_no_series(rule: str) -> None:
    counts = Counts(["one"])
    for index in range(3 * MAX_RULES):
        record = call_of(Caller(""))
        record.server, record.rule = f"s{index}", rule.format(index)
        counts.called(record)
    assert len(counts.calls) <= MAX_RULES + 1 and sum(counts.calls.values()) == 3 * MAX_RULES
    assert {upstream for _, upstream, _, _ in counts.calls} == {"other"}
