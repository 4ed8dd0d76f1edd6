"""The breaker opens after enough failures in a row, lets one probe through, and remembers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.transport.breaker import LONGEST_OPEN_S, Breaker


def opened(failures=3, open_s=100.0):
    breaker = Breaker(failures, open_s)
    for _ in range(failures):
        breaker.failed(0, "503")
    return breaker


def test_consecutive_failures_open_the_breaker_unless_an_answer_comes_between():
    breaker = Breaker(3, 100)
    for _ in range(5):
        breaker.failed(0, "503")
        breaker.failed(0, "503")
        breaker.worked()
    assert breaker.admit(0) == "go"
    assert (opened().down_until, opened().reason) == (100, "503")


def test_an_open_breaker_refuses_requests_until_its_time_and_then_allows_one_probe():
    breaker = opened()
    assert breaker.is_open(50)
    assert [breaker.admit(at) for at in (1, 99, 100, 101)] == ["down", "down", "probe", "wait"]
    breaker.worked()
    assert breaker.admit(101) == "go"


def test_a_failed_probe_doubles_the_open_time_up_to_an_hour():
    breaker, now, lengths = opened(), 0.0, []
    for _ in range(8):
        now = breaker.down_until
        assert breaker.admit(now) == "probe"
        breaker.failed(now, "503")
        lengths.append(breaker.down_until - now)
    assert lengths[:3] == [200, 400, 800]
    assert lengths[-1] == LONGEST_OPEN_S


def test_a_cancelled_probe_is_repeated_at_once():
    breaker = opened()
    assert breaker.admit(100) == "probe"
    breaker.probe_lost()
    assert breaker.admit(100) == "probe"
    breaker.failed(100, "503")
    breaker.probe_lost()
    assert breaker.admit(101) == "down"


def test_the_next_run_probes_once_before_the_time_is_over():
    breaker = Breaker(3, 100)
    breaker.remember(down_until=1000, trips=1, reason="503")
    assert [breaker.admit(5), breaker.admit(5)] == ["probe", "wait"]
    breaker.failed(5, "503")
    assert breaker.admit(6) == "down"
    assert (breaker.trips, breaker.down_until) == (2, 205)


def test_the_breaker_forgets_its_trips_only_after_a_good_while():
    breaker = opened()
    breaker.admit(100)
    breaker.worked()
    assert not breaker.untroubled
    breaker.worked()
    breaker.worked()
    assert breaker.untroubled


@given(
    st.lists(st.tuples(st.sampled_from(["admit", "worked", "failed", "lost"]), st.floats(0, 500))), st.integers(1, 5)
)
def test_the_breaker_never_leaves_everybody_waiting(steps, failures):
    breaker, now, probing = Breaker(failures, 50), 0.0, False
    for what, later in steps:
        now += later
        if what == "admit":
            admission = breaker.admit(now)
            assert admission != "wait" or probing
            probing = probing or admission == "probe"
        elif what == "worked":
            breaker.worked()
            probing = False
        elif what == "failed":
            breaker.failed(now, "x")
            probing = False
        else:
            breaker.probe_lost()
            probing = False
    if probing:
        breaker.worked()
    assert breaker.admit(now + 1e6) in ("go", "probe")
