"""Views of a de-identified export: computed from what is left of the resources, so that no expression can show more than that.

`safe_harbor` de-identifies the resources. Postgres, which computes views, gets their lines a megabyte at a time, as a setting of
the transaction: this needs no right to create tables, and no statement contains the lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

from psycopg.sql import SQL, Literal

from exports.catalogue import LoadedView
from exports.compiler import CompiledView, Source, compile_view
from exports.formats.csv_dialect import header_row
from exports.formats.table_columns import table_columns
from exports.safe_harbor.rows import DeidentifiedCharts
from exports.snapshot_port import Snapshot
from exports.tables import Table, ViewRows

_SETTING = Literal("chartferry.deidentified")
_LINE_FEED = "\n"


def compiled_over_deidentified(view: LoadedView, snapshot: Snapshot) -> tuple[CompiledView, ...]:
    """Compile a view for the de-identified resources of a snapshot, which has one connection at most.

    Raises:
        ViewError: the view is wrong.
    """
    rows = SQL(
        "(SELECT {connection}::text AS connection, t.body ->> 'id' AS id, t.body"
        " FROM jsonb_array_elements(current_setting({setting})::jsonb) AS t(body))"
    ).format(connection=Literal("".join(snapshot.connections)), setting=_SETTING)
    source = Source(rows, of_type=True, one_connection=True)
    return (compile_view(view.definition, source, marked=True, as_of=snapshot.as_of),)


def deidentified_table(view: LoadedView, compiled: CompiledView, charts: DeidentifiedCharts, *, strict: bool) -> Table:
    """Return the table of a view that was compiled for de-identified resources."""
    columns = table_columns(compiled.columns, view.definition)
    return Table(
        view.definition,
        columns,
        lambda snapshot: DeidentifiedViewRows(compiled, charts, snapshot, strict=strict),
    )


class DeidentifiedViewRows:
    """The rows of a view over the de-identified resources of its type, as CSV with a header; read it once.

    Counts and errors are those of `ViewRows`.
    """

    def __init__(self, view: CompiledView, charts: DeidentifiedCharts, snapshot: Snapshot, *, strict: bool) -> None:
        self._view = view
        self._charts = charts
        self._snapshot = snapshot
        self._strict = strict
        self._former_rows = self.left_out = 0
        self._former_empty: Counter[str] = Counter()
        self._now: ViewRows | None = None

    @property
    def rows(self) -> int:
        """Rows so far, without the header."""
        return self._former_rows + (0 if self._now is None else self._now.rows)

    @property
    def left_empty(self) -> dict[str, int]:
        """By column, in the view's order, the cells so far whose value did not fit."""
        empty = self._former_empty + Counter({} if self._now is None else self._now.left_empty)
        return {column.name: empty[column.name] for column in self._view.columns if column.name in empty}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        is_first = True
        async for lines in self._batches():
            array = f"[{lines.decode().removesuffix(_LINE_FEED).replace(_LINE_FEED, ',')}]"
            await self._snapshot.fetch(SQL("SELECT length(set_config({}, %s, true))").format(_SETTING), [array])
            self._now = now = ViewRows((self._view,), self._snapshot, strict=self._strict)
            drops_header = not is_first
            async for chunk in now:
                yield chunk[len(header_row(chunk)) :] if drops_header else chunk
                drops_header = is_first = False
            self._former_rows += now.rows
            self._former_empty.update(now.left_empty)
            self.left_out += now.left_out
            self._now = None

    async def _batches(self) -> AsyncIterator[bytes]:
        """Yield lines of resources; nothing once if there are none, since even then a table has a header."""
        is_empty = True
        async for lines in self._charts.lines(self._view.resource, self._snapshot):
            is_empty = False
            yield lines
        if is_empty:
            yield b""
