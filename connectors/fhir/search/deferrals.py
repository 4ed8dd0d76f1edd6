"""What a crawl does not request because of the EHR: restricted patients, refused types, searches postponed to another day.

In memory for one run; `memories.Roster` carries it from run to run. A unit that is not requested is a hole all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from connectors.fhir.profile import VendorProfile
from connectors.fhir.refused_types import RefusedTypes
from snapshots.patient import Deferral
from snapshots.unit import Ending

RESTRICTED = "restricted by the server for this client"
_EVERY_TYPE = "*"


class NotRequested(NamedTuple):
    """Why something is not requested."""

    ending: Ending  # RESTRICTED or PAUSED
    reason: str  # for people


class Deferrals:
    """What must not be requested, as known and as learned by the run."""

    def __init__(
        self,
        known: Iterable[Deferral],
        profile: VendorProfile,
        now: Callable[[], datetime],
        *,
        heed_restricted: bool,
    ) -> None:
        """`heed_restricted` False: restricted data are requested again now, because a person wants them."""
        self._profile = profile
        self._now = now
        self._zone = ZoneInfo(profile.limits.time_zone)
        self._until = {
            (one.resource_type, one.patient_id): one for one in known if heed_restricted or one.reason != "restricted"
        }
        self._restricted: dict[tuple[str, str | None], str] = {}
        self._refused = RefusedTypes()
        self.learned: list[Deferral] = []

    def hindrance(self, resource_type: str, patient: str | None) -> NotRequested | None:
        """Return why not to request it; None: request it."""
        for key in ((resource_type, None), (resource_type, patient), (_EVERY_TYPE, patient)):
            if key in self._restricted:
                return NotRequested(Ending.RESTRICTED, self._restricted[key])
            deferral = self._until.get(key)
            if deferral is not None and deferral.until > self._now():
                paused = deferral.reason == "paused"
                return NotRequested(Ending.PAUSED if paused else Ending.RESTRICTED, self._words(deferral))
        if self._refused.passes_over(resource_type):
            return NotRequested(
                Ending.RESTRICTED,
                f"{RESTRICTED}: it refuses this type for every patient requested (HTTP 403), so it was not requested for others; "
                "register the app for it, or remove it from `types`",
            )
        return None

    def _words(self, deferral: Deferral) -> str:
        local = deferral.until.astimezone(self._zone)
        if deferral.reason == "paused":
            return f"paused until {local:%Y-%m-%d %H:%M} {self._profile.limits.time_zone}: the server's daily limit was reached"
        return f"{RESTRICTED}; requested again after {local:%Y-%m-%d}, or with --since none"

    def let_through(self, resource_type: str) -> None:
        """The server gave something of this type."""
        self._refused.let_through(resource_type)

    def refuse(self, resource_type: str, patient: str, reason: str, *, by_code: bool, every_type: bool) -> None:
        """Note that the server restricts a patient's type, or (`every_type`) the patient, so that this run asks no more.

        It is remembered beyond the run if a code says so. A bare 403 may be a firewall's whim, or the app's registration, which
        can be put right any day.
        """
        key = (_EVERY_TYPE if every_type else resource_type, patient)
        self._restricted[key] = reason
        if not by_code:
            self._refused.refuse(resource_type, patient)
        else:
            until = self._now() + timedelta(days=self._profile.answers.restricted_retry_d)
            self.learned.append(Deferral(*key, "restricted", until))

    def pause(self, resource_type: str) -> str:
        """The server puts this type off: to its next local midnight. Gives the words for the report."""
        local = self._now().astimezone(self._zone)
        midnight = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        deferral = Deferral(resource_type, None, "paused", midnight)
        if (resource_type, None) not in self._until:
            self.learned.append(deferral)
        self._until[resource_type, None] = deferral
        return self._words(deferral)
