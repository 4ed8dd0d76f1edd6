"""The rows of one table as Arrow, typed by its columns, in groups of rows: what Parquet and DuckDB files are made of.

Rows come as CSV from the store's own transaction and become Arrow by pyarrow's reader; what a cell may hold was decided before,
and odd values are empty already. Over 160,000 rows of a plain table COPY as CSV, parsed here, has 0.6 of the speed of ADBC's
driver; but that wants a session, a login and a transaction of its own, beside the one that keeps tenants apart.

A decimal, which a double cannot hold as it is written, has two columns: `x` with the nearest double, `x_written` with the text.
Days and moments come in one form, with the text beside them (`written_forms`). Each format decides where a group goes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from exports.errors import ViewDataError
from exports.formats.table_columns import Kind, TableColumn, has_digits_beside, with_written_numbers

ROWS_A_GROUP = 1 << 14  # twice as many take 12 MB more, and the whole process should stay below 200
BYTES_AT_ONCE = 1 << 20  # of CSV that the thread is given: with each chunk of the store's it waits more than it works
BYTES_A_GROUP = 1 << 22  # of CSV: bounds the memory of rows that are wide; four times as much takes 27 MB more
_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "number": pa.float64(),
    "date": pa.date32(),
    "moment": pa.timestamp("us", tz="UTC"),
    "list": pa.list_(pa.string()),
}
# Here and of lists no Arrow value is made of Python's by `pa.array` or `pa.scalar`: they ask pandas what it is, where that is
# installed, and its import takes 0.25 s and 40 MB
_NO_NUMBER = pa.nulls(1, pa.float64())[0]


def schema_of(columns: Sequence[TableColumn]) -> pa.Schema:
    """Return the typed columns of a table, with what each means."""
    return pa.schema(
        [
            pa.field(one.name, _TYPES[one.kind], metadata={"description": one.meaning, "fhirType": one.fhir_type})
            for one in with_written_numbers(columns)
        ]
    )


class _Sink:
    """What pyarrow needs of a file that is only written."""

    closed = False

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, data: Any) -> int:
        self._write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """The file's owner completes it."""


def arrow_sink(write: Callable[[bytes], None]) -> pa.PythonFile:
    """Return a file for pyarrow to write to, whose pieces go to `write`."""
    return pa.PythonFile(_Sink(write), mode="w")


class ArrowRows:
    """A table in the making: takes CSV, gives groups of typed rows to `write`. Use as a context; `close` completes it by `end`.

    A thread of its own parses and calls both, so that Postgres meanwhile computes; it holds one group of rows and at most one
    chunk more. Its errors are raised by the next call.

    Raises:
        ViewDataError: a value that Arrow cannot take.
    """

    def __init__(
        self, columns: Sequence[TableColumn], write: Callable[[pa.Table], None], end: Callable[[], None]
    ) -> None:
        self._columns = columns
        names = {one.name for one in columns}
        self._digits_beside = {one.name for one in columns if has_digits_beside(one, names)}
        self._schema = schema_of(columns)
        self._write = write
        self._end = end
        self._waiting: list[bytes] = []  # for the thread
        self._waiting_bytes = 0
        self._rows: list[pa.Table] = []
        self._bytes = 0
        self._header_to_come = True
        self._thread = ThreadPoolExecutor(1, "rows")
        self._at_work: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def add(self, chunk: bytes) -> None:
        """Take whole rows of CSV; the first of all is the header."""
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._waiting_bytes >= BYTES_AT_ONCE:
            self._hand_over()

    def close(self) -> None:
        """Give what is left, and end."""
        self._hand_over()
        self._wait()
        self._at_work = self._thread.submit(self._finish)
        self._wait()

    def _hand_over(self) -> None:
        self._wait()
        if self._waiting:
            self._at_work = self._thread.submit(self._take, b"".join(self._waiting))
            self._waiting, self._waiting_bytes = [], 0

    def _wait(self) -> None:
        if self._at_work is not None:
            try:
                self._at_work.result()
            except pa.ArrowInvalid:
                raise ViewDataError("a value does not fit the type of its column") from None  # it quotes
            self._at_work = None

    def _take(self, chunk: bytes) -> None:
        rows = _read(chunk, [column.name for column in self._columns], header=self._header_to_come)
        self._header_to_come = False
        self._rows.append(rows)
        self._bytes += len(chunk)
        if self._bytes >= BYTES_A_GROUP or sum(map(len, self._rows)) >= ROWS_A_GROUP:
            self._write_group()

    def _finish(self) -> None:
        self._write_group()
        self._end()

    def _write_group(self) -> None:
        rows = pa.concat_tables(self._rows) if self._rows else None
        self._rows, self._bytes = [], 0
        if rows is not None and len(rows):
            arrays = []
            for column in self._columns:
                text = rows[column.name]
                arrays += [_typed(column.kind, text), *([text] if column.name in self._digits_beside else [])]
            self._write(pa.table(arrays, schema=self._schema))
            pa.default_memory_pool().release_unused()


def _read(chunk: bytes, names: Sequence[str], *, header: bool) -> pa.Table:
    """The rows as text; a quoted empty field is an empty text, an unquoted one is null."""
    return pa_csv.read_csv(
        pa.BufferReader(chunk),
        pa_csv.ReadOptions(
            column_names=names, skip_rows=int(header), use_threads=False, block_size=max(len(chunk), 1) + 1
        ),
        pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _typed(kind: Kind, text: pa.ChunkedArray) -> Any:
    """The array that a column becomes."""
    match kind:
        case "text":
            return text
        case "list":
            return _lists(text)
        case "number":
            value = pc.cast(text, pa.float64())
            return pc.if_else(pc.is_inf(value), _NO_NUMBER, value)  # beyond 1e308
    return pc.cast(text, _TYPES[kind])


def _lists(text: pa.ChunkedArray) -> Any:
    """JSON arrays as lists of text: items that are not text, as JSON. Arrays repeat, and each is read once."""
    encoded = text.combine_chunks().dictionary_encode()
    items, ends = pa.lib.StringBuilder(), array("i", [0])
    for one in encoded.dictionary.to_pylist():
        items.append_values([_item(bytes(raw)) for raw in msgspec.json.decode(one, type=list[msgspec.Raw])])
        ends.append(len(items))
    offsets = pa.Array.from_buffers(pa.int32(), len(ends), [None, pa.py_buffer(ends)])
    return pa.ListArray.from_arrays(offsets, items.finish()).take(encoded.indices)


def _item(raw: bytes) -> str | None:
    if raw[:1] == b'"':
        return msgspec.json.decode(raw, type=str)
    return None if raw == b"null" else raw.decode()
