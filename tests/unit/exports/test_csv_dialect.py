"""Dialects of CSV: each reader sees nulls, empty texts and numbers as they are, and a spreadsheet runs nothing."""

from __future__ import annotations

import csv
import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.formats.csv_dialect import DIALECTS, DialectWriter
from exports.formats.table_columns import Kind, TableColumn
from tests.unit.exports.postgres_csv import written

_TEXTS = st.text(st.sampled_from('a,"\n\r 1\\.é=+-@\tN\uff1d'), max_size=4)
_ROWS = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.lists(st.none() | _TEXTS, min_size=width, max_size=width), min_size=1, max_size=5)
)


def from_postgres(rows: list[list[str | None]]) -> bytes:
    lines = (
        ",".join("" if cell is None else written([[cell]]).decode().removesuffix("\n") for cell in row) for row in rows
    )
    return "".join(line + "\n" for line in lines).encode()


def rewritten(dialect: str, rows: list[list[str | None]], kinds: list[Kind]) -> bytes:
    columns = [TableColumn(f"c{at}", kind, "x", (), "") for at, kind in enumerate(kinds)]
    writer = DialectWriter(DIALECTS[dialect], columns)
    header = (",".join(column.name for column in columns) + "\n").encode()
    return b"".join([writer.rewritten(header), *[writer.rewritten(from_postgres([row])) for row in rows]])


def test_the_dialect_of_postgres_is_what_postgres_writes() -> None:
    assert rewritten("postgres", [["=a", None, ""]], ["text"] * 3) == b'c0,c1,c2\n=a,,""\n'


@given(_ROWS)
def test_pandas_distinguishes_null_from_an_empty_text(rows: list[list[str | None]]) -> None:
    import pandas as pd

    file = io.BytesIO(rewritten("pandas", rows, ["text"] * len(rows[0])))
    read = pd.read_csv(
        file, dtype="string", keep_default_na=False, na_values=["\\N"], lineterminator="\n", skip_blank_lines=False
    )
    found = [[None if pd.isna(cell) else cell for cell in row] for row in read.to_numpy()]
    assert found == [["\\\\N" if cell == "\\N" else cell for cell in row] for row in rows]


@given(_ROWS)
def test_no_spreadsheet_cell_begins_like_a_formula_and_nothing_else_changes(rows: list[list[str | None]]) -> None:
    content = rewritten("excel", rows, ["text"] * len(rows[0]))
    assert content.startswith("\ufeff".encode())
    found = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))[1:]
    for row, before in zip(found, rows, strict=True):
        for cell, text in zip(row or [""], before, strict=True):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
            assert cell.removeprefix("'") == (text or "")


@pytest.mark.parametrize("kind", ["number", "integer"])
def test_a_negative_number_stays_a_number_in_a_spreadsheet(kind: Kind) -> None:
    assert rewritten("excel", [["-5"]], [kind]).endswith(b"\r\n-5\r\n")


def test_spreadsheet_csv_ends_lines_with_cr_lf_and_distinguishes_empty_text_from_null() -> None:
    assert rewritten("excel", [[None, ""]], ["text"] * 2) == '\ufeffc0,c1\r\n,""\r\n'.encode()


def test_rewriting_a_text_of_megabytes_needs_only_a_few_times_its_size() -> None:
    text = 'he said "no",\n' * 150_000
    chunk = written([[text]])
    dialect = DialectWriter(DIALECTS["pandas"], [TableColumn("c0", "text", "string", (), "")])
    tracemalloc.start()
    try:
        assert dialect.rewritten(chunk) == chunk
        assert tracemalloc.get_traced_memory()[1] < 5 * len(chunk)
    finally:
        tracemalloc.stop()
