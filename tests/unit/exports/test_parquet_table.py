"""Parquet: rows of CSV become typed columns, and a value that its type cannot hold has its text beside it."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.errors import ViewDataError
from exports.formats.arrow_rows import ROWS_A_GROUP
from exports.formats.parquet_table import parquet_table
from exports.formats.table_columns import Kind, TableColumn
from tests.unit.exports.postgres_csv import written


def column(name: str, kind: Kind) -> TableColumn:
    return TableColumn(name, kind, "x", (f"X.{name}",), f"meaning of {name}")


def table_of(columns: list[TableColumn], *chunks: bytes) -> Any:
    return pq.read_table(io.BytesIO(file_of(columns, *chunks)))


def file_of(columns: list[TableColumn], *chunks: bytes) -> bytes:
    file = io.BytesIO()
    fill(file.write, columns, *chunks)
    return file.getvalue()


def fill(write: Callable[[bytes], Any], columns: list[TableColumn], *chunks: bytes) -> None:
    with parquet_table(write, columns) as table:
        table.add((",".join(one.name for one in columns) + "\n").encode())
        for chunk in chunks:
            table.add(chunk)
        table.close()


def cells(kind: Kind, *texts: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = table_of(
        [column("c", kind)], b"".join(text.encode() + b"\n" for text in texts)
    ).to_pydict()
    return found


def test_each_kind_of_column_has_its_type() -> None:
    assert cells("text", "00123", "NA", "", '""', '"a\nb"') == {"c": ["00123", "NA", None, "", "a\nb"]}
    assert cells("boolean", "true", "false", "") == {"c": [True, False, None]}
    assert cells("integer", "-7", "") == {"c": [-7, None]}
    assert cells("long", "3000000000", "") == {"c": [3_000_000_000, None]}
    numbers = cells("number", "1.50", "0.1", "", "1" + "0" * 400)
    assert numbers == {"c": [1.5, 0.1, None, None], "c_written": ["1.50", "0.1", None, "1" + "0" * 400]}


def test_days_and_moments_are_typed() -> None:
    assert cells("date", "1970-01-02", "") == {"c": [date(1970, 1, 2), None]}
    moments = cells("moment", "2020-01-02T08:04:05.123457Z", "2020-01-02T08:04:05.5Z", "2020-01-02T08:04:05Z", "")
    seconds = datetime(2020, 1, 2, 8, 4, 5, tzinfo=UTC)
    assert moments["c"] == [seconds.replace(microsecond=123457), seconds.replace(microsecond=500_000), seconds, None]


def test_an_existing_column_of_that_name_is_not_duplicated() -> None:
    table = table_of([column("c", "number"), column("c_written", "text")], b"1.50,x\n")
    assert table.to_pydict() == {"c": [1.5], "c_written": ["x"]}


def test_lists_are_lists_of_texts_whose_numbers_keep_their_digits() -> None:
    found = cells("list", '"[""a"", null, 1.50, {""k"": 2.0}]"', "[]", "")
    assert found == {"c": [["a", None, "1.50", '{"k": 2.0}'], [], None]}


def test_rows_are_written_in_zstd_groups_with_column_descriptions() -> None:
    rows = [b"".join(b"%d,%s\n" % (number, b"x" * 99) for number in range(ROWS_A_GROUP))] * 3
    read = pq.ParquetFile(io.BytesIO(file_of([column("a", "integer"), column("b", "text")], *rows)))
    groups = [read.metadata.row_group(at).num_rows for at in range(read.num_row_groups)]
    assert (sum(groups), len(groups)) == (3 * ROWS_A_GROUP, 3)
    cell = read.metadata.row_group(0).column(1)
    assert (cell.compression, cell.has_dictionary_page) == ("ZSTD", True)
    assert read.schema_arrow.field("b").metadata[b"description"] == b"meaning of b"


def test_a_table_without_rows_has_its_columns() -> None:
    assert table_of([column("a", "moment")]).to_pydict() == {"a": []}


def test_a_value_that_arrow_cannot_take_is_not_quoted() -> None:
    with pytest.raises(ViewDataError) as caught:
        cells("integer", "secret")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_disk_error_reaches_the_caller_that_adds_rows() -> None:
    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill(full, [column("a", "text")])


@settings(max_examples=100)
@given(st.data())
def test_texts_survive_a_round_trip_in_chunks_of_any_size(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 3))
    texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5)
    rows = data.draw(st.lists(st.lists(st.none() | texts, min_size=width, max_size=width), max_size=6))
    lines = [
        ",".join("" if cell is None else written([[cell]]).decode().removesuffix("\n") for cell in row) + "\n"
        for row in rows
    ]
    chunks = [line.encode() for line in lines] if data.draw(st.booleans()) else ["".join(lines).encode()] * bool(lines)
    table = table_of([column(f"c{at}", "text") for at in range(width)], *chunks)
    assert [list(row.values()) for row in table.to_pylist()] == rows


def test_no_column_is_typed_through_pandas() -> None:
    code = """
import sys
from exports.formats.parquet_table import parquet_table
from tests.unit.exports.test_parquet_table import column, fill
kinds = ["text", "boolean", "integer", "long", "number", "date", "moment", "list"]
row = b'a,true,1,2,1.5,2026-11-30,2026-11-30T20:00:00Z,"[""b"",null,1]"\\n'
fill(lambda data: None, [column(kind, kind) for kind in kinds], row, b",,,,,,,\\n")
print("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
