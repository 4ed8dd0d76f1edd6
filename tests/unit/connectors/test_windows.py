"""Searches around what a server cannot answer, against a server of a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.errors import TerminalFetchError, TransientFetchError
from connectors.fhir.search.windows import FINEST, Piece, SplitLimits, divide, places, query_of, trouble_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# three of them apart, back to the 1850 that the oldest window begins with
seconds = st.integers(min_value=-1_850_000_000, max_value=90_000_000)


@dataclass(frozen=True)
class Row:
    id: int
    at: datetime
    poison: bool


@dataclass
class Server:
    """Rows in their order, newest first; a page with a poison row fails, and says not where the next one is."""

    rows: Sequence[Row]
    page: int
    most: int = 10**9
    windows: bool = True
    requests: int = 0

    def ask(self, piece: Piece) -> tuple[set[int], str | None]:
        self.requests += 1
        found = [
            row for row in self.rows
            if not self.windows
            or ((piece.after is None or row.at >= piece.after) and (piece.until is None or row.at <= piece.until))
        ]  # fmt: skip
        if len(found) > self.most:
            return set(), "large"
        size = piece.count or self.page
        got: set[int] = set()
        for start in range(0, len(found), size):
            page = found[start : start + size]
            if any(row.poison for row in page):
                return got, "poison"
            got |= {row.id for row in page}
        return got, None

    def all_of(self) -> tuple[set[int], int]:
        """What a search in windows returns, and how many places were abandoned."""
        limits = SplitLimits(now=NOW if self.windows else None, count=self.page)
        todo, got, lost = [Piece()], set(), []
        while todo:
            piece = todo.pop()
            some, trouble = self.ask(piece)
            got |= some
            if trouble is None:
                continue
            parts = divide(piece, trouble, limits)  # type: ignore[arg-type]
            todo += reversed(parts)
            lost += [] if parts else [piece]
        return got, places(lost)


def rows_at(offsets: Sequence[int], poison: set[int]) -> list[Row]:
    rows = [Row(n, NOW + timedelta(seconds=offset), n in poison) for n, offset in enumerate(offsets)]
    return sorted(rows, key=lambda row: row.at, reverse=True)


@given(st.lists(seconds, unique=True, max_size=40), st.data())
def test_everything_but_the_poison_record_arrives_if_records_differ_in_time(
    offsets: list[int], data: st.DataObject
) -> None:
    apart = [offset * 3 for offset in offsets]  # more than the finest window from each other
    poison = set(data.draw(st.lists(st.integers(0, max(len(offsets) - 1, 0)), max_size=4))) if offsets else set()
    server = Server(rows_at(apart, poison), page=data.draw(st.sampled_from([1, 10, 200])))
    got, lost = server.all_of()
    assert got == set(range(len(offsets))) - poison
    assert lost == len(poison)
    # two questions a halving, on both sides of a border that two windows share. An open end is halved between 1990 and now first
    # (31 times down to a second), and only then what lies beyond it, back to 1850 or on to 2200 (33 times)
    assert server.requests <= 1 + 2 * 2 * (31 + 33) * max(len(poison), 1)


@given(st.lists(st.integers(0, 3), max_size=30), st.data())
def test_records_of_one_second_arrive_up_to_the_poison_record(offsets: list[int], data: st.DataObject) -> None:
    poison = {data.draw(st.integers(0, len(offsets) - 1))} if offsets else set()
    rows = rows_at(offsets, poison)
    got, _ = Server(rows, page=20).all_of()
    bad = [row.at for row in rows if row.poison]
    near = {row.id for row in rows if any(abs(row.at - at) <= FINEST for at in bad)}
    assert set(range(len(offsets))) - near <= got <= set(range(len(offsets))) - poison


@given(st.lists(seconds, unique=True, max_size=60), st.integers(1, 10))
def test_a_result_that_is_too_large_is_requested_in_windows_until_complete(offsets: list[int], most: int) -> None:
    server = Server(rows_at([offset * 3 for offset in offsets], set()), page=50, most=most)
    assert server.all_of() == (set(range(len(offsets))), 0)


@given(st.integers(1, 60), st.integers(0, 59))
def test_without_windows_everything_before_the_poison_record_arrives(count: int, place: int) -> None:
    rows = [Row(n, NOW, n == place) for n in range(count)]
    got, lost = Server(rows, page=20, windows=False).all_of()
    assert got == set(range(min(place, count)))
    assert lost == (place < count)


@given(st.lists(st.integers(), unique=True, min_size=1, max_size=60), st.data())
def test_a_list_of_ids_is_halved_down_to_the_failing_one(ids: list[int], data: st.DataObject) -> None:
    bad = data.draw(st.sampled_from(ids))
    todo, fine = [Piece(ids=tuple(map(str, ids)))], []
    while todo:
        piece = todo.pop()
        if str(bad) in piece.ids:
            todo += divide(piece, "poison", SplitLimits(now=None, count=None))
        else:
            fine += piece.ids
    assert sorted(fine) == sorted(str(one) for one in ids if one != bad)


def test_a_slow_page_is_first_made_smaller_and_then_requested_in_windows() -> None:
    limits = SplitLimits(now=NOW, count=100)
    (smaller,) = divide(Piece(), "slow", limits)
    assert smaller.count == 25
    assert len(divide(Piece(count=1), "slow", limits)) == 2
    assert [piece.count for piece in divide(Piece(count=3), "slow", limits)] == [1]


@pytest.mark.parametrize(
    ("error", "meaning", "trouble"),
    [
        (TerminalFetchError("x", status=500, codes=("required",)), "note", "poison"),
        (TerminalFetchError("x", status=400, codes=("4104",)), "fatal", "poison"),
        (TerminalFetchError("x", status=413), "note", "large"),
        (TransientFetchError("x", status=504), "note", "slow"),
        (TransientFetchError("x", status=500), "note", None),
        (TerminalFetchError("x", status=403), "note", None),
    ],
)
def test_only_errors_that_a_smaller_request_may_cure_are_divided(error, meaning, trouble) -> None:
    assert trouble_of(error, meaning) == trouble


def test_a_piece_replaces_the_date_and_the_page_size_that_were_planned() -> None:
    piece = Piece(after=NOW, until=NOW + timedelta(hours=1), count=5)
    path = "Condition?patient=p1&_lastUpdated=ge2025-01-01T00:00:00Z&_count=200"
    assert query_of(path, piece, "_lastUpdated") == (
        "Condition?patient=p1&_lastUpdated=ge2026-01-01T00:00:00Z&_lastUpdated=le2026-01-01T01:00:00Z&_count=5"
    )
    assert query_of("Organization", Piece(count=5), None) == "Organization?_count=5"
