"""The use case: exports one snapshot to one destination.

Follows the paragraph "Export" of ARCHITECTURE.md: request, plan, one snapshot, bytes out, gzip, part files, rename, manifest. The
caller opens and closes the snapshot, and chooses its connections and patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from exports.catalogue import LoadedView, builtin_names, load_views
from exports.compiler import CompiledView
from exports.criteria import Applied, apply_criteria, criteria_by_type
from exports.deidentified_views import compiled_over_deidentified, deidentified_table
from exports.delivery.destination import Destination
from exports.delivery.encryption import Recipients
from exports.delivery.files import DeliveredFile
from exports.delivery.manifest import described_before, manifest_content
from exports.delivery.outgoing import Outgoing, Parts, Tally
from exports.drift import Drift, drift_between
from exports.errors import DriftError, PlanError
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
from exports.formats.table_file import load_formats
from exports.manifest_request import request_entry
from exports.parallel_reading import fill_all
from exports.partitions import divided_tables, division_of, rows_of
from exports.plan import DIVIDED, TYPE, ExportRequest, PlannedFile, check_changes, check_snapshot, plan_export
from exports.queries.statement import Statement, compile_libraries, load_library
from exports.safe_harbor.deidentify import Deidentifier
from exports.safe_harbor.manifest_profile import manifest_profile
from exports.safe_harbor.rows import DeidentifiedCharts, DeidentifiedRows
from exports.snapshot_port import RowChunks, ShownRun, Snapshot, UnendedRun
from exports.tables import (
    Show,
    Table,
    ViewRows,
    compiled_over,
    described,
    fill_database,
    fill_table,
    query_table,
    view_table,
)

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

    out: str  # the destination in words
    files: tuple[DeliveredFile, ...]
    rows: int
    as_of: datetime
    runs: tuple[ShownRun, ...]
    not_included: tuple[UnendedRun, ...]
    notes: tuple[str, ...] = ()  # what is doubtful about its views and criteria: elements that R4 does not have
    drift: tuple[Drift, ...] = ()  # from the last export at the destination
    profile: Mapping[str, Any] | None = None  # what it was de-identified by, and what was dropped
    # by type, what `where` left out since it could not decide
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
    has listed stay. `sessions`: how many read at a time; fewer, if the server gives no more. `at_once`: how many files are
    written at a time; None: one for each session.

    Raises:
        ViewError: a view that does not exist or is wrong.
        ViewDataError: the request is strict, and a value does not fit its column.
        PlanError: the request contradicts itself.
        DriftError: the request is frozen, and columns are not those of the destination's last export.
        DestinationError: the destination cannot be read or written, or does not give back what was written.
    """
    work = await _prepared(request, snapshot)
    with work.charts or nullcontext(), request.out.opened() as folder, _outgoing(request, folder) as files:
        drift, doubts = _drift(request.out, work.described, freeze=request.freeze)
        await _write(work, files, snapshot, on_progress, sessions=sessions, at_once=at_once)
        deleted = () if snapshot.changed_since is None else (DELETED_NAME,)
        delivered = files.in_order((*(planned.name for planned in work.files), *deleted))
        descriptions = _describe(files, work.described)
        profile = None if work.charts is None else manifest_profile(work.charts.deidentifier, work.available)
        manifest = manifest_content(
            version=version("chartferry"),
            as_of=snapshot.as_of,
            runs=snapshot.shown,
            left_by=snapshot.left_by,
            not_included=snapshot.not_included,
            request=work.request_entry(request, snapshot),
            files=delivered,
            descriptions=descriptions,
            drift=[asdict(one) for one in drift],
            profile=profile,
            recipients=request.recipients,
            masked=_masked(snapshot, work),
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


def _masked(snapshot: Snapshot, work: _Work) -> dict[str, Any] | None:
    """Return the mask, and the columns that have it or, of days, are empty; NDJSON has it wherever a value is encrypted."""
    if snapshot.mask is None:
        return None
    columns = {parts[0].name: [one.name for one in parts[0].columns if one.sealed] for parts in work.compiled}
    return {"mask": snapshot.mask, "columns": {name: found for name, found in columns.items() if found}}


def _outgoing(request: ExportRequest, folder: Path) -> Outgoing:
    return Outgoing(request.out, folder, part_size=request.part_size, recipients=request.recipients)


@dataclass(frozen=True)
class _Work:
    """What there is to write: files, the tables in them and of what these are compiled, and what stands beside the tables."""

    applied: tuple[Applied, ...]
    available: Mapping[str, int | None]
    files: tuple[PlannedFile, ...]
    compiled: Sequence[tuple[CompiledView, ...]]
    statements: Sequence[Statement]
    tables: Mapping[str, Table]  # of views and queries, by name
    described: Sequence[DescribedTable]
    charts: DeidentifiedCharts | None  # what leaves of the snapshot, where it is de-identified

    def request_entry(self, request: ExportRequest, snapshot: Snapshot) -> dict[str, Any]:
        """What the manifest says about the request."""
        return request_entry(request, self.files, self.applied, self.statements, changed_since=snapshot.changed_since)

    def notes(self) -> Iterator[str]:
        """What is doubtful about the request."""
        yield from (f"view {parts[0].name!r}, {note}" for parts in self.compiled for note in parts[0].notes)
        yield from (note for statement in self.statements for note in statement.notes)


async def _prepared(request: ExportRequest, snapshot: Snapshot) -> _Work:
    """Narrow the snapshot, plan, and compile all: what is wrong with a request is found here."""
    load_formats(request.wanted_formats)
    check_changes(snapshot.changed_since, snapshot.erased_since)
    if request.safe_harbor is not None:
        check_snapshot(request.safe_harbor, snapshot.connections, snapshot.changed_since)
        if snapshot.mask is not None:
            raise PlanError(
                "de-identification reads birth dates, to leave out ages over 89, and they are masked for you: let somebody in a "
                "role that sees them export, or lift the mask this once (--break-glass)"
            )
    views = _views(request)
    applied = await _narrow(request, snapshot, views)
    available = dict(await snapshot.present())
    files = plan_export(request, available, views, [load_library(path).name for path in request.queries])
    planned = {one.name: one.view for file in files for one in file.tables if one.view is not None}
    charts = None if request.safe_harbor is None else DeidentifiedCharts(Deidentifier(request.safe_harbor))
    compile_ = compiled_over if charts is None else compiled_over_deidentified
    compiled = {name: compile_(view, snapshot) for name, view in planned.items()}
    statements = await compile_libraries(request.queries, request.parameters, snapshot)
    tables = {
        name: view_table(view, compiled[name], strict=request.strict)
        if charts is None
        else deidentified_table(view, compiled[name][0], charts, strict=request.strict)
        for name, view in planned.items()
    }
    tables |= {one.name: query_table(one) for one in statements}
    divided, files = await _divided(request, files, tables, compiled, snapshot)
    descriptions = _described(files, tables)
    return _Work(applied, available, files, list(compiled.values()), statements, tables | divided, descriptions, charts)


async def _divided(
    request: ExportRequest,
    files: tuple[PlannedFile, ...],
    tables: Mapping[str, Table],
    compiled: Mapping[str, tuple[CompiledView, ...]],
    snapshot: Snapshot,
) -> tuple[dict[str, Table], tuple[PlannedFile, ...]]:
    """Divide the tables that have the column that is asked for: the tables of the new files, by file, and all files."""
    column = request.partition_by
    if column is None or column == TYPE:
        return {}, files
    columns = {name: tables[name].columns for name in compiled}
    how = {name: await division_of(column, compiled[name], snapshot) for name in divided_tables(column, columns)}
    found: dict[str, Table] = {}
    planned: list[PlannedFile] = []
    for file in files:
        name = file.tables[0].name if file.kind in DIVIDED else ""
        parts = how[name].files(file) if name in how else [file]
        for one in parts if name in how else ():
            views = rows_of(one.value, how[name], compiled[name])
            found[one.name] = replace(tables[name], rows=partial(_view_rows, views, request.strict))
        planned += parts
    return found, tuple(planned)


def _view_rows(views: Sequence[CompiledView], strict: bool, snapshot: Snapshot) -> ViewRows:
    return ViewRows(views, snapshot, strict=strict)


def _described(files: Sequence[PlannedFile], tables: Mapping[str, Table]) -> list[DescribedTable]:
    """Return what is to be said of each table in each format; of one that is divided once, with all its files."""
    found: dict[tuple[str, str], DescribedTable] = {}
    for file in files:
        for one in file.tables:
            key, table = (one.name, file.kind), described(file, tables[one.name])
            paths = (*(found[key].paths if key in found else ()), *table.paths)
            found[key] = replace(found.get(key, table), paths=paths)
    return list(found.values())


async def _write(
    work: _Work,
    files: Outgoing,
    snapshot: Snapshot,
    on_progress: Callable[[FileProgress], None],
    *,
    sessions: int,
    at_once: int | None,
) -> None:
    """Write and stage the files with data; they are not in their places yet."""

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


def _largest_first(work: _Work) -> list[PlannedFile]:
    """The files in an order in which sessions that share them end at the same time: by the resources that they read."""

    def rows(planned: PlannedFile) -> int:
        read = [planned.resource_type, *(one.view.resource for one in planned.tables if one.view is not None)]
        return sum(work.available.get(name) or 0 for name in read)

    return sorted(work.files, key=rows, reverse=True)


async def _fill_resources(files: Outgoing, planned: PlannedFile, work: _Work, snapshot: Snapshot, show: Show) -> None:
    """Write the resources of a type, as they are or as the profile allows."""
    rows: RowChunks
    if work.charts is None:
        rows = ndjson_rows(snapshot, planned.resource_type)
    else:
        rows = DeidentifiedRows(work.charts, planned.resource_type, snapshot)
    await _fill_lines(files, planned, rows, snapshot.connections, show)


async def _narrow(request: ExportRequest, snapshot: Snapshot, views: Sequence[LoadedView]) -> tuple[Applied, ...]:
    """Narrow the snapshot to what the request wants of it."""
    if not request.is_part:
        return ()
    if snapshot.changed_since is not None:
        raise PlanError(
            "--where, --sample and --limit leave out some changes, so nobody could follow them: leave out --changed-since"
        )
    criteria = criteria_by_type(request.where)
    read = {*request.types} if request.types or not request.wants_tables else {view.resource for view in views}
    everything = request.queries or ("ndjson" in request.wanted_formats and not request.types)
    if idle := sorted(set() if everything else set(criteria) - read):
        raise PlanError(
            f"--where, on {', '.join(idle)}: nothing of that type is exported; request it, or leave the criterion out"
        )
    conditions, applied = await apply_criteria(criteria, snapshot)
    seed = request.seed if request.safe_harbor is None else request.safe_harbor.seeded(request.seed)
    await snapshot.narrow(keep=conditions, sample=request.sample, seed=seed, limit=request.limit)
    return applied


def _drift(
    destination: Destination, tables: Sequence[DescribedTable], *, freeze: bool
) -> tuple[tuple[Drift, ...], list[str]]:
    """How the columns differ from those of the last export at the destination, and what is to be said if that is not known.

    Raises:
        DriftError: they do, or may, and must not.
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


def _views(request: ExportRequest) -> list[LoadedView]:
    if not request.wants_tables and not request.views:
        return []
    return load_views(request.views or builtin_names())


def _shown(name: str, expected: int | None, on_progress: Callable[[FileProgress], None]) -> Show:
    def show(rows: int, size: int, done: bool) -> None:
        on_progress(FileProgress(name, rows, size, rows if done else expected, done=done))

    return show


async def _fill_lines(
    files: Outgoing, planned: PlannedFile, chunks: RowChunks, connections: Sequence[str], show: Show
) -> None:
    """Write lines of JSON: the resources of a type, or the deletions; those of several connections come one after the other."""

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
