"""Checks what a search returned: whether it was requested, whether it is redacted, how new it is. Drops nothing.

Servers silently ignore filters (F16: Epic, VA) and give placeholders for what they hide (F37: Veradigm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import msgspec

from connectors.fhir.capability import Capability
from connectors.fhir.json_answers import objects_in
from connectors.fhir.profile import VendorProfile
from connectors.fhir.search.since import SinceParameter, date_of, newest, since_parameter
from connectors.fhir.search.verdicts import SearchTally
from connectors.fhir.ways import categories
from snapshots.instants import moment
from snapshots.record import Record
from snapshots.unit import Unit

_REDACTED = b'"REDACTED"'  # meta.security, v3-ObservationValue


class _Categories(msgspec.Struct):
    category: Any = None


_READ = msgspec.json.Decoder(_Categories)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What one unit requested, to be compared with what comes."""

    resource_type: str
    patient: str | None  # None: of everybody, or Patients
    categories: frozenset[str]  # empty: not narrowed
    since: datetime | None
    by: SinceParameter | None
    dates_until: datetime | None  # no later date is believed; None: dates are of no interest

    @classmethod
    def of(cls, unit: Unit, profile: VendorProfile, capability: Capability, dates_until: datetime | None) -> Self:
        """Return what this unit requests."""
        since = moment(unit.since)
        dated = since is not None or dates_until is not None
        return cls(
            resource_type=unit.resource_type,
            patient=unit.patient_id if unit.resource_type != "Patient" else None,
            categories=frozenset(categories(unit.split)),
            since=since,
            by=since_parameter(unit.resource_type, profile, capability) if dated else None,
            dates_until=dates_until,
        )

    def look(self, records: Sequence[Record], tally: SearchTally) -> None:
        """Count what was not requested, and what is redacted."""
        own, patient, by = self.resource_type, self.patient, self.by
        for record in records:
            if _REDACTED in record.body:
                tally.redacted += 1
            whose = record.patient_id
            other = whose != patient and whose is not None and patient is not None and patient not in record.others
            # what is included beside the matches is of another type
            if (other or (by is not None and self._too_old(record, by, tally))) and record.resource_type == own:
                tally.astray += 1
                tally.of_others += other
        if self.categories and records and not self._of_category(records[0]):
            tally.astray += 1  # one a page is enough to see whether the filter holds

    def _too_old(self, record: Record, by: SinceParameter, tally: SearchTally) -> bool:
        date = record.last_updated if by.mode == "updated" else date_of(record.body, record.resource_type, by.name)
        if self.dates_until is not None:
            tally.newest = newest(tally.newest, date, self.dates_until)
        if self.since is None or date is None or len(date) <= len("2026-01-01"):
            return False  # a bare date may be any time of its day
        found = moment(date)
        return found is not None and found < self.since

    def _of_category(self, record: Record) -> bool:
        if record.resource_type != self.resource_type:
            return True
        try:
            categories = _READ.decode(record.body).category
        except (msgspec.DecodeError, UnicodeDecodeError):
            return True  # harmless, as categories of another shape: a filter that is ignored lists more, and not less
        codings = [
            coding.get("code") for category in objects_in(categories) for coding in objects_in(category.get("coding"))
        ]
        return not codings or not self.categories.isdisjoint(str(code) for code in codings)
