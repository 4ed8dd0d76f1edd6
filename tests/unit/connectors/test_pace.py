"""The pace stays within its bounds, gives way once per round trip, and comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.transport.pace import MOST_PATIENCE, WINDOW, Pace

SIGNALS = st.lists(
    st.tuples(st.sampled_from(["good", "slow", "refused", "strained"]), st.floats(0, 5), st.floats(0, 60)), max_size=400
)


def play(pace, signals):
    """Feed signals (what, how long after the one before, how long the request had been under way); yield the levels."""
    now = 0.0
    for what, later, under_way in signals:
        now += later
        if what in ("good", "slow"):
            pace.good("GET /X", 0.05 if what == "good" else 9.0)
        else:
            getattr(pace, what)(now - under_way, now)
        yield pace.level


@given(SIGNALS, st.integers(1, 60), st.one_of(st.none(), st.integers(-3, 100)))
def test_the_level_never_leaves_its_bounds(signals, ceiling, start):
    pace = Pace(ceiling, start=start)
    for level in play(pace, signals):
        assert 1 <= level <= ceiling
        assert 0 <= pace.gap_s <= 0.2


@given(SIGNALS, st.integers(1, 60))
def test_enough_good_answers_restore_the_level_to_its_ceiling(signals, ceiling):
    pace = Pace(ceiling)
    for _ in play(pace, signals):
        pass
    for _ in range(ceiling * ceiling * 2 + ceiling * MOST_PATIENCE * 2 + 100):
        pace.good("GET /Y", 0.05)
    assert (pace.level, pace.gap_s) == (ceiling, 0)


@given(st.integers(2, 60), st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_refusals_within_one_round_trip_halve_the_level_once(ceiling, sent):
    pace = Pace(ceiling)
    for at, sent_at in enumerate(sorted(sent)):
        pace.refused(sent_at, 1 + at / 1000)  # all were sent before the first refusal came
    assert pace.level == max(1, ceiling // 2)


def test_a_refusal_of_a_request_sent_after_the_cut_counts_again():
    pace = Pace(20)
    pace.refused(0, 1)
    pace.refused(1.5, 2)
    assert pace.level == 5


def test_only_several_slow_answers_together_are_a_sign_of_strain():
    pace = Pace(20)
    for number in range(2000):
        if number % 100 == 99:
            pace.strained(number, number + 0.5)
        else:
            pace.good("GET /X", 0.05)
    assert pace.level == 20
    pace.strained(3000, 3001)
    pace.strained(3000, 3001)
    assert pace.level == 10


def test_ordinary_variation_of_latency_changes_nothing():
    pace = Pace(20)
    for number in range(5000):
        pace.good(f"GET /{number % 3}", (0.01, 0.4, 2.0)[number % 3] * (1 + number % 7 / 4))
    assert pace.level == 20


def test_a_kind_of_request_that_takes_longer_than_another_is_not_slow():
    pace = Pace(20)
    for _ in range(500):
        pace.good("GET /Patient/{id}", 0.02)
    for _ in range(500):
        pace.good("GET /Observation?patient={patient}", 6.0)
    assert pace.level == 20


def test_much_slower_answers_reduce_the_level_until_they_are_usual():
    pace = Pace(20)
    for _ in range(200):
        pace.good("GET /X", 0.05)
    levels = []
    for _ in range(6000):
        pace.good("GET /X", 5.0)
        levels.append(pace.level)
    assert min(levels) < 10
    assert levels[-1] == 20


def test_at_the_lowest_level_refusals_widen_the_spacing_and_good_answers_narrow_it():
    pace = Pace(2)
    gaps = []
    for at in range(10):
        pace.refused(at, at + 0.5)
        gaps.append(pace.gap_s)
    assert gaps[0] == 0
    assert gaps[1:4] == [0.025, 0.05, 0.1]
    assert max(gaps) == 0.2
    for _ in range(40):
        pace.good("GET /X", 0.01)
    assert pace.gap_s == 0


def server_of(limit, pace, answers):
    """A server that refuses what is more than `limit` at a time; gives how many it refused."""
    refused = 0
    now = 0.0
    while answers > 0:
        now += 1
        sent, level = now - 0.5, pace.level
        good = min(level, limit)
        for _ in range(good):
            pace.good("GET /X", 0.05)
        for _ in range(level - good):
            refused += 1
            pace.refused(sent, now)
        answers -= good
    return refused


@pytest.mark.parametrize("limit", [1, 3, 4, 10, 19])
def test_a_server_with_a_fixed_limit_refuses_few_requests(limit):
    pace = Pace(20)
    assert server_of(limit, pace, 5000) < 40 + 5000 / 40
    assert pace.level >= limit // 2


def test_a_run_begins_at_the_remembered_level():
    assert Pace(20, start=4).level == 4
    assert WINDOW > 1
