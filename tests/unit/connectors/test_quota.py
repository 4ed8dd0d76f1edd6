"""No minute sees more than the quota, and what servers say is left is heard in each of its spellings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.transport.quota import Allowance, Quota, allowance_from

NOW = 1_800_000_000.0


@given(st.integers(1, 400), st.lists(st.floats(0, 30), min_size=1, max_size=300))
def test_no_minute_exceeds_the_quota(per_minute, pauses):
    quota, now, sent = Quota(per_minute), NOW, []
    for pause in pauses:
        now += pause
        now += quota.take(now)
        sent.append(now)
    for at, begin in enumerate(sent):
        assert sum(begin <= moment < begin + 59.999 for moment in sent[at:]) <= per_minute


@given(st.integers(1, 200), st.floats(0, 200))
def test_no_minute_after_a_rest_exceeds_the_quota(per_minute, rest):
    quota, now = Quota(per_minute), NOW + rest
    quota.take(NOW)
    sent = []
    for _ in range(3 * per_minute):
        now += quota.take(now)
        sent.append(now)
    for at, begin in enumerate(sent):
        assert sum(begin <= moment < begin + 59.999 for moment in sent[at:]) <= per_minute


@pytest.mark.parametrize(("per_minute", "least"), [(60, 55), (600, 590), (1, 1)])
def test_the_quota_of_a_minute_is_used_up(per_minute, least):
    quota, now, count = Quota(per_minute), NOW, 0
    while now < NOW + 60:
        now += quota.take(now)
        count += now < NOW + 60
    assert count >= least


def test_the_next_run_continues_where_the_last_one_ended():
    first, second = Quota(60), Quota(60)
    for _ in range(20):
        first.take(NOW)
    second.free_at = first.free_at
    assert second.take(NOW) > 10


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "59", "X-RateLimit-Reset": "30"}, (59, 30)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW) + 12)}, (0, 12)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str((int(NOW) + 12) * 1000)}, (0, 12)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW) - 12)}, (0, 0)),
        ({"X-RateLimit-Remaining-Minute": "5", "X-RateLimit-Limit-Minute": "60"}, (5, 60)),
        ({"X-RateLimit-Remaining-Hour": "900", "X-RateLimit-Remaining-Minute": "5"}, (5, 60)),
        ({"X-Rate-Limit-Remaining": "3", "X-Rate-Limit-Reset": "7"}, (3, 7)),
        ({"RateLimit-Limit": "100", "RateLimit-Remaining": "50", "RateLimit-Reset": "50"}, (50, 50)),
        ({"RateLimit": "limit=100, remaining=50, reset=5"}, (50, 5)),
        ({"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'}, (50, 30)),
        ({"RateLimit": "remaining=7", "RateLimit-Policy": "100;w=10"}, (7, 10)),
        ({"RateLimit": '"burst";r=5;t=1, "day";r=1000;t=36000'}, (5, 1)),
        ({"RateLimit": '"day";r=1000;t=36000, "burst";r=5;t=1'}, (5, 1)),
        ({"RateLimit": '"day";r=3', "RateLimit-Policy": '"burst";q=10;w=1, "day";q=1000;w=86400'}, (3, 86_400)),
        ({"RateLimit": '"a;r=1;t=1";r=7;t=2'}, (7, 2)),
        ({"RateLimit": '"default";r=-1;t=30'}, None),
        ({"RateLimit": "remaining=?1"}, None),
        ({"RateLimit-Remaining": "7"}, (7, 60)),
        ({"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "soon"}, None),
        ({"RateLimit": "?"}, None),
        ({"Content-Type": "text/plain"}, None),
    ],
)
def test_the_remaining_quota_is_read_from_headers(headers, expected):
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert allowance_from(raw, NOW) == (None if expected is None else Allowance(*expected))


@given(
    st.lists(st.tuples(st.sampled_from([b"RateLimit", b"X-RateLimit-Remaining", b"X-RateLimit-Reset"]), st.binary()))
)
def test_any_header_is_read_or_ignored(raw):
    allowance = allowance_from(raw, NOW)
    assert allowance is None or (allowance.left >= 0 and allowance.reset_s >= 0)


def test_an_exhausted_quota_waits_for_the_reset_and_a_small_rest_is_spread_out():
    quota = Quota(None)
    assert quota.heard(Allowance(0, 20), NOW, in_use=5) == NOW + 20
    assert not quota.rules(NOW)
    assert quota.heard(Allowance(500, 20), NOW, in_use=5) == 0
    assert not quota.rules(NOW)
    assert quota.heard(Allowance(10, 20), NOW, in_use=5) == 0
    assert quota.rules(NOW)
    assert [round(quota.take(NOW)) for _ in range(4)] == [0, 2, 4, 6]
    assert not quota.rules(NOW + 20)
