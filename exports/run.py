"""Exports one snapshot to one destination.

Owns the order of the steps ("Export" in ARCHITECTURE.md): prepare, write temporary files, rename them, write the manifest last.
`prepared_work` decides what to write. The caller opens and closes the snapshot, and chooses its connections and patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from exports.delivery.destination import Destination
from exports.delivery.encryption import Recipients
from exports.delivery.files import DeliveredFile
from exports.delivery.manifest import described_before, manifest_content
from exports.delivery.outgoing import Outgoing, Parts, Tally
from exports.drift import Drift, drift_between
from exports.errors import DriftError
from exports.formats.data_package import (
    DICTIONARY_NAME,
    PACKAGE_NAME,
    DescribedTable,
    dictionary_content,
    package_content,
)
from exports.formats.deletions import deletion_bundles
from exports.formats.file_formats import FILE_FORMATS
from exports.formats.ndjson import Lines, ndjson_rows
from exports.parallel_reading import fill_all
from exports.plan import ExportRequest, PlannedFile
from exports.prepared_work import Work, prepare
from exports.safe_harbor.manifest_profile import manifest_profile
from exports.safe_harbor.rows import DeidentifiedRows
from exports.snapshot_port import RowChunks, ShownRun, Snapshot, UnendedRun
from exports.tables import Show, fill_database, fill_table

DELETED_NAME = "deleted.ndjson.gz"


@dataclass(frozen=True)
class FileProgress:
    """The progress of a file: rows and uncompressed bytes so far; `expected_rows` is None if unknown until the end."""

    file: str
    rows: int
    bytes: int
    expected_rows: int | None
    done: bool


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote. `rows` is the sum over all files; the files contain nothing of the runs in `not_included`."""

    out: str  # the destination, for people
    files: tuple[DeliveredFile, ...]
    rows: int
    as_of: datetime
    runs: tuple[ShownRun, ...]
    not_included: tuple[UnendedRun, ...]
    notes: tuple[str, ...] = ()  # doubts: patients that are not stored, elements that R4 does not have
    drift: tuple[Drift, ...] = ()  # from the last export at the destination
    profile: Mapping[str, Any] | None = None  # how it was de-identified, and what was dropped
    # by type: rows left out because `where` could not decide
    undecided: Mapping[str, int] = field(default_factory=dict)
    recipients: Recipients | None = None  # for whom the files are encrypted


async def export(
    request: ExportRequest,
    snapshot: Snapshot,
    *,
    on_progress: Callable[[FileProgress], None] = lambda _: None,
    sessions: int = 1,
    at_once: int | None = None,
) -> ExportResult:
    """Write the files of a request and their manifest; equal requests on equal runs give equal bytes, or tables of DuckDB.

    Compiles every view before it writes anything, and completes every new file before it touches the previous export. Then it
    removes the previous manifest, replaces or deletes the previous files, and writes the new manifest last. Files that no export
    has listed stay. `sessions`: how many database sessions read at a time, or fewer if the server allows no more. `at_once`: how
    many files are written at a time; None: one per session.

    Raises:
        ViewError: a view that does not exist or is wrong.
        ViewDataError: the request is strict, and a value does not fit its column.
        PlanError: the request contradicts itself.
        DriftError: the request is frozen, and the columns differ from those of the destination's last export.
        DestinationError: the destination cannot be read or written, or returns other bytes than were written.
    """
    work = await prepare(request, snapshot)
    with work.charts or nullcontext(), request.out.opened() as folder, _outgoing(request, folder) as files:
        drift, doubts = _drift(request.out, work.described, freeze=request.freeze)
        await _write(work, files, snapshot, on_progress, sessions=sessions, at_once=at_once)
        deleted = () if snapshot.changed_since is None else (DELETED_NAME,)
        delivered = files.in_order((*(planned.name for planned in work.files), *deleted))
        descriptions = _describe(files, work.described)
        profile = None if work.charts is None else manifest_profile(work.charts.deidentifier, work.available)
        manifest = manifest_content(
            version=version("chartferry"),
            snapshot=snapshot,
            request=work.request_entry(request, snapshot),
            files=delivered,
            descriptions=descriptions,
            drift=[asdict(one) for one in drift],
            profile=profile,
            recipients=request.recipients,
            masked=work.masked(snapshot),
        )
        await snapshot.end()
        files.place(frozenset(file.path for file in (*delivered, *descriptions)), manifest)
    rows = sum(file.rows for file in delivered)
    of = (snapshot.as_of, snapshot.shown, snapshot.not_included)
    return ExportResult(
        str(request.out),
        delivered,
        rows,
        *of,
        notes=(*work.notes(), *doubts),
        drift=drift,
        profile=profile,
        undecided={one.resource_type: one.undecided for one in work.applied if one.undecided},
        recipients=request.recipients,
    )


def _outgoing(request: ExportRequest, folder: Path) -> Outgoing:
    return Outgoing(request.out, folder, part_size=request.part_size, recipients=request.recipients)


async def _write(
    work: Work,
    files: Outgoing,
    snapshot: Snapshot,
    on_progress: Callable[[FileProgress], None],
    *,
    sessions: int,
    at_once: int | None,
) -> None:
    """Write the files with data as temporary files; `Outgoing.place` puts them in their places."""

    async def fill(planned: PlannedFile, snapshot: Snapshot) -> None:
        expected = work.available.get(planned.resource_type) if planned.kind == "ndjson" else None
        show = _shown(planned.name, expected, on_progress)
        tables = {one.name: work.tables.get(planned.name, work.tables[one.name]) for one in planned.tables}
        if planned.kind == "ndjson":
            await _fill_resources(files, planned, work, snapshot, show)
        elif FILE_FORMATS[planned.kind].database:
            await fill_database(files, planned, tables, snapshot, show)
        else:
            (table,) = tables.values()
            await fill_table(files, planned, table, snapshot, show)

    await fill_all(_largest_first(work), snapshot, fill, sessions=sessions, at_once=at_once)
    if snapshot.changed_since is not None:
        planned = PlannedFile(DELETED_NAME, "deleted")
        show = _shown(DELETED_NAME, None, on_progress)
        await _fill_lines(files, planned, deletion_bundles(snapshot), snapshot.connections, show)


def _largest_first(work: Work) -> list[PlannedFile]:
    """Return the files by the number of rows that they read, most first, so that sessions that share them end together."""

    def rows(planned: PlannedFile) -> int:
        read = [planned.resource_type, *(one.view.resource for one in planned.tables if one.view is not None)]
        return sum(work.available.get(name) or 0 for name in read)

    return sorted(work.files, key=rows, reverse=True)


async def _fill_resources(files: Outgoing, planned: PlannedFile, work: Work, snapshot: Snapshot, show: Show) -> None:
    """Write the resources of a type, unchanged or as the Safe Harbor profile allows."""
    rows: RowChunks
    if work.charts is None:
        rows = ndjson_rows(snapshot, planned.resource_type)
    else:
        rows = DeidentifiedRows(work.charts, planned.resource_type, snapshot)
    await _fill_lines(files, planned, rows, snapshot.connections, show)


def _drift(
    destination: Destination, tables: Sequence[DescribedTable], *, freeze: bool
) -> tuple[tuple[Drift, ...], list[str]]:
    """Return how the columns differ from those of the destination's last export, and a note if that cannot be known.

    Raises:
        DriftError: `freeze` is set, and the columns differ or the last ones cannot be read.
    """
    former = described_before(destination, PACKAGE_NAME)
    if former is None or not tables:
        return (), []
    try:
        drift = drift_between(former, package_content(tables))
    except DriftError as unreadable:
        if freeze:
            raise
        return (), [str(unreadable)]
    if drift and freeze:
        lines = "\n".join(f"  {one}" for one in drift)
        raise DriftError(
            f"the columns differ from those of the last export in {destination}, which stays as it is. Export without "
            f"--freeze to accept that:\n{lines}"
        )
    return drift, []


def _describe(files: Outgoing, tables: Sequence[DescribedTable]) -> tuple[DeliveredFile, ...]:
    """Write the files that describe the tables."""
    if not tables:
        return ()
    in_parts = [replace(table, paths=tuple(file.path for file in files.in_order(table.paths))) for table in tables]
    return (
        files.describe(PACKAGE_NAME, "schema", package_content(in_parts)),
        files.describe(DICTIONARY_NAME, "dictionary", dictionary_content(in_parts)),
    )


def _shown(name: str, expected: int | None, on_progress: Callable[[FileProgress], None]) -> Show:
    def show(rows: int, size: int, done: bool) -> None:
        on_progress(FileProgress(name, rows, size, rows if done else expected, done=done))

    return show


async def _fill_lines(
    files: Outgoing, planned: PlannedFile, chunks: RowChunks, connections: Sequence[str], show: Show
) -> None:
    """Write lines of JSON: the resources of a type or the deletions, one connection after the other."""

    def tally() -> Tally:
        if len(connections) == 1:
            return Tally(chunks.rows)
        ended = chunks.rows_by_query
        rows = [*ended, chunks.rows - sum(ended), *[0] * len(connections)]
        return Tally(chunks.rows, rows_by_connection=dict(zip(connections, rows, strict=False)))

    with Parts(files, planned.name, kind=planned.kind, compress=planned.compress, open_=Lines) as parts:
        async for chunk in chunks:
            parts.add(chunk, tally)
            show(chunks.rows, parts.uncompressed_bytes, False)
        parts.close(tally())
    show(chunks.rows, parts.uncompressed_bytes, True)
