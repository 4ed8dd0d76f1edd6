"""What an export writes: from a request and what the store holds to a list of files. Pure.

Reading views and compiling them is left to `catalogue` and `compiler`, writing to `run`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from exports.catalogue import LoadedView
from exports.errors import PlanError

FORMATS = ("ndjson", "csv")
_TYPE_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What was asked for. Empty `formats`: csv where views are named, else ndjson. Empty `views`: all built-in ones.

    `types`, `connections` and `patients` narrow what is read (empty or None: everything); the last two are the snapshot's matter
    and are kept here for the manifest. `strict`: a value that does not fit its column ends the export, and is not left out.
    """

    out: Path
    formats: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None
    strict: bool = False

    @property
    def wanted_formats(self) -> tuple[str, ...]:
        """The formats to write, in a fixed order."""
        wanted = self.formats or (("csv",) if self.views else ("ndjson",))
        return tuple(name for name in FORMATS if name in wanted)


@dataclass(frozen=True)
class PlannedFile:
    """One file to write: resources of a type, or the rows of a view."""

    name: str
    kind: str  # "ndjson" | "csv"
    resource_type: str
    view: LoadedView | None = None


def plan_export(
    request: ExportRequest, available: Collection[str], views: Sequence[LoadedView]
) -> tuple[PlannedFile, ...]:
    """The files of an export, NDJSON by type before CSV by view, each sorted by name.

    A type that was asked for by name gets its file even where the store has none of it: an empty one.

    Raises:
        PlanError: a format that does not exist, views without csv or of a type that was left out, two views of one name, a type
            that no file can be called.
    """
    unknown = [name for name in request.formats if name not in FORMATS]
    if unknown:
        raise PlanError(f"no such export format: {', '.join(unknown)}; allowed: {', '.join(FORMATS)}")
    if request.views and "csv" not in request.wanted_formats:
        raise PlanError(f"views make CSV files, but the formats asked for are {', '.join(request.formats)}; add csv")
    types = sorted(set(request.types or available))
    for resource_type in types:
        if not _TYPE_NAME.fullmatch(resource_type):
            raise PlanError(f"{resource_type!r} is no resource type; allowed: a name such as Patient")
    planned: list[PlannedFile] = []
    if "ndjson" in request.wanted_formats:
        planned += [PlannedFile(f"{name}.ndjson.gz", "ndjson", name) for name in types]
    if "csv" in request.wanted_formats:
        planned += _view_files(request, views)
    return tuple(planned)


def _view_files(request: ExportRequest, views: Sequence[LoadedView]) -> list[PlannedFile]:
    # views named by the user are all written; of the built-in ones, those of the types asked for
    chosen = [view for view in views if request.views or not request.types or view.resource in request.types]
    left_out = [view for view in chosen if request.types and view.resource not in request.types]
    if left_out:
        told = ", ".join(f"{view.name} reads {view.resource}" for view in left_out)
        raise PlanError(f"{told}, which the types asked for leave out ({', '.join(request.types)}); add it to them")
    by_name = {view.name: view for view in chosen}
    if len(by_name) < len(chosen):
        names = [view.name for view in chosen]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise PlanError(f"two views are named {', '.join(twice)}, and would be one file; rename one of them")
    return [PlannedFile(f"{name}.csv.gz", "csv", view.resource, view) for name, view in sorted(by_name.items())]
