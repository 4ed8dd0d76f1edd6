"""The shapes of witnesses, and of an EHR's statements about rows that it does not return.

Standard library only. `snapshots.fates` decides what to believe.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class WayScope(StrEnum):
    """Whose rows a complete listing by a way covers."""

    EVERYTHING = "everything"  # all of the type: a directory listing, an export of the system or of all patients
    MEMBERS = "members"  # those of the patients that it covers: an export of a Group, or of named patients
    PATIENT = "patient"  # those of the one requested patient
    NOTHING = "nothing"  # what it does not show may be there: a read by id, a reference, a feed of messages


class Way(NamedTuple):
    """What can list a resource. A row knows the ways that ever listed it, and only these can miss it (docs/completeness.md)."""

    name: str  # "search", "search category=laboratory", "directory", "export group"; never a Group's or a patient's id
    scope: WayScope
    strict: bool = True  # lists an unchanged row again; False: filters and mentions may drop it
    codes: tuple[str, ...] = ()  # categories to which it is restricted


class Said(StrEnum):
    """An EHR's answer about a resource that it did not return."""

    NOT_FOUND = "not-found"  # HTTP 404 to a read
    GONE = "gone"  # HTTP 410, or a code that means the same (Epic 4103)
    DELETED = "deleted"  # a bulk manifest's `deleted` file
    MERGED = "merged"  # a Patient: the id leads to another Patient (Epic 4107, a redirect)
    WITHHELD = "withheld"  # HTTP 403: this client may not see it, which proves nothing
    UNANSWERED = "unanswered"  # requested, but no usable answer came
    UNREADABLE = "unreadable"  # not requested: the EHR declares no reads of the type


class Deletion(NamedTuple):
    """An EHR's statement about a resource that it did not return. `evidence` decides at the end of the run what to believe."""

    resource_type: str
    id: str
    said: Said | None = Said.DELETED  # None: it was requested by its id, and a search did not return it
    way: Way | None = None  # what requested it, if that is a listing: a Patient of a cohort


class AbsentRow(NamedTuple):
    """A row that this run has missed and must request by its id."""

    resource_type: str
    id: str
    patient_id: str | None
