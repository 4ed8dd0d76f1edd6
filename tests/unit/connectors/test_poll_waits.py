"""How long the client waits between polls of a job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bulk.poll_waits import poll_wait_s
from connectors.fhir.vendors import profile_for
from tests.profiles import grouped

PROFILE = profile_for("generic", {"poll": {"first_s": 1, "cap_s": 300}})


def waits(asked_s: float | None, polls: int, **profile: float) -> list[float]:
    """The waits of a job whose every answer asks for the same."""
    chosen = profile_for("generic", grouped({"poll.first_s": 1, "poll.cap_s": 300, **profile}))
    found, own, age = [], chosen.poll.first_s, 0.0
    for _ in range(polls):
        found.append(poll_wait_s(chosen, server_s=asked_s, own_s=own, age_s=age))
        age += found[-1]
        own = min(own * 2, chosen.poll.cap_s)
    return found


def test_a_server_that_always_says_one_second_is_polled_less_and_less_often() -> None:
    assert waits(1, 10) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_a_server_that_always_says_two_minutes_is_polled_once_early_and_then_as_requested() -> None:
    assert waits(120, 5) == [10, 120, 120, 120, 120]
    assert waits(120, 3, poll__early_s=0) == [120, 120, 120]


def test_a_short_wait_is_always_honoured_and_a_long_one_is_capped() -> None:
    assert waits(40, 2) == [40, 40]
    assert waits(600, 3) == [10, 300, 300]


def test_without_retry_after_our_own_waits_grow() -> None:
    assert waits(None, 4) == [1, 2, 4, 8]


def test_an_old_job_is_polled_as_requested_by_the_next_run_too() -> None:
    assert poll_wait_s(PROFILE, server_s=120, own_s=1, age_s=600) == 120


@given(
    st.none() | st.floats(0, 10_000),
    st.floats(0, 10_000),
    st.floats(-100, 10_000),
)
def test_only_the_early_wait_is_shorter_than_requested_and_all_stay_within_bounds(
    server_s: float | None, own: float, age: float
) -> None:
    wait = poll_wait_s(PROFILE, server_s=server_s, own_s=own, age_s=age)
    assert PROFILE.poll.floor_s <= wait <= PROFILE.poll.cap_s
    if age >= PROFILE.poll.early_s:
        assert wait >= min(server_s or 0, PROFILE.poll.cap_s)
    assert wait >= min(own, PROFILE.poll.cap_s)


@pytest.mark.parametrize("server_s", [61.0, 300.0])
def test_answers_of_the_first_seconds_do_not_postpone_the_early_poll(server_s: float) -> None:
    assert 4 + poll_wait_s(PROFILE, server_s=server_s, own_s=4, age_s=4) == 10
