"""Hours, days and months of UTC."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.period import Period, begin_of, end_of, moment_of

MOMENTS = st.floats(0, 4_000_000_000, allow_nan=False)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "moment", "begin", "end"),
    [
        (Period.HOUR, "2026-11-26T01:59:59.999", "2026-11-26T01:00", "2026-11-26T02:00"),
        (Period.DAY, "2026-11-26T00:00", "2026-11-26T00:00", "2026-11-27T00:00"),
        (Period.MONTH, "2026-01-31T23:59:59", "2026-01-01T00:00", "2026-02-01T00:00"),
        (Period.MONTH, "2026-02-28T12:00", "2026-02-01T00:00", "2026-03-01T00:00"),
        (Period.MONTH, "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),
        (Period.MONTH, "2026-12-31T23:59:59", "2026-12-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_periods_begin_and_end_at_the_edges_of_the_calendar(period: Period, moment: str, begin: str, end: str) -> None:
    found = begin_of(period, at(moment))
    assert (found, end_of(period, found)) == (at(begin), at(end))


@given(st.sampled_from(Period), MOMENTS)
def test_every_moment_is_in_one_period_and_the_next_begins_where_it_ends(period: Period, moment: float) -> None:
    begin = begin_of(period, moment)
    end = end_of(period, begin)
    assert begin <= moment < end
    assert begin_of(period, begin) == begin_of(period, end - 1) == begin
    assert begin_of(period, end) == end


def test_a_moment_is_shown_in_utc() -> None:
    assert moment_of(at("2026-12-01T00:00")) == "2026-12-01T00:00:00Z"
