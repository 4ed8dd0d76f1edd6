"""What a load needs of its tables, as protocols: `target` is a schema of a Postgres, `delta` a folder of Delta tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from exports.formats.table_columns import TableColumn
from exports.snapshot_port import RowChunks


@dataclass(frozen=True)
class TableContents:
    """What a table holds: a view, by the checksum of its definition, of a request, as of a moment (ISO 8601).

    `run` ended last of the runs whose work it is: several moments may have one `as_of`, since that is when a run began.
    `erasures` is the number of patients who had been erased by then; tables without it are older.
    """

    view: str
    digest: str
    request: str
    as_of: str
    run: int | None
    erasures: int = 0


@dataclass(frozen=True)
class TableState:
    """The current state of a table; `columns` have the types of the place. `held` is None if it does not say what it holds.

    `is_ours`: chartferry has made it; others' are never touched.
    """

    columns: Mapping[str, str]
    held: TableContents | None
    is_ours: bool


class Warehouse(Protocol):
    """A place of tables that can be opened."""

    def check(self, tables: Mapping[str, Sequence[TableColumn]]) -> None:
        """Refuse tables whose names, or whose columns' names, it cannot have. PlanError says which."""

    def opened(self) -> AbstractAsyncContextManager[OpenWarehouse]:
        """Open it; what was done becomes visible at the end of the block, or nothing does if it raises.

        Raises:
            WarehouseError: it cannot be reached, refuses, or another load is in progress.
        """


class OpenWarehouse(Protocol):
    """The tables of one place, during one load. Every method raises WarehouseError where the place refuses."""

    @property
    def at_once(self) -> bool:
        """Whether all tables become visible together; else one after the other, and a load may break off between two."""

    @property
    def deleted(self) -> Mapping[str, int]:
        """By table, the rows that gave way or are gone; known when the block has ended."""

    def __str__(self) -> str:
        """The place in words, without a secret."""

    async def state(self, table: str) -> TableState | None:
        """Return the table, or another object of its name; None if there is none."""

    def types(self, columns: Sequence[TableColumn]) -> dict[str, str]:
        """Return the columns that a table of these has there, with their types."""

    async def make(self, table: str, columns: Sequence[TableColumn], key: Sequence[str]) -> None:
        """Make a table; `key` are the columns with the connection and the resource's key, if there are any."""

    async def extend(self, table: str, columns: Sequence[TableColumn]) -> None:
        """Give a table the columns that it does not have yet."""

    async def empty(self, table: str) -> None:
        """Delete all rows of a table."""

    async def note_keys(self, type_: str, keys: AsyncIterator[bytes]) -> None:
        """Note, in lines of CSV with a header (connection, id), which resources of a type are to be replaced or are gone."""

    async def note_removed(self, keys: RowChunks, connections: Sequence[str]) -> None:
        """Note the resources that are gone: lines of JSON with `type` and `id`, of one connection after the other."""

    async def forget(self, table: str, type_: str, connection: str, key: str) -> None:
        """Delete the rows of the noted resources of a type, by the columns with the connection and the key."""

    async def fill(self, table: str, columns: Sequence[TableColumn], rows: AsyncIterator[bytes]) -> None:
        """Add rows: CSV with a header, an unquoted empty field is null."""

    async def note_held(self, table: str, held: TableContents) -> None:
        """Write beside the table what it holds."""
