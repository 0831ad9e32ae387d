"""What the benchmark says of its targets, on values that are written down here."""

from collections.abc import Mapping

import pytest

from bench import against, memory, startup, targets, throughput
from bench.report import Table

NOTHING: Mapping[str, object] = {}


def shown(rate: float, cpu: float = 1.0, noise: float = 0.0, p99: float = 1.0) -> dict[str, object]:
    """What `Measured.values` keeps of one target, as far as the targets ask."""
    rates, worst = [rate, rate / 2, rate * 3], [p99] * 3
    more = {"round_medians": [1.0] * 3, "round_p99s": worst}
    return {"round_rates": rates, **more, "cpu_per_call": cpu, "noise": noise}


def peers(broker: float, callers: int = 16, more: Mapping[str, object] = NOTHING) -> Table:
    """The table against peers with one case of modern callers."""
    table = Table(against.TITLE, ())
    facts = {"case": "x", "caller": "modern", "callers": callers, "payload": "small"}
    table.keep({**facts, "nginx": shown(1000), "broker": shown(broker), against.STDIO: shown(broker), **more})
    return table


def said(*tables: Table) -> dict[str, str]:
    """By target: the verdict."""
    return {row[0]: row[-1] for row in targets.targets_table(tables).rows}


@pytest.mark.parametrize(("rate", "verdict"), [(400, "met"), (399, "MISSED")])
@pytest.mark.parametrize("callers", [16, 64])
def test_a_target_is_met_at_its_bound_and_missed_below_it(rate: float, verdict: str, callers: int) -> None:
    table = peers(rate, callers, {against.CONNECTED: shown(rate / 40)})
    assert said(table) == {
        f"calls/s, of nginx's, {callers} modern callers": verdict,
        f"calls/s, of nginx's, stdio upstream, {callers} modern callers": verdict,
        f"calls/s, times FastMCP's, {callers} modern callers": "met",
    }


def test_how_far_the_rounds_are_apart_is_said() -> None:
    apart = {**shown(400), "round_rates": [100.0, 900.0, 1200.0]}
    rows = targets.targets_table([peers(400, more={"broker": apart})]).rows
    assert rows[0] == ["calls/s, of nginx's, 16 modern callers", "at least 0.4", "0.40", "0.10 to 1.80", "1.00", "met"]


def test_one_caller_has_targets_for_the_median_and_for_one_of_a_hundred() -> None:
    slow = {"broker": shown(1, p99=3.5)}
    assert said(peers(1, callers=1, more=slow)) == {
        "p50, times nginx's, one modern caller": "met",
        "p99, times nginx's, one modern caller": "MISSED",
    }


def test_a_large_result_has_a_target_of_its_own() -> None:
    table = peers(499, more={"payload": against.RESULT})
    assert said(table) == {"calls/s, of nginx's, 100 kB result, modern": "MISSED"}


def test_where_others_took_too_much_there_is_no_verdict() -> None:
    loud = shown(5, noise=2.0)
    table = Table(throughput.CATALOG_TITLE, ())
    table.keep(
        {"what": throughput.CALL, "caller": "modern", "callers": 16, throughput.FEW_LABEL: loud}
        | {throughput.MANY_LABEL: loud}
    )
    verdicts = said(peers(150, more={against.CONNECTED: loud}), table)
    assert list(verdicts.values()) == ["no verdict: others took 200% of a core"] * 4


def test_a_target_whose_peer_is_missing_was_not_measured() -> None:
    fastmcp = "calls/s, times FastMCP's, 16 modern callers"
    assert said(peers(150))[fastmcp] == f"not measured: no {against.CONNECTED}"


def test_relays_in_python_have_no_target_but_a_line_beside_them() -> None:
    relays = {against.RELAY: shown(1600, cpu=0.25), against.STRICT: shown(800, cpu=0.5)}
    with_them, without = targets.targets_table([peers(400, more=relays)]), targets.targets_table([peers(400)])
    assert (
        "of a strict one the broker has 0.25 and 0.50 with 16 modern callers (by CPU 0.25 and 0.50)." in with_them.note
    )
    assert "relay" not in without.note and with_them.rows == without.rows


def test_a_section_that_was_not_run_has_no_targets() -> None:
    assert said(Table("Idle memory", ())) == {}


def test_a_cost_that_grows_with_the_catalog_is_missed() -> None:
    table = Table(throughput.CATALOG_TITLE, ())
    few, many = {throughput.FEW_LABEL: shown(1)}, {throughput.MANY_LABEL: shown(1, cpu=1.2)}
    table.keep({"what": throughput.CALL, "caller": "legacy", "callers": 16, **few, **many})
    assert list(said(table).values()) == ["MISSED"]


def test_a_start_is_compared_round_by_round() -> None:
    table = Table(startup.LIST_TITLE, ())
    table.keep(
        {startup.NONE: [1, 2, 4], startup.HUNG: [1, 3, 8], startup.HEALTHY: [1, 1, 1], startup.DEAD: [1, 1.2, 1.3]}
    )
    servers = startup.SERVERS
    assert said(table) == {
        f"first list of {startup.HUNG}, times that of none": "met",
        f"first list of {servers} servers of which one ends at once, times that of the others": "MISSED",
    }


def test_a_cold_start_counts_until_the_list_is_whole() -> None:
    table = Table(startup.COLD_TITLE, ())
    table.keep({"servers": startup.ORDINARY, "direct": [1.0, 1.0], "broker": [(0.5, 1.2, 3), (0.5, 1.3, 3)]})
    table.keep({"servers": startup.LEAN, "direct": [1.0, 1.0], "broker": [(0.5, 1.4, 3), (0.5, 1.5, 3)]})
    assert list(said(table).values()) == ["met", "MISSED"]


def test_memory_has_targets_without_a_peer() -> None:
    table = Table(memory.TITLE, ())
    table.keep({"case": memory.FEW, "mib": 103, "above": 40})
    table.keep({"case": memory.LOADED, "first": 100, "last": 112})
    table.keep({"case": memory.SESSION, "kb": 31})
    assert list(said(table).values()) == ["met", "MISSED", "MISSED"]
