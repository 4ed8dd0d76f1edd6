"""When it is quiet, and until when; clocks change, and so do days."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.quiet_hours import QuietHours

BERLIN = ZoneInfo("Europe/Berlin")


def at(text, zone=BERLIN):
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("hours", "now", "quiet", "until"),
    [
        ("07:00-19:00", "2026-03-02T06:59:59", False, "2026-03-02T07:00"),
        ("07:00-19:00", "2026-03-02T07:00", True, "2026-03-02T19:00"),
        ("07:00-19:00", "2026-03-02T19:00", False, "2026-03-03T07:00"),
        ("22:00-06:00", "2026-03-02T23:00", True, "2026-03-03T06:00"),
        ("22:00-06:00", "2026-03-03T05:00", True, "2026-03-03T06:00"),
        ("22:00-06:00", "2026-03-03T12:00", False, "2026-03-03T22:00"),
        ("01:00-05:00", "2026-03-29T01:30", True, "2026-03-29T05:00"),  # an hour shorter: clocks go forward at 02:00
        ("02:30-05:00", "2026-03-29T04:00", True, "2026-03-29T05:00"),
    ],
)
def test_quiet_hours_apply_within_their_hours(hours, now, quiet, until):
    assert QuietHours(hours, "Europe/Berlin").at(at(now)) == (quiet, at(until))


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(1_767_225_600, 1_798_761_600))
def test_the_next_change_is_always_ahead_and_within_two_days(begin, end, moment):
    hours = QuietHours("-".join(f"{m // 60:02}:{m % 60:02}" for m in (begin, end)), "America/New_York")
    now = float(moment)
    assert now < hours.at(now).until <= now + 2 * 86_400


@pytest.mark.parametrize("hours", ["7-19", "25:00-26:00", "07:00", "07:00-19:00x", ""])
def test_malformed_quiet_hours_are_refused(hours):
    with pytest.raises(ValueError, match="quiet hours"):
        QuietHours(hours, "UTC")
    with pytest.raises(ValidationError):
        VendorProfile(name="x", label="X", limits={"quiet_hours": hours})


def test_a_zone_that_does_not_exist_is_refused():
    with pytest.raises(ValidationError, match="IANA"):
        VendorProfile(name="x", label="X", limits={"time_zone": "Mars/Olympus"})
