"""What a unit's fetcher needs to request it again: one shape per kind, written into the ledger and read from it only here. Pure.

What SQL needs of a unit are fields of the unit itself (`snapshots.unit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from connectors.fhir.outcomes import Issue
from snapshots.unit import Unit


class Detail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A detail as the ledger keeps it: JSON. Unknown fields, which another version wrote, are ignored."""

    @classmethod
    def of(cls, unit: Unit) -> Self:
        """Read the unit's detail as one of this kind.

        Raises:
            msgspec.ValidationError: it is none: the unit is of another kind.
        """
        return msgspec.convert(unit.detail, cls)

    @property
    def packed(self) -> Mapping[str, Any]:
        """The detail as a unit holds it."""
        found: Mapping[str, Any] = msgspec.to_builtins(self)
        return found


class SearchDetail(Detail, frozen=True, kw_only=True):
    """A search or read below the FHIR base: units of kind "search", "read" and "batch"."""

    path: str
    expected: bool = False  # the type must be there: that it is not served is a hole
    expect: int = 0  # how many must come
    known: bool = False  # the store has the Patient, or a merge names it: that the EHR does not is news, and no hole
    store: bool = True  # False: it is only looked whether it is there


class CohortDetail(Detail, frozen=True, kw_only=True):
    """A patient whom an export names, or a member of its Group: units of kind "cohort"."""

    # only an earlier run's merge names this patient: that the EHR does not know the id is no hole
    survivor: bool = False


class FileDetail(Detail, frozen=True, kw_only=True):
    """A file of a bulk manifest: units of kind "file", "deleted-file" and "error-file"."""

    url: str  # "": the manifest did not say
    list: str = ""  # of the manifest: "output", "deleted", "error"
    position: int = 0  # in that list when it became a unit, from 1
    requires_token: bool | None = None
    lists_all: bool = False  # it proves what it does not list
    elements: bool = False  # requested with `_elements`: its resources are not whole
    organized: bool = False  # its lines follow headers (`organizeOutputBy`)
    count: int | None = None  # lines, as the manifest counts them


class NoFileDetail(Detail, frozen=True, kw_only=True):
    """A type that was requested by name and for which a manifest lists no file."""

    lists_all: bool = False


class DoubtDetail(Detail, frozen=True, kw_only=True):
    """What a manifest says itself, or has that nobody understands: there is nothing to fetch."""

    doubt: str  # for people; "": it has issues and leaves no doubt
    more: bool  # there may be more files than it lists
    issues: tuple[Issue, ...] = ()  # what it says itself of what failed, each once


class AttachmentDetail(Detail, frozen=True, kw_only=True):
    """A document that the resource of the unit's id has attached."""

    place: int  # from 0, as in content[0]
    url: str
    content_type: str | None = None
    size: int | None = None  # as claimed, bytes
    hash: str | None = None  # as claimed, base64 of SHA-1
