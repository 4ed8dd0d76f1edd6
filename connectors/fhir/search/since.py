"""By which parameter each type can be requested incrementally, from when, and how far a watermark may go. Pure.

`updated` sees every change. `created` sees only what is new, so changes wait for the next full listing. Types that have neither
are listed whole each time (vendor-facts 7). A unit's detail has the instant from which it was requested; `snapshots` keeps the
watermarks.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from connectors.fhir.capability import Capability
from connectors.fhir.profile import VendorProfile
from snapshots.instants import moment

LAST_UPDATED = "_lastUpdated"
_ELEMENT = {  # of a parameter whose name is not its element's
    "recorded-date": "recordedDate",
    "authoredon": "authoredOn",
    "authored": "authoredOn",
}
_ELEMENT_BY_TYPE = {("AllergyIntolerance", "date"): "recordedDate"}
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class SinceParameter(NamedTuple):
    """The parameter that limits a search of a type to news."""

    name: str
    mode: Literal["updated", "created"]


def since_parameter(resource_type: str, profile: VendorProfile, capability: Capability) -> SinceParameter | None:
    """Return how to request news of this type; None: it is listed in full."""
    mode = profile.changes.since_mode
    if mode in {"auto", "updated"} and _updated(resource_type, profile, capability):
        return SinceParameter(LAST_UPDATED, "updated")
    if mode in {"auto", "created"} and resource_type in profile.search.created_params:
        return SinceParameter(profile.search.created_params[resource_type], "created")
    return None


def _updated(resource_type: str, profile: VendorProfile, capability: Capability) -> bool:
    if resource_type in profile.search.last_updated_types:
        return True
    return not profile.search.types and LAST_UPDATED in capability.search_params.get(resource_type, ())


def window_parameter(resource_type: str, profile: VendorProfile, capability: Capability) -> SinceParameter | None:
    """The parameter that requests this type between two instants; None: there is none."""
    if _updated(resource_type, profile, capability):
        once = resource_type in profile.search.last_updated_once
        return None if once else SinceParameter(LAST_UPDATED, "updated")
    created = profile.search.created_params.get(resource_type)
    return SinceParameter(created, "created") if created else None


def date_of(body: bytes, resource_type: str, parameter: str) -> str | None:
    """The date that a parameter looks at, as the resource has it; None where it has none.

    One that cannot be read counts as none: a watermark is then held back further, and a listing is not believed less.
    """
    element = _ELEMENT_BY_TYPE.get((resource_type, parameter)) or _ELEMENT.get(parameter, parameter)
    try:
        fields = _FIELDS.decode(body)
        value: Any = msgspec.json.decode(fields[element]) if element in fields else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, str) else None


@dataclass(frozen=True, kw_only=True)
class SinceByPatient:
    """From when each patient and type is requested: the type's watermark, or an earlier instant for a patient behind it.

    `marks` are instants by type, empty for a full listing. `covered` are the patients that they hold for; None: all, since the
    instants were given by hand.
    """

    marks: Mapping[str, str]
    covered: Container[str] | None = None
    lags: Mapping[tuple[str, str], str | None]

    def of_nobody(self, resource_type: str) -> str | None:
        """The instant to ask a type from that is listed without a patient."""
        return None if (resource_type, "") in self.lags else self.marks.get(resource_type)

    def since(self, resource_type: str, patient: str) -> str | None:
        """The instant to ask from; None: list everything."""
        mark = self.marks.get(resource_type)
        if mark is None or (self.covered is not None and patient not in self.covered):
            return None
        if (resource_type, patient) not in self.lags:
            return mark
        behind = self.lags[resource_type, patient]
        return None if behind is None else _older(behind, mark)

    def behind(self, patients: Sequence[str], turn: int = 0) -> tuple[str, ...]:
        """The patients, those who are behind first.

        They begin with another one in each `turn`: once the server has refused a type for the first ones, it may not be
        requested for later ones (`refused_types`).
        """
        lags = {patient for _, patient in self.lags}
        late = [patient for patient in patients if patient in lags]
        begin = turn % len(late) if late else 0
        return (*late[begin:], *late[:begin], *(patient for patient in patients if patient not in lags))


FULL = SinceByPatient(marks={}, lags={})


def _older(one: str, other: str) -> str:
    a, b = moment(one), moment(other)
    return other if a is None or (b is not None and b < a) else one


def newest(before: datetime | None, text: str | None, until: datetime) -> datetime | None:
    """The newest date seen of a type, future ones aside: a watermark that goes further might skip what is indexed late."""
    found = moment(text)
    if found is None or found > until or (before is not None and found <= before):
        return before
    return found
