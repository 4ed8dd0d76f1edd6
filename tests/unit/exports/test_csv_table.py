"""CSV with marks: each marked cell is emptied and counted, every other byte stays."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.sql import SQL, Composable

from exports.catalogue import LoadedView
from exports.compiler import MARK, Source, compile_view
from exports.formats.csv_table import CsvRows, csv_rows
from exports.snapshot_port import RowChunks, Snapshot
from exports.tables import compiled_over
from tests.unit.exports.postgres_csv import written

_CELL = st.one_of(
    st.just(MARK),
    st.text(st.sampled_from('a,"\n\r 1\\.é'), max_size=5),
    st.text(st.characters(exclude_characters="\x01", exclude_categories=["Cs"]), max_size=5),
)


@dataclass
class Chunks:
    """Rows as COPY gives them: whole rows, some at a time."""

    chunks: list[bytes]
    rows: int = 0
    rows_by_query: list[int] = field(default_factory=list)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk


def read(chunks: list[bytes], width: int) -> tuple[bytes, dict[str, int]]:
    rows = CsvRows(Chunks(chunks), [f"c{at}" for at in range(width)])

    async def all_of_it() -> bytes:
        return b"".join([chunk async for chunk in rows])

    return anyio.run(all_of_it), rows.left_empty


@given(
    width=st.integers(1, 4),
    data=st.data(),
)
def test_marked_cells_are_emptied_and_counted_and_nothing_else_changes(width: int, data: st.DataObject) -> None:
    row = st.lists(_CELL, min_size=width, max_size=width)
    chunks = data.draw(st.lists(st.lists(row, min_size=1, max_size=4), max_size=3))
    content, left_empty = read([written(rows) for rows in chunks], width)
    rows = [row for chunk in chunks for row in chunk]
    counts = {f"c{at}": sum(row[at] == MARK for row in rows) for at in range(width)}
    assert left_empty == {name: count for name, count in counts.items() if count}
    assert content == written(rows).replace(MARK.encode(), b"")
    back = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert [row or [""] for row in back] == [[cell.replace(MARK, "") for cell in row] for row in rows]


def test_a_mark_within_a_text_is_a_text() -> None:
    content = f'a{MARK},"{MARK},\n{MARK}"\n'.encode()
    assert read([content], 2) == (content, {})


class _Asked:
    """A snapshot that notes of which type it was told that a table's rows may be read in stretches, and what it was asked for."""

    sealed = None
    divided: str | None = None
    as_of = datetime(2026, 1, 1, tzinfo=UTC)
    sources_are_divisible: bool | None = None

    def sources(self, _: str, *, documents: bool = False, divisible: bool = False) -> tuple[Composable, ...]:
        self.sources_are_divisible = divisible
        return (SQL("rows"),)

    def csv(self, *_: Composable, resource_type: str | None = None) -> RowChunks:
        self.divided = resource_type
        return cast("RowChunks", None)


@pytest.mark.parametrize(
    ("where", "divisible", "divided"),
    [([], True, "Patient"), ([{"path": "active"}], True, None), ([], False, None)],
)
def test_sessions_share_a_view_only_if_it_reads_a_source_that_can_be_divided_along_the_key(
    *, where: list[dict[str, str]], divisible: bool, divided: str | None
) -> None:
    view = {"resource": "Patient", "where": where, "select": [{"column": [{"name": "a", "path": "id"}]}]}
    compiled = compile_view(
        view, Source(SQL("rows"), of_type=True, one_connection=True, divisible=divisible), marked=True
    )
    snapshot = _Asked()
    csv_rows(cast("Snapshot", snapshot), [compiled], asks=True)
    assert snapshot.divided == divided


@pytest.mark.parametrize(("where", "is_asked"), [([], True), ([{"path": "active"}], False)])
def test_only_a_view_that_is_read_in_stretches_tests_the_stretch_of_its_rows(
    *, where: list[dict[str, str]], is_asked: bool
) -> None:
    view = {"resource": "Patient", "where": where, "select": [{"column": [{"name": "a", "path": "id"}]}]}
    snapshot = _Asked()
    (compiled,) = compiled_over(LoadedView("a", view, ""), cast("Snapshot", snapshot))
    assert (snapshot.sources_are_divisible, compiled.divisible) == (is_asked, is_asked)
