"""What the benchmark says of its targets, on values that are written down here."""

import pytest

from bench import against, targets, throughput
from bench.report import Table


def shown(rate: float, cpu: float = 1.0, noise: float = 0.0) -> dict[str, object]:
    """What `Measured.values` keeps of one target, as far as the targets ask."""
    rates = [rate, rate / 2, rate * 3]
    return {"round_rates": rates, "round_medians": [1.0] * 3, "cpu_per_call": cpu, "noise": noise}


def peers(broker: float, **more: object) -> Table:
    """The table against peers with one case of 16 modern callers."""
    table = Table(against.TITLE, ())
    facts = {"case": "modern, 16 at a time", "caller": "modern", "callers": 16}
    table.keep({**facts, "nginx": shown(1000), "broker": shown(broker), **more})
    return table


def said(*tables: Table) -> dict[str, str]:
    """By target: the verdict."""
    return {row[0]: row[-1] for row in targets.targets_table(tables).rows}


@pytest.mark.parametrize(("rate", "verdict"), [(150, "met"), (149, "MISSED")])
def test_a_target_is_met_at_its_bound_and_missed_below_it(rate: float, verdict: str) -> None:
    table = peers(rate, **{against.CONNECTED: shown(5)})
    assert said(table) == {
        "calls/s, of nginx's, 16 modern callers": verdict,
        "calls/s, times FastMCP's, 16 modern callers": "met",
    }


def test_where_others_took_too_much_there_is_no_verdict() -> None:
    loud = shown(5, noise=2.0)
    table = Table(throughput.CATALOG_TITLE, ())
    table.keep(
        {"what": "one call", "caller": "modern", "callers": 16, throughput.FEW_LABEL: loud}
        | {throughput.MANY_LABEL: loud}
    )
    verdicts = said(peers(150, **{against.CONNECTED: loud}), table)
    assert list(verdicts.values()) == ["no verdict: others took 200% of a core"] * 3


def test_a_target_whose_peer_is_missing_was_not_measured() -> None:
    fastmcp = "calls/s, times FastMCP's, 16 modern callers"
    assert said(peers(150))[fastmcp] == f"not measured: no {against.CONNECTED}"


def test_a_section_that_was_not_run_has_no_targets() -> None:
    assert said(Table("Idle memory", ())) == {}


def test_a_cost_that_grows_with_the_catalog_is_missed() -> None:
    table = Table(throughput.CATALOG_TITLE, ())
    few, many = {throughput.FEW_LABEL: shown(1)}, {throughput.MANY_LABEL: shown(1, cpu=1.2)}
    table.keep({"what": "one call", "caller": "legacy", "callers": 16, **few, **many})
    assert list(said(table).values()) == ["MISSED"]
