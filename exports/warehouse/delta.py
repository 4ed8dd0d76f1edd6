"""A folder of Delta Lake tables, here or in a bucket: each load is one commit per table, which says what the table then holds.

Rows are typed as in Parquet. They wait in the temporary folder until the load is noted in the audit; then one table after the
other is committed. `load` decides what is loaded, and when.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake

from config.urls import parts_of
from exports.delivery.files import destination_errors
from exports.delivery.place_name import shown
from exports.errors import PlanError, WarehouseError
from exports.formats.arrow_rows import schema_of
from exports.formats.parquet_table import parquet_table
from exports.formats.table_columns import TableColumn, with_written_numbers
from exports.plan import names_alike
from exports.snapshot_port import RowChunks
from exports.warehouse.warehouse_port import TableContents, TableState

SCHEMES = ("s3", "gs", "az")  # which the library reaches by itself
_OURS = "chartferry"
_RESTORED = "RESTORE"  # Delta's operation that brings a former version back
_FOLDER_MODE = 0o700
_ROWS_A_BATCH = 1 << 14
# the keys of the rows that leave, in the source of a merge; no view's column begins with _
_CONNECTION, _KEY = "_chartferry_connection", "_chartferry_key"


class DeltaFolder:
    """A folder with a Delta table for each view: a folder of this machine, or a URL such as s3://bucket/charts.

    Raises:
        PlanError: no Delta table can be at such a URL.
    """

    def __init__(self, place: str) -> None:
        scheme = parts_of(place).scheme if "://" in place else None
        if scheme == "":
            raise PlanError("the destination is not a URL; give a folder, or a URL such as s3://bucket/charts")
        if scheme not in {None, *SCHEMES}:
            raise PlanError(f"no Delta table can be at a {scheme}:// URL; allowed: a folder, or {', '.join(SCHEMES)}")
        self._place = place.rstrip("/")
        self._is_here = scheme is None

    def __str__(self) -> str:
        return shown(self._place)

    def check(self, tables: Mapping[str, Sequence[TableColumn]]) -> None:
        """Refuse names that differ in case only, because Delta does not distinguish them."""
        for name, columns in tables.items():
            if twice := names_alike([one.name for one in with_written_numbers(columns)]):
                raise PlanError(
                    f"Delta does not distinguish upper and lower case: {name} would have two columns named {', '.join(twice)}"
                )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[DeltaTables]:
        """Collect what is to be written, and commit each table at the end of the block."""
        if self._is_here:
            _make_folder(Path(self._place))
        with TemporaryDirectory(prefix="chartferry-") as room:
            tables = DeltaTables(self, Path(room))
            yield tables
            await asyncio.to_thread(tables.commit)

    def uri(self, table: str) -> str:
        """Return where a table is."""
        return f"{self._place}/{table}"


@dataclass
class _NewContents:
    """What a table is to become: all of these rows, or these in the place of those with `keys` in the columns `key`."""

    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    rows: Path | None = None
    key: tuple[str, str] | None = None
    keys: frozenset[tuple[str, str]] = frozenset()
    held: TableContents | None = None


class DeltaTables:
    """The tables of one folder, during one load."""

    at_once = False

    def __init__(self, folder: DeltaFolder, room: Path) -> None:
        self._folder = folder
        self._room = room
        self._coming: dict[str, _NewContents] = {}
        self._noted: dict[str, set[tuple[str, str]]] = {}  # by resource type, connection and id
        self._versions: dict[str, int] = {}  # by table, the one that was read
        self.deleted: dict[str, int] = {}

    def __str__(self) -> str:
        return str(self._folder)

    async def state(self, table: str) -> TableState | None:
        """Return a table; None: there is none. Ours has our name for it, or a load of ours in its log, which forgets in time."""
        with self._errors(table, "read"):
            if not DeltaTable.is_deltatable(self._folder.uri(table)):
                return None
            found = DeltaTable(self._folder.uri(table))
            commits = found.history()
            is_ours = found.metadata().name == _name(table) or any(_OURS in one for one in commits)
            self._versions[table] = found.version()
            return TableState(_types(found.schema()), _held(commits), is_ours=is_ours)

    def types(self, columns: Sequence[TableColumn]) -> dict[str, str]:
        """Return Delta's types, of decimals also of the digits as written."""
        return _types(Schema.from_arrow(_plain(columns)))

    async def make(self, table: str, columns: Sequence[TableColumn], key: Sequence[str]) -> None:
        """Begin a table; the commit makes it."""

    async def extend(self, table: str, columns: Sequence[TableColumn]) -> None:
        """Leave it to the commit, which merges the schemas."""

    async def empty(self, table: str) -> None:
        """Let all rows give way."""
        with self._errors(table, "read"):
            self.deleted[table] = DeltaTable(self._folder.uri(table)).count()

    async def note_keys(self, type_: str, keys: AsyncIterator[bytes]) -> None:
        """Keep the keys, in memory: some 200 bytes each."""
        noted, is_header = self._noted.setdefault(type_, set()), True
        async for chunk in keys:
            for connection, id_ in csv.reader(io.StringIO(chunk.decode(), newline="")):
                if not is_header:
                    noted.add((connection, id_))
                is_header = False

    async def note_removed(self, keys: RowChunks, connections: Sequence[str]) -> None:
        """Keep the keys of what is gone, too."""
        async for chunk in keys:
            connection = connections[len(keys.rows_by_query)]
            for line in chunk.splitlines():
                one = json.loads(line)
                self._noted.setdefault(one["type"], set()).add((connection, one["id"]))

    async def forget(self, table: str, type_: str, connection: str, key: str) -> None:
        """Let the rows of the noted resources give way."""
        coming = self._coming.setdefault(table, _NewContents())
        coming.key, coming.keys = (connection, key), frozenset(self._noted.get(type_, ()))

    async def fill(self, table: str, columns: Sequence[TableColumn], rows: AsyncIterator[bytes]) -> None:
        """Write the rows aside, as Parquet."""
        coming = self._coming.setdefault(table, _NewContents())
        coming.schema, coming.rows = _plain(columns), self._room / f"{len(self._coming)}.parquet"
        with (
            destination_errors(self._room),
            coming.rows.open("wb") as file,
            parquet_table(lambda data: _write(file, data), columns) as writer,
        ):
            async for chunk in rows:
                writer.add(chunk)
            writer.close()

    async def note_held(self, table: str, held: TableContents) -> None:
        """Say it in the commit."""
        self._coming[table].held = held

    def commit(self) -> None:
        """Commit each table.

        Raises:
            WarehouseError: the folder refuses, or somebody else has written into a table meanwhile. Those before it are done.
        """
        for table, coming in self._coming.items():
            with self._errors(table, "written"), _only_for_the_owner():
                found = self._as_read(table)
                if found is None or coming.key is None:
                    self._write(table, found, coming)
                else:
                    self._merge(table, found, coming, coming.key)

    def _as_read(self, table: str) -> DeltaTable | None:
        """Return a table that is what it was when it was read; what is done from here on, Delta itself checks."""
        uri = self._folder.uri(table)
        found = DeltaTable(uri) if DeltaTable.is_deltatable(uri) else None
        if (None if found is None else found.version()) != self._versions.get(table):
            raise WarehouseError(
                f"somebody else has written into the Delta table {table} in {self} while it was loaded; it stays as they left "
                "it. Run the same command again"
            )
        return found

    def _write(self, table: str, found: DeltaTable | None, coming: _NewContents) -> None:
        """Make a table, or replace all its rows."""
        write_deltalake(
            found or self._folder.uri(table),
            pa.RecordBatchReader.from_batches(coming.schema, _batches(coming)),
            mode="error" if found is None else "overwrite",
            schema_mode=None if found is None else "merge",
            name=_name(table) if found is None else None,
            writer_properties=WriterProperties(compression="ZSTD"),
            commit_properties=_properties(coming),
        )

    def _merge(self, table: str, existing: DeltaTable, coming: _NewContents, key: tuple[str, str]) -> None:
        """Delete by key, and insert, in one commit: a row of the source has a key that leaves, or it is a row that comes."""
        schema = coming.schema.append(pa.field(_CONNECTION, pa.string())).append(pa.field(_KEY, pa.string()))
        source = pa.RecordBatchReader.from_batches(schema, _keys_and_rows(coming, schema))
        found = existing.merge(
            source,
            f't."{key[0]}" = s."{_CONNECTION}" AND t."{key[1]}" = s."{_KEY}"',
            source_alias="s",
            target_alias="t",
            writer_properties=WriterProperties(compression="ZSTD"),
            commit_properties=_properties(coming),
        )
        columns = {one: f's."{one}"' for one in coming.schema.names}
        done = (
            found.when_matched_delete()
            .when_not_matched_insert(updates=columns, predicate=f's."{_KEY}" IS NULL')
            .execute()
        )
        self.deleted[table] = int(done["num_target_rows_deleted"])

    @contextmanager
    def _errors(self, table: str, doing: str) -> Iterator[None]:
        """Turn what the library raises into a WarehouseError; its text may quote a URL or a row."""
        try:
            yield
        except WarehouseError:
            raise
        except Exception as error:  # noqa: BLE001 - the library has errors of its own, and of its storage
            raise WarehouseError(
                f"the Delta table {table} in {self} cannot be {doing} ({type(error).__name__}); check the place, its "
                "free space, the credentials, and that nobody else writes into it. Then run the same command again"
            ) from None


@contextmanager
def _only_for_the_owner() -> Iterator[None]:
    """Keep others from reading what the library writes meanwhile, because it makes files for everybody."""
    former = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(former)


def _make_folder(folder: Path) -> None:
    with destination_errors(folder):
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)


def _write(file: io.BufferedWriter, data: bytes) -> None:
    if not file.closed:  # a writer that was given up still writes its end, when it is forgotten
        file.write(data)


def _plain(columns: Sequence[TableColumn]) -> pa.Schema:
    """Return the typed columns of a file without their descriptions, which a table's schema would keep for ever."""
    return pa.schema([pa.field(one.name, one.type) for one in schema_of(columns)])


def _name(table: str) -> str:
    """Return how a table is named in its metadata, which no clean-up of the log forgets."""
    return f"{_OURS}.{table}"


def _held(commits: Iterable[Mapping[str, Any]]) -> TableContents | None:
    """Return what our newest commit says, of commits from the newest on; None: none is left, or a former version came back."""
    for one in commits:
        if one.get("operation") == _RESTORED:
            return None
        if _OURS in one:
            return TableContents(**json.loads(one[_OURS]))
    return None


def _types(schema: Schema) -> dict[str, str]:
    return {one.name: one.type.to_json() for one in schema.fields}


def _properties(coming: _NewContents) -> CommitProperties:
    assert coming.held is not None
    return CommitProperties(custom_metadata={_OURS: json.dumps(asdict(coming.held))})


def _batches(coming: _NewContents) -> Iterator[pa.RecordBatch]:
    assert coming.rows is not None
    with pq.ParquetFile(coming.rows) as file:
        for batch in file.iter_batches(_ROWS_A_BATCH):
            yield batch.cast(coming.schema)


def _keys_and_rows(coming: _NewContents, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    keys = sorted(coming.keys)
    of_keys = [pa.array([one[at] for one in keys], pa.string()) for at in (0, 1)]
    yield pa.record_batch([*(pa.nulls(len(keys), one.type) for one in coming.schema), *of_keys], schema=schema)
    for batch in _batches(coming):
        none = pa.nulls(len(batch), pa.string())
        yield pa.record_batch([*batch.columns, none, none], schema=schema)
