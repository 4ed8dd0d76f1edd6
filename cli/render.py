"""Output: tables and JSON on stdout, messages for people on stderr.

Owns how a report looks; the use cases decide what it contains. Reads neither settings nor the store.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.how_many import how_many

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from snapshots.proof import Certificate
    from snapshots.report import Hole, RunReport

KB = 1000
_WIDEST = 1000  # for measuring how wide a table would be
WIDTH_ELSEWHERE = 200  # columns when the output is not a terminal: wide enough that no cell is cut


def emit_json(value: Any) -> None:
    """Print one JSON object on stdout, as one line."""
    sys.stdout.write(json.dumps(value, default=_plain) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(type(value).__name__)


def printable(text: str) -> str:
    """Return text that is safe on a terminal: a server's strings must not move the cursor or change colours or direction."""
    return "".join(c if c == "\n" or c.isprintable() else " " if c in "\t\r" else "" for c in text)


def print_message(text: str) -> None:
    """Print a line for people on stderr, so that stdout stays clean for machines.

    If nobody reads stderr any more, or the disk of a log is full, the line is lost and the work goes on: the exit code is the
    result, and charts are worth more than a line about them.
    """
    with suppress(OSError):
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()


def print_line(text: str = "") -> None:
    """Print a line of the result on stdout."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table on stdout; columns whose heading ends with "#" hold numbers and are right-aligned.

    If the terminal is too narrow, columns of only zeros are left out, and so are the table's lines, then columns whose heading
    begins with "?"; if words would still be broken, each row becomes a list of its cells.
    """
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH_ELSEWHERE)
    freely = console.options.update(width=_WIDEST)
    listed: list[Sequence[object]] = [tuple(row) for row in rows]
    table = _table(columns, listed, title)
    if Measurement.get(console, freely, table).maximum > console.width:
        kept = [
            place for place, name in enumerate(columns) if not name.endswith("#") or any(row[place] for row in listed)
        ]
        columns, listed = [columns[place] for place in kept], [tuple(row[place] for place in kept) for row in listed]
        table = _cells(columns, listed, title)
        while True:
            narrow = _table(columns, listed, title, narrow=True)
            if sum(column.min_width or 0 for column in narrow.columns) + len(columns) - 1 <= console.width:
                table = narrow
                break
            spare = next((place for place, name in enumerate(columns) if name.startswith("?")), None)
            if spare is None:
                break
            columns, listed = _without(columns, spare), [_without(row, spare) for row in listed]
    console.print(table)


def _without(row: Sequence[Any], place: int) -> list[Any]:
    return [*row[:place], *row[place + 1 :]]


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None, *, narrow: bool = False
) -> Table:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        box=None if narrow else box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=narrow,
    )
    texts = [[_text(cell) for cell in row] for row in rows]
    for place, column in enumerate(columns):
        is_number = column.endswith("#")
        cells = [_heading(column), *(row[place].plain for row in texts)]
        words = cells if is_number else [word for cell in cells for word in cell.split()]  # a number keeps its unit
        table.add_column(
            _heading(column),
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=words == cells,  # rich makes the widest narrower, though it can break none of their cells
            min_width=max(map(cell_len, words), default=1),
        )
    for row in texts:
        table.add_row(*row)
    return table


def _cells(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None) -> Table:
    """A table of two columns: what a cell is, and the cell; an empty line after each row."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            table.add_row(_heading(column), _text(cell))
        table.add_row()
    return table


def _heading(column: str) -> str:
    return column.removesuffix("#").removeprefix("?")


def _text(cell: object) -> Text:
    from rich.text import Text

    return Text(printable(cell if isinstance(cell, str) else number(cell)))


def number(value: object) -> str:
    """Format a number for people: 38,472; 3.4; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def size(count: int) -> str:
    """Format a number of bytes for people: 512 B, 49.1 kB, 1.2 GB."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < KB or unit == "GB":
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= KB
    raise AssertionError("unreachable")


def by_type(resources: Mapping[str, int], *, most: int = 5) -> str:
    """Format counts by type, the largest first: "Observation 1,203, Encounter 240, … 9 more types"."""
    ordered = sorted(resources.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{name} {count:,}" for name, count in ordered[:most])
    left = len(ordered) - most
    return f"{text}, … {how_many(left, 'more type')}" if left > 0 else text


def run_as_json(report: RunReport) -> dict[str, Any]:
    """Return a run for `sync --json` and `runs --json`; the keys are a contract."""
    return {
        "id": report.id,
        "connection": report.connection,
        "kind": report.kind,
        "status": report.status,
        "mode": report.mode,
        "patients": report.patients,
        "resources": dict(sorted(report.resources.items())),
        "new": report.new,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "deleted": report.deleted,
        "quarantined": report.quarantined,
        "claims": [
            {
                "way": claim.way,
                "type": claim.resource_type,
                "patients": claim.patients,
                "up_to": claim.up_to,
                "full": claim.full,
            }
            for claim in report.claims
        ],
        "holes": [{"type": hole.resource_type, "scope": hole.scope, "reason": hole.reason} for hole in report.holes],
        "units_pruned": report.units_pruned,
        "notes": list(report.notes),
        "requests": report.requests,
        "retries": report.retries,
        "retry_budget": {"spent": report.retries_spent, "left": report.retries_left},
        "down_until": report.down_until,
        "seconds": round(report.seconds, 3),
        "error": report.error,
        **({"cohort": dict(report.cohort)} if report.cohort else {}),
        "certificates": [certificate_as_json(certificate) for certificate in report.certificates],
    }


def certificate_as_json(certificate: Certificate) -> dict[str, Any]:
    """Return a proof for `prove --json` and `runs --json`; the keys are a contract."""
    fields = asdict(certificate)
    fields["types"] = [{"type": one.pop("resource_type"), **one} for one in fields["types"]]
    fields["findings"] = [{"type": one.pop("resource_type"), **one} for one in fields["findings"]]
    open_questions = sum(one.not_asked for one in certificate.types)
    return {"verdict": certificate.verdict, "could_not_be_asked": open_questions, **fields}


def _hole(hole: Hole) -> str:
    return f"{hole.resource_type}, {hole.scope}: {hole.reason}"


def _holes_by_reason(report: RunReport) -> list[str]:
    """Return one line per reason, the most frequent first, with its count and types."""
    groups: dict[str, list[Hole]] = {}
    for hole in report.holes:
        groups.setdefault(hole.reason, []).append(hole)
    return [
        _hole(holes[0])
        if len(holes) == 1
        else f"{len(holes):,} × {reason} ({by_type(Counter(hole.resource_type for hole in holes))})"  # noqa: RUF001
        for reason, holes in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


RUN_COLUMNS = (
    "connection", "run#", "status", "?mode", "patients#", "resources#", "new#", "changed#", "unchanged#", "deleted#",
    "holes#", "?requests#", "?retries#", "?seconds#",
)  # fmt: skip


def run_row(report: RunReport) -> tuple[object, ...]:
    """Return a run as a row of RUN_COLUMNS."""
    return (
        report.connection, report.id, report.status, report.mode, report.patients, sum(report.resources.values()),
        report.new, report.changed, report.unchanged, report.deleted,
        None if report.units_pruned else len(report.holes), report.requests, report.retries, float(report.seconds),
    )  # fmt: skip


def print_holes(
    reports: Iterable[RunReport], *, most: int = 10, every: bool = False, write: Callable[[str], None] = print_line
) -> None:
    """Print the holes, errors and notes of runs, below their table.

    Holes with the same reason share one line, at most `most` lines; with `every`, each hole has its own line.
    """
    for report in reports:
        lines = [_hole(hole) for hole in report.holes] if every else _holes_by_reason(report)
        for line in lines if every else lines[:most]:
            write(f"hole     {report.connection}: {line}")
        if len(lines) < len(report.holes) or (len(lines) > most and not every):
            write(f"hole     {report.connection}: all {len(report.holes):,}: `chartferry runs {report.id}`")
        if report.units_pruned:
            write(
                f"note     {report.connection}: the units of run {report.id} were pruned: its holes are no longer known"
            )
        if report.quarantined:
            write(f"note     {report.connection}: {how_many(report.quarantined, 'unreadable item')} kept in quarantine")
        for note in report.notes:
            write(f"note     {report.connection}: {note}")
        if report.error:
            write(f"failed   {report.connection}: {report.error}")
