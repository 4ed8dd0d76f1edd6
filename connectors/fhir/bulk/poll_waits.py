"""How long to wait before a job is polled again. Pure.

The server's Retry-After is the minimum, and our own waits grow, because servers that always say one second have jobs of
hours. One poll comes earlier: servers that always say the same long wait (HAPI: 120 s) say so of exports of seconds too.
"""

from __future__ import annotations

from connectors.fhir.profile import VendorProfile

_LONG_S = 60.0  # a wait that is worth one early question


def poll_wait_s(profile: VendorProfile, *, server_s: float | None, own_s: float, age_s: float) -> float:
    """Seconds to wait, within the profile's bounds.

    Args:
        profile: The vendor's.
        server_s: The wait in Retry-After; None if it has none that makes sense.
        own_s: Our own wait, which grows from poll to poll.
        age_s: How long ago the job was kicked off. Before `poll.early_s` have passed, no answer delays the next poll beyond that
            moment, so that there is one early poll; later polls wait as the server asks.
    """
    wait_s = min(max(own_s, profile.poll.floor_s, server_s or 0.0), profile.poll.cap_s)
    early_s = profile.poll.early_s - age_s
    if server_s is not None and server_s > _LONG_S and early_s > 0:
        return min(wait_s, max(early_s, own_s, profile.poll.floor_s))
    return wait_s
