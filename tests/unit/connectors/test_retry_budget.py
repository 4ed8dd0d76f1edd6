"""The retry budget holds its line, whatever the order of requests and retries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.transport.retry_budget import PACED_SHARE, RetryBudget


@given(st.lists(st.booleans(), max_size=300), st.floats(0, 2), st.integers(0, 30))
def test_retries_never_exceed_their_share_plus_the_floor(steps, share, floor):
    budget = RetryBudget(share, floor)
    for is_request in steps:
        if is_request:
            budget.count_request()
        else:
            budget.take_retry()
        assert budget.retries <= share * budget.requests + floor


def test_the_floor_lets_a_small_run_retry():
    budget = RetryBudget(0.0, 2)
    budget.count_request()
    assert [budget.take_retry() for _ in range(3)] == [True, True, False]


def test_new_requests_fill_the_budget_again():
    budget = RetryBudget(0.5, 0)
    budget.count_request()
    assert not budget.take_retry()
    budget.count_request()
    assert budget.take_retry()


@given(st.lists(st.sampled_from(["request", "answer", "paced", "retry"]), max_size=300), st.integers(0, 30))
def test_refusals_have_a_separate_budget(steps, floor):
    budget = RetryBudget(0.2, floor)
    for step in steps:
        {
            "request": budget.count_request,
            "answer": budget.count_answer,
            "paced": budget.take_paced,
            "retry": budget.take_retry,
        }[step]()
        assert budget.spent <= 0.2 * budget.requests + floor
        assert budget.paced <= PACED_SHARE * budget.answers + floor
        assert budget.retries == budget.spent + budget.paced
        assert budget.left >= 0


def test_a_server_that_only_refuses_gets_the_floor_and_no_more():
    budget = RetryBudget(0.2, 100)
    for _ in range(20_000):
        budget.count_request()
    assert sum(budget.take_paced() for _ in range(20_000)) == 100
