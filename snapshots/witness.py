"""Who can witness a row, and what an EHR says of one that it does not give: shapes only.

Standard library only. What is believed is decided by `snapshots.evidence`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class WayScope(StrEnum):
    """For whose rows a complete listing by a way speaks."""

    EVERYTHING = "everything"  # of the type: a directory listing, an export of the system or of all patients
    MEMBERS = "members"  # those of the patients that it covers: an export of a Group, or of named patients
    PATIENT = "patient"  # those of the one patient who is asked for
    NOTHING = "nothing"  # it lists nothing: a read by id, a reference


class Way(NamedTuple):
    """What can list a resource. A row knows the ways that ever listed it, and only these can miss it (docs/completeness.md)."""

    name: str  # "search", "search category=laboratory", "directory", "export group"; never a Group's or a patient's id
    scope: WayScope
    strict: bool = True  # an unchanged row that it listed belongs in it; False: filters and mentions may drop it
    codes: tuple[str, ...] = ()  # categories that it is narrowed to


class Said(StrEnum):
    """What an EHR said of a resource that it did not give."""

    NOT_FOUND = "not-found"  # HTTP 404 to a read
    GONE = "gone"  # HTTP 410, or a code that means the same (Epic 4103)
    DELETED = "deleted"  # a bulk manifest's `deleted` file
    MERGED = "merged"  # a Patient: the id leads to another (Epic 4107, a redirect)
    WITHHELD = "withheld"  # HTTP 403: this client may not see it, which proves nothing
    UNANSWERED = "unanswered"  # asked, and nothing of use came


class Deletion(NamedTuple):
    """An EHR's word on a resource that it did not give. What is believed of it is decided when the run ends (`evidence`)."""

    resource_type: str
    id: str
    said: Said | None = Said.DELETED  # None: it was asked for by its id, and a search did not bring it
    way: Way | None = None  # what asked for it, where that lists: a Patient of a cohort


class AbsentRow(NamedTuple):
    """A row that this run has missed, and that is to be asked for by its id."""

    resource_type: str
    id: str
    patient_id: str | None
