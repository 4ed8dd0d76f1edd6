"""The use case: loads the views of one snapshot into tables elsewhere: in another Postgres, or in Delta Lake.

It loads them whole, or only what has changed since the run that the tables hold. `target` and `delta` own the tables; the caller
opens the snapshot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from psycopg.sql import SQL

from exports.catalogue import LoadedView, builtin_names, load_views
from exports.compiler import CompiledView
from exports.delivery.manifest import instant
from exports.errors import PlanError, WarehouseError
from exports.formats.table_columns import TableColumn, table_columns
from exports.named_patients import patient_notes
from exports.run import FileProgress
from exports.snapshot_port import ShownRun, Snapshot, UnendedRun
from exports.tables import ViewRows, compiled_over
from exports.warehouse.warehouse_port import OpenWarehouse, TableContents, TableState, Warehouse

CONNECTION_PATH, KEY_PATH = "%connection", "getResourceKey()"


@dataclass(frozen=True, kw_only=True)
class WarehouseRequest:
    """What is loaded, and where to. Empty `views`: all built-in ones, of these `types` (empty: all).

    `strict`: a value that does not fit its column fails the load.
    """

    into: Warehouse
    views: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None
    strict: bool = False

    @property
    def checksum(self) -> str:
        """Return a checksum of the selection: rows of another one do not belong in the same tables."""
        patients = None if self.patients is None else sorted(set(self.patients))
        return hashlib.sha256(json.dumps([sorted(set(self.connections)), patients]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class LoadedTable:
    """The result for one table: `rows` were written; `deleted` were replaced, or their resources are gone."""

    name: str
    rows: int
    deleted: int
    added: tuple[str, ...] = ()  # columns that the table did not have
    unfilled: tuple[str, ...] = ()  # columns that the view no longer has, and the table keeps, empty
    left_empty: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0


@dataclass(frozen=True)
class Loaded:
    """What was loaded. No tables: no run has ended, and nothing was touched."""

    where: str
    tables: tuple[LoadedTable, ...]
    as_of: datetime
    runs: tuple[ShownRun, ...]
    left_by: int | None  # the run since which the next load takes changes
    not_included: tuple[UnendedRun, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """One view on its way: compiled for each source, with its columns, and those with the connection and the key."""

    view: LoadedView
    compiled: tuple[CompiledView, ...]
    columns: tuple[TableColumn, ...]
    key: tuple[str, ...]


async def load_warehouse(
    request: WarehouseRequest, snapshot: Snapshot, *, on_progress: Callable[[FileProgress], None] = lambda _: None
) -> Loaded:
    """Load a table for each view with what the snapshot shows: readers see either the old rows of each table, or the new ones.

    A snapshot of what has changed replaces the rows of changed resources, and deletes those of resources that are gone. Tables
    keep their rights and what depends on them. A column that a view has gained is added. Where the tables become visible one
    after the other, those that hold what the changes lead to already stay as they are: so a load goes on that broke off.

    Raises:
        ViewError, ViewDataError: a view is wrong; or the request is strict, and a value does not fit.
        PlanError: views with one name, or of types that are left out, or changes of views without connection and key.
        WarehouseError: the place refuses, a table is somebody else's, or does not hold what the changes begin at.
    """
    if snapshot.mask is not None:
        raise PlanError(
            "others rely on the tables of a warehouse being whole, but encrypted values are masked for you: let somebody in a "
            "role that sees them load the tables, or lift the mask this once (--break-glass)"
        )
    views = _views(request)
    reading = {view.resource for view in views if view.reads_documents}
    tables = [_table(view, snapshot, documents=view.resource in reading) for view in views]
    _check(tables, changes=snapshot.changed_since is not None)
    request.into.check({one.view.name: one.columns for one in tables})
    of_views = [f"view {one.view.name!r}, {note}" for one in tables for note in one.compiled[0].notes]
    notes = (*await patient_notes(snapshot), *of_views)
    of = (snapshot.as_of, snapshot.shown, snapshot.left_by, snapshot.not_included, notes)
    async with request.into.opened() as target:
        if not snapshot.runs:
            return Loaded(str(target), (), *of)
        states = {one.view.name: await target.state(one.view.name) for one in tables}
        work = _Work(target, snapshot, request, on_progress)
        todo = [one for one in tables if not work.is_done(one, states[one.view.name])]
        for one in todo:
            _check_state(one, states[one.view.name], request, snapshot, target)
        if snapshot.changed_since is not None:
            await _note_changes(todo, reading, target, snapshot)
        done = {one.view.name: await work.load(one, states[one.view.name]) for one in todo}
        await snapshot.end()
    loaded = (done.get(one.view.name, LoadedTable(one.view.name, 0, 0)) for one in tables)
    return Loaded(str(target), tuple(replace(one, deleted=target.deleted.get(one.name, 0)) for one in loaded), *of)


def _views(request: WarehouseRequest) -> list[LoadedView]:
    found = load_views(request.views or builtin_names())
    chosen = [view for view in found if not request.types or view.resource in request.types]
    if request.views and len(chosen) < len(found):
        left_out = ", ".join(f"{view.name} reads {view.resource}" for view in found if view not in chosen)
        raise PlanError(f"{left_out}, which the requested types leave out ({', '.join(request.types)}); add it to them")
    return sorted(chosen, key=lambda view: view.name)


def _table(view: LoadedView, snapshot: Snapshot, *, documents: bool) -> _Table:
    # changes are noted by type: what a view that reads documents has of them, each view of the type has
    compiled = compiled_over(view, snapshot, documents=documents and snapshot.changed_since is not None)
    columns = table_columns(compiled[0].columns, view.definition)
    # by the columns' paths, whatever their names; within `forEach` a path starts from another element
    outer = [
        one for part in view.definition.get("select", ()) if _is_of_resource(part) for one in part.get("column", ())
    ]
    named = {one["path"]: one["name"] for one in reversed(outer)}
    key = tuple(named[path] for path in (CONNECTION_PATH, KEY_PATH) if path in named)
    return _Table(view, compiled, columns, key if len(key) == len((CONNECTION_PATH, KEY_PATH)) else ())


def _is_of_resource(selection: Mapping[str, object]) -> bool:
    return not {"forEach", "forEachOrNull", "repeat"} & selection.keys()


def _check(tables: Sequence[_Table], *, changes: bool) -> None:
    names = [one.view.name for one in tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"two views are named {', '.join(twice)}, and would share one table; rename one of them")
    keyless = [one.view.name for one in tables if not one.key]
    if changes and keyless:
        raise PlanError(
            f"changes are loaded by the resource's key, and {', '.join(keyless)} has no columns {CONNECTION_PATH} and {KEY_PATH} "
            "beside each other: add them to the view, or load it whole"
        )


def _check_state(
    one: _Table, state: TableState | None, request: WarehouseRequest, snapshot: Snapshot, target: OpenWarehouse
) -> None:
    """Refuse a table that chartferry has not made, or that has other types, or not the state from which the changes start."""
    name, changes = one.view.name, snapshot.changed_since is not None
    if state is not None and not state.is_ours:
        raise WarehouseError(f"{name} in {target} is not chartferry's: rename the view, or choose another place")
    if state is not None and (retyped := _retyped(state.columns, target.types(one.columns))):
        raise WarehouseError(
            f"{name} in {target}: {', '.join(retyped)} now has another type; drop the table, and load it whole"
        )
    if not changes:
        return
    held = None if state is None else state.held
    began = "" if snapshot.changed_from is None else instant(snapshot.changed_from)
    wanted = TableContents(name, one.view.digest, request.checksum, began, snapshot.changed_from_run, snapshot.erasures)
    if held != wanted:
        same = held is not None and (held.digest, held.request) == (wanted.digest, wanted.request)
        has_erased = held is not None and held.erasures != wanted.erasures
        why = (
            "is not there"
            if state is None
            else "no longer has the comment that says what it holds"
            if held is None
            else "may still hold the chart of a patient who was erased since, and changes cannot say whose it is"
            if has_erased
            else f"holds what run {held.run} left, not what run {snapshot.changed_since} left"
            if same
            else "was loaded by another version of the view, or for other connections or patients"
        )
        instead = "load it whole, without --changed-since"
        if held is not None and same and not has_erased and held.run != wanted.run:
            ended = (
                "" if target.at_once else f"finish a load that broke off after this table with --as-of {held.run}, or "
            )
            instead = f"name run {held.run}, or {ended}{instead}"
        raise WarehouseError(f"{name} in {target} {why}: {instead}")


def _retyped(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the columns that have another type than before."""
    return [name for name, type_ in now.items() if before.get(name, type_) != type_]


async def _note_changes(
    tables: Sequence[_Table], reading: Collection[str], target: OpenWarehouse, snapshot: Snapshot
) -> None:
    """Note in the target which resources have changed or are gone, since those that a view no longer shows must leave its table.

    `reading`: the types of which a view reads documents.
    """
    for type_ in sorted({one.view.resource for one in tables}):
        sources = snapshot.sources(type_, documents=type_ in reading)
        keys = [SQL("SELECT connection, id FROM {} AS r").format(source) for source in sources]
        if keys:
            await target.note_keys(type_, aiter(snapshot.csv(*keys)))
    await target.note_removed(snapshot.removed(), snapshot.connections)


@dataclass(frozen=True)
class _Work:
    """One snapshot on its way into one target."""

    target: OpenWarehouse
    snapshot: Snapshot
    request: WarehouseRequest
    on_progress: Callable[[FileProgress], None]

    def is_done(self, one: _Table, state: TableState | None) -> bool:
        """Whether an interrupted load of these changes has already finished this table."""
        is_split = self.snapshot.changed_since is not None and not self.target.at_once
        return is_split and state is not None and state.held == self._held(one)

    def _held(self, one: _Table) -> TableContents:
        view, snapshot = one.view, self.snapshot
        held = instant(snapshot.as_of), snapshot.left_by, snapshot.erasures
        return TableContents(view.name, view.digest, self.request.checksum, *held)

    async def load(self, one: _Table, state: TableState | None) -> LoadedTable:
        """Bring one table to what the snapshot shows."""
        name, target = one.view.name, self.target
        before = {} if state is None else state.columns
        now = target.types(one.columns)
        if state is None:
            await target.make(name, one.columns, one.key)
        elif self.snapshot.changed_since is None:
            await target.extend(name, [column for column in one.columns if column.name not in before])
            await target.empty(name)
        else:
            await target.forget(name, one.view.resource, *one.key)
        rows = ViewRows(one.compiled, self.snapshot, strict=self.request.strict)
        await target.fill(name, one.columns, self._passing(name, rows))
        await target.note_held(name, self._held(one))
        unfilled = tuple(sorted(before.keys() - now.keys()))
        added = () if state is None else tuple(column for column in now if column not in before)
        return LoadedTable(name, rows.rows, 0, added, unfilled, rows.left_empty, rows.left_out)

    async def _passing(self, name: str, rows: ViewRows) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in rows:
            size += len(chunk)
            self.on_progress(FileProgress(name, rows.rows, size, None, done=False))
            yield chunk
        self.on_progress(FileProgress(name, rows.rows, size, rows.rows, done=True))
