from __future__ import annotations

import pytest

from mocks.quota import Counted, WindowQuota


def test_a_window_allows_a_fixed_number_and_the_next_window_starts_afresh() -> None:
    quota = WindowQuota(2, 60)
    assert [quota.take(at) for at in (100, 110, 120)] == [
        Counted(True, 1, 60),
        Counted(True, 0, 50),
        Counted(False, 0, 40),
    ]
    assert quota.take(160) == Counted(True, 1, 60)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("none", {}),
        ("x", {b"x-ratelimit-limit": b"9", b"x-ratelimit-remaining": b"4", b"x-ratelimit-reset": b"1031"}),
        ("ratelimit", {b"ratelimit-limit": b"9", b"ratelimit-remaining": b"4", b"ratelimit-reset": b"31"}),
        ("fields", {b"ratelimit-policy": b'"all";q=9;w=60', b"ratelimit": b'"all";r=4;t=31'}),
    ],
)
def test_each_header_style_states_limit_remaining_and_reset(style: str, expected: dict[bytes, bytes]) -> None:
    assert dict(WindowQuota(9, 60).headers(Counted(True, 4, 30.2), style, 1000.0)) == expected  # type: ignore[arg-type]
