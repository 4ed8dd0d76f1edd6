"""Which dates of servers are believed, and that none of them breaks the arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.instants import http_date
from connectors.fhir.search.since import newest
from connectors.fhir.transport.retry_table import retry_after_s, server_time
from snapshots.closing import Earned, reached
from snapshots.instants import moment

BEGAN = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00:00Z", "0001-01-01", "0001", "0001-01-01T00:00:00+14:00", "1899-12-31", "9999-12-31T23:59:59Z",
     "9999-12-31T23:59:59-12:00", "9999", "", None, "soon", "2026-13-01", "99999-01-01"],
)  # fmt: skip
def test_implausible_dates_are_ignored(text: str | None) -> None:
    assert moment(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1900", datetime(1900, 1, 1, tzinfo=UTC)),
        ("2026-04", datetime(2026, 4, 1, tzinfo=UTC)),
        ("9998-12-31T23:00:00-12:00", datetime(9999, 1, 1, 11, tzinfo=UTC)),
        ("2026-05-01T10:00:00+14:00", datetime(2026, 4, 30, 20, tzinfo=UTC)),
    ],
)
def test_dates_of_every_precision_and_zone_are_instants(text: str, found: datetime) -> None:
    assert moment(text) == found


def test_an_http_date_at_the_end_of_time_is_ignored() -> None:
    assert http_date("Fri, 31 Dec 9999 23:59:59 GMT") is None
    assert http_date("Thu, 01 Jan 1970 00:00:00 GMT") == datetime(1970, 1, 1, tzinfo=UTC)


YEARS = st.integers(1, 9999).map(lambda year: f"{year:04}-06-15T12:00:00Z")


@given(st.lists(YEARS | st.text(max_size=12), max_size=5), st.timedeltas(timedelta(0), timedelta(days=40)))
def test_any_date_that_a_resource_bears_leaves_the_watermark_unmoved_or_where_records_are(
    dates: list[str], overlap: timedelta
) -> None:
    found = None
    for date in dates:
        found = newest(found, date, BEGAN)
    earned = Earned(watermark="2999-01-01T00:00:00Z", overlap=overlap)
    mark = moment(reached(earned, None, [] if found is None else [found.isoformat()]))
    believed = [one for one in map(moment, dates) if one is not None and one <= BEGAN]
    assert mark is not None
    if believed:
        assert timedelta(0) <= max(believed) - overlap - mark < timedelta(seconds=1)
    else:
        assert mark == moment(earned.watermark)


@given(st.text(max_size=40) | st.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S GMT")))
def test_any_date_header_is_read_or_ignored(text: str) -> None:
    assert http_date(text) is None or http_date(text) == http_date(text)
    assert server_time(text) is None or server_time(text) > -(10**10)
    wait = retry_after_s(text, now=0.0, cap_s=60)
    assert wait is None or 0 <= wait <= 60
