"""Small promises of core that larger tests rely on."""

from broker.core.catalog import WHOLE_LIST, Dropped, Listing, failed_list
from broker.core.era import LATEST_LEGACY, LATEST_MODERN, META_LOG_LEVEL, declared_upstream, hop_params
from broker.core.request import Kind


def test_a_list_that_could_not_be_had_has_a_reason_and_a_dropped_item_is_no_such_list() -> None:
    listing = Listing(dropped=(Dropped(Kind.TOOL, "x", "no inputSchema"), Dropped(Kind.PROMPT, WHOLE_LIST, "timeout")))
    assert failed_list(listing, Kind.PROMPT) == "timeout"
    assert failed_list(listing, None) == "timeout"
    assert failed_list(listing, Kind.TOOL) is None
    assert failed_list(Listing(), None) is None


def test_a_log_level_goes_upstream_in_the_envelope_only() -> None:
    def meta(version: str, level: str | None) -> dict[str, object]:
        known = LATEST_MODERN if version == "modern" else LATEST_LEGACY
        return hop_params({}, known, client={}, capabilities={}, progress_token=None, log_level=level).get("_meta", {})

    assert meta("modern", "info")[META_LOG_LEVEL] == "info"
    assert META_LOG_LEVEL not in meta("modern", None)
    assert META_LOG_LEVEL not in meta("legacy", "info")


def test_capabilities_of_a_caller_are_declared_only_where_the_broker_can_carry_them() -> None:
    from_caller = {"elicitation": {"form": {}}, "whatever": {"x": {}}, "roots": {}}
    assert declared_upstream(from_caller, LATEST_LEGACY) == {"elicitation": {"form": {}}, "roots": {}}
