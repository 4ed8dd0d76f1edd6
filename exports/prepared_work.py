"""Prepares an export: decides which files a request needs, and compiles everything that fills them.

Owns the steps before the first byte: narrow the snapshot, plan the files, compile views and queries, divide tables. Mistakes in a
request are found here. `run` writes what is prepared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from exports.catalogue import LoadedView, builtin_names, load_views
from exports.compiler import CompiledView
from exports.criteria import Applied, apply_criteria, criteria_by_type
from exports.deidentified_views import compiled_over_deidentified, deidentified_table
from exports.errors import PlanError
from exports.formats.data_package import DescribedTable
from exports.formats.table_file import load_formats
from exports.manifest_request import request_entry
from exports.named_patients import patient_notes
from exports.partitions import divided_tables, division_of, rows_of
from exports.plan import DIVIDED, TYPE, ExportRequest, PlannedFile, check_changes, check_snapshot, plan_export
from exports.queries.statement import Statement, compile_libraries, load_library
from exports.safe_harbor.deidentify import Deidentifier
from exports.safe_harbor.rows import DeidentifiedCharts
from exports.snapshot_port import Snapshot
from exports.tables import Table, ViewRows, compiled_over, described, query_table, view_table


@dataclass(frozen=True)
class Work:
    """The files to write, their tables and what these were compiled from.

    `available`: the approximate number of rows by type, None where it is unknown. `tables`: by the name of a view or query, or of
    the file for a part of a divided table. `charts`: the rules for a de-identified export; None: resources stay as they are.
    `of_patients`: the note about named patients who are not stored.
    """

    applied: tuple[Applied, ...]
    available: Mapping[str, int | None]
    files: tuple[PlannedFile, ...]
    compiled: Sequence[tuple[CompiledView, ...]]
    statements: Sequence[Statement]
    tables: Mapping[str, Table]
    described: Sequence[DescribedTable]
    charts: DeidentifiedCharts | None
    of_patients: tuple[str, ...]

    def request_entry(self, request: ExportRequest, snapshot: Snapshot) -> dict[str, Any]:
        """Return what the manifest says about the request."""
        return request_entry(request, self.files, self.applied, self.statements, changed_since=snapshot.changed_since)

    def notes(self) -> Iterator[str]:
        """Yield what is doubtful: patients who are not stored, and elements of views and queries that R4 does not have."""
        yield from self.of_patients
        yield from (f"view {parts[0].name!r}, {note}" for parts in self.compiled for note in parts[0].notes)
        yield from (note for statement in self.statements for note in statement.notes)

    def masked(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the mask and, by view, the columns that are masked; None: the reader sees every value.

        A masked date is an empty cell. NDJSON has the mask in place of every encrypted value.
        """
        if snapshot.mask is None:
            return None
        columns = {parts[0].name: [one.name for one in parts[0].columns if one.sealed] for parts in self.compiled}
        return {"mask": snapshot.mask, "columns": {name: found for name, found in columns.items() if found}}


async def prepare(request: ExportRequest, snapshot: Snapshot) -> Work:
    """Narrow the snapshot to the request, plan its files, and compile its views and queries. Writes nothing.

    Raises:
        ViewError: a view that does not exist or is wrong.
        QueryError: a query that is wrong.
        PlanError: the request contradicts itself or the snapshot.
    """
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
    of_patients = await patient_notes(snapshot)
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
    sources = list(compiled.values())
    return Work(applied, available, files, sources, statements, tables | divided, descriptions, charts, of_patients)


async def _divided(
    request: ExportRequest,
    files: tuple[PlannedFile, ...],
    tables: Mapping[str, Table],
    compiled: Mapping[str, tuple[CompiledView, ...]],
    snapshot: Snapshot,
) -> tuple[dict[str, Table], tuple[PlannedFile, ...]]:
    """Divide the tables that have the requested column. Return the tables of the new files, by file name, and all files."""
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
    """Return the description of each table in each format. A divided table has one description, which names all its files."""
    found: dict[tuple[str, str], DescribedTable] = {}
    for file in files:
        for one in file.tables:
            key, table = (one.name, file.kind), described(file, tables[one.name])
            paths = (*(found[key].paths if key in found else ()), *table.paths)
            found[key] = replace(found.get(key, table), paths=paths)
    return list(found.values())


async def _narrow(request: ExportRequest, snapshot: Snapshot, views: Sequence[LoadedView]) -> tuple[Applied, ...]:
    """Narrow the snapshot to the rows that the request selects."""
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


def _views(request: ExportRequest) -> list[LoadedView]:
    if not request.wants_tables and not request.views:
        return []
    return load_views(request.views or builtin_names())
