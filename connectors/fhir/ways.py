"""What can list resources: the ways of searches, directory listings and exports. Pure.

A row knows the ways that listed it, and only these can miss it (`snapshots.evidence`). A way's name never holds a patient or a
Group: its roster says whom an export covers.
"""

from __future__ import annotations

from hashlib import blake2b

from connectors.fhir.profile import BulkLevel
from snapshots.witness import Way, WayScope

PATIENTS = Way("patient", WayScope.PATIENT)  # Patients by their ids: read, or in a batch
DIRECTORY = Way("directory", WayScope.EVERYTHING)  # a search without a patient
_CATEGORY = "category="


def search_way(split: str) -> Way:
    """A patient's search of a type, narrowed by the profile's split ("": not narrowed)."""
    if not split:
        return Way("search", WayScope.PATIENT)
    return Way(f"search {split}", WayScope.PATIENT, codes=categories(split))


def categories(split: str) -> tuple[str, ...]:
    """The category codes that a split asks for; () where it is no split by category."""
    if not split.startswith(_CATEGORY):
        return ()
    return tuple(code.rpartition("|")[2] for code in split[len(_CATEGORY) :].split(","))


def export_way(level: BulkLevel, narrowed: str, beside: str) -> tuple[Way, Way | None]:
    """An export of a type at a level; and the way of what belongs to no patient, where that is another.

    `narrowed` marks its filters ("": none), which make a way of their own that a row may leave at any time. What an export of
    members lists and belongs to no patient is there because a member's chart mentions it: it may leave the export too, and
    another Group's export (`beside` marks which) says nothing about it.
    """
    name = f"export {level}{f' narrowed {narrowed}' if narrowed else ''}"
    if level in ("system", "patient"):
        return Way(name, WayScope.EVERYTHING, strict=not narrowed), None
    return (
        Way(name, WayScope.MEMBERS, strict=not narrowed),
        Way(f"{name} beside {beside}", WayScope.EVERYTHING, strict=False),
    )


def mark(*parts: str) -> str:
    """A short name for what must not be named itself."""
    return blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()
