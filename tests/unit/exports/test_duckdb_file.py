"""DuckDB files: each table is typed as its Parquet file would be, says what its columns mean, and keeps its names."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exports.errors import DestinationError, PlanError, ViewDataError
from exports.formats.arrow_rows import ROWS_A_GROUP, ArrowRows
from exports.formats.duckdb_file import DuckdbFile
from exports.formats.file_formats import TableFormat, format_by_name
from exports.formats.parquet_table import parquet_table
from exports.formats.table_columns import Kind, TableColumn

CELLS: dict[Kind, tuple[str, ...]] = {
    "text": ("00123", "", '""'),
    "boolean": ("true", "", "false"),
    "integer": ("-7", "", "2147483647"),
    "long": ("3000000000", "", "1"),
    "number": ("1.50", "", "1" + "0" * 400),
    "date": ("1970-01-02", "", "0001-01-01"),
    "moment": ("2020-01-02T08:04:05.123457Z", "", "9999-12-31T23:59:59Z"),
    "list": ('"[""a"", null, 1.50]"', "", "[]"),
}


def column(name: str, kind: Kind) -> TableColumn:
    return TableColumn(name, kind, "x", (f"X.{name}",), f"what's in {name}")


def fill(writer: ArrowRows, columns: list[TableColumn], *chunks: bytes) -> None:
    with writer:
        writer.add((",".join(one.name for one in columns) + "\n").encode())
        for chunk in chunks:
            writer.add(chunk)
        writer.close()


def test_a_table_has_the_columns_and_rows_of_its_parquet_file(tmp_path: Path) -> None:
    columns = [column(f"a_{kind}", kind) for kind in CELLS]
    rows = "".join(",".join(row) + "\n" for row in zip(*CELLS.values(), strict=True)).encode()
    parquet = io.BytesIO()
    fill(parquet_table(parquet.write, columns), columns, rows)
    with DuckdbFile(tmp_path) as file:
        fill(file.table("v", columns), columns, rows)
        file.close()
    assert [path.name for path in tmp_path.iterdir()] == [file.path.name], "all of it is in one file"
    with duckdb.connect(str(file.path), read_only=True) as database:
        assert_equal(database.table("v").to_arrow_table(), pq.read_table(parquet))


def assert_equal(found: pa.Table, expected: pa.Table) -> None:
    assert found.cast(expected.schema.remove_metadata()).equals(expected.replace_schema_metadata(None))
    for one in expected.schema:
        of = found.schema.field(one.name).type
        assert of == one.type or (pa.types.is_timestamp(of) and (of.unit, of.tz is None) == (one.type.unit, False))


def test_row_groups_keep_their_order_and_tables_of_any_name_coexist(tmp_path: Path) -> None:
    one = [column("order", "integer")]
    rows = [b"".join(b"%d\n" % number for number in range(at, at + ROWS_A_GROUP)) for at in (0, ROWS_A_GROUP)]
    with DuckdbFile(tmp_path) as file:
        fill(file.table("select", one), one, *rows)
        fill(file.table('of "one"', one), one)
        file.close()
    with duckdb.connect(str(file.path), read_only=True) as database:
        assert [row[0] for row in database.sql('FROM "select"').fetchall()] == list(range(2 * ROWS_A_GROUP))
        assert database.sql('SELECT count(*) FROM "of ""one"""').fetchall() == [(0,)]
        comments = database.sql("SELECT DISTINCT comment FROM duckdb_columns() WHERE table_name = 'select'").fetchall()
    assert comments == [("what's in order",)]


def test_a_value_that_does_not_fit_is_not_quoted(tmp_path: Path) -> None:
    with DuckdbFile(tmp_path) as file, pytest.raises(ViewDataError) as caught:
        fill(file.table("v", [column("c", "integer")]), [column("c", "integer")], b"secret\n")
    assert "secret" not in str(caught.value)


def test_a_refusal_by_duckdb_is_a_destination_error(tmp_path: Path) -> None:
    columns: list[Any] = [column("c", "integer")]
    with DuckdbFile(tmp_path) as file:
        fill(file.table("v", columns), columns)
        with pytest.raises(DestinationError, match="DuckDB cannot write its file"):
            file.table("V", columns)
    with pytest.raises(DestinationError, match="DuckDB cannot write its file"):
        DuckdbFile(tmp_path / "nowhere").__enter__()


def test_rows_that_do_not_fit_into_duckdbs_memory_are_advised_another_format(tmp_path: Path) -> None:
    columns = [column(f"c{at}", "text") for at in range(50)]
    row = ",".join(["x" * 200] * 50).encode() + b"\n"
    with DuckdbFile(tmp_path) as file:
        writer = file.table("v", columns)
        file._database.execute("SET memory_limit = '1MiB'")
        with pytest.raises(DestinationError, match="--format parquet, whose files DuckDB reads"):
            fill(writer, columns, *[row * 1_000] * 5)


def test_a_single_query_cannot_be_a_duckdb_file() -> None:
    with pytest.raises(PlanError, match="chartferry export --format duckdb --query"):
        format_by_name("a1c.duckdb")


@pytest.mark.parametrize("name", ["a1c.json", "a1c.parquet.gz", "a1c.xlsx", "a1c.json.gz"])
def test_a_query_is_not_written_as_csv_under_the_name_of_another_format(name: str) -> None:
    with pytest.raises(PlanError, match=r"cannot be written; allowed: \.parquet, \.csv"):
        format_by_name(name)


def test_the_name_of_a_file_shows_its_format_in_capitals_too() -> None:
    assert format_by_name("A1C.PARQUET") == TableFormat("parquet")
    assert format_by_name("A1C.CSV.GZ") == TableFormat("csv", "gzip")
    assert format_by_name("3") == TableFormat("csv")


def test_texts_larger_than_duckdbs_initial_memory_are_written(tmp_path: Path) -> None:
    columns = [column("note", "text")]
    with DuckdbFile(tmp_path) as file:
        fill(file.table("v", columns), columns, *[b"x" * 500_000 + b"\n"] * 100)
        file.close()
    with duckdb.connect(str(file.path), read_only=True) as database:
        assert database.execute("SELECT sum(length(note)) FROM v").fetchall() == [(50_000_000,)]


def test_a_table_of_many_columns_is_committed_within_duckdbs_memory(tmp_path: Path) -> None:
    texts = [column(f"t{at}", "text") for at in range(45)]
    columns = texts + [column(f"l{at}", "list") for at in range(15)]
    digits = "".join(str(at * 7919 % 1_000_003) for at in range(10_000))

    def line(row: int) -> str:
        cells = [digits[(row * 61 + at * 17) % 50_000 :][:12] for at in range(60)]
        return ",".join([*cells[:45], *(f"[{int(one)}]" for one in cells[45:])])

    with DuckdbFile(tmp_path) as file:
        chunks = ("".join(f"{line(row)}\n" for row in range(at, at + 5_000)).encode() for at in range(0, 45_000, 5_000))
        fill(file.table("v", columns), columns, *chunks)
        file.close()
    with duckdb.connect(str(file.path), read_only=True) as database:
        assert database.execute("SELECT count(*), count(l14) FROM v").fetchall() == [(45_000, 45_000)]
