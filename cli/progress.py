"""Shows the progress of runs: moving bars with ETA on a terminal, a plain line now and then elsewhere.

Everything goes to stderr. It shows counts, phases and connection names, never an id or a URL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cli.render import print_message, printable
from config.how_many import how_many

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from connectors.core.run import Progress
    from exports.run import FileProgress

LINE_EVERY_S = 10.0
BARS_A_SECOND = 8.0
WAIT_SHOWN_S = 2.0


Show = Callable[["Progress"], None]


@contextmanager
def run_progress(*, terminal: bool) -> Iterator[Show]:
    """Yield the function to call at every step of every run."""
    if not terminal:
        yield PlainLines(print_message, time.monotonic).show
        return
    with _bars() as show:
        yield show


class PlainLines:
    """One line at each new phase and for each wait, and one every LINE_EVERY_S, per connection."""

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float], now: Callable[[], float] = time.time
    ) -> None:
        self._write = write
        self._clock = clock
        self._now = now
        self._began: dict[str, float] = {}
        self._last: dict[str, tuple[str, str, float]] = {}

    def show(self, progress: Progress) -> None:
        """Write a line if it is time for one."""
        now = self._clock()
        began = self._began.setdefault(progress.connection, now)
        phase, waited, at = self._last.get(progress.connection, ("", "", now))
        waiting = waits(progress, self._now())
        reason = progress.waiting.reason if progress.waiting is not None and waiting else ""
        # waits come and go while other tasks work on: a new reason gets a line, its end does not
        if phase == progress.phase and (not reason or reason == waited) and now - at < LINE_EVERY_S:
            return
        self._last[progress.connection] = (progress.phase, reason or (waited if phase == progress.phase else ""), now)
        self._write(", ".join([f"{progress.connection}: {counts(progress, now - began)}", *waiting]))


def counts(progress: Progress, elapsed_s: float) -> str:
    """Format a run's state as one line: "fetching charts, 120 of 400 units, 3,201 received, 240 requests, 12 s, ETA 28 s"."""
    parts = [progress.phase]
    if progress.units:
        parts.append(f"{progress.units_done:,} of {how_many(progress.units, 'unit')}")
    if progress.records:
        parts.append(f"{progress.records:,} received")  # each time that it comes; reports count a resource once
    parts += progress.details
    parts.append(f"{elapsed_s:.0f} s")
    left = progress.units - progress.units_done
    if progress.units_done and left > 0:
        parts.append(f"ETA {elapsed_s / progress.units_done * left:.0f} s")
    return ", ".join(parts)


def waits(progress: Progress, now: float) -> list[str]:
    """Format what a run waits for, from WAIT_SHOWN_S on: "waiting: the EHR's answer, 8 s at most (until 14:05:10 UTC)"."""
    wait = progress.waiting
    if wait is None:
        return []
    # most answers come within milliseconds
    lasts = now - wait.since if wait.open else max(now, wait.until) - wait.since
    if lasts <= WAIT_SHOWN_S:
        return []
    until = datetime.fromtimestamp(wait.until, UTC)
    return [f"waiting: {wait.reason}, {max(wait.until - now, 0):.0f} s at most (until {until:%H:%M:%S} UTC)"]


def rich_bars(*, with_note: bool = False) -> Bars:
    """A line for each task on stderr: what it is, its bar, its count and times, and a note."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    note = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return Progress(
        TextColumn("{task.description}", style="bold"),
        BarColumn(bar_width=12 if with_note else 24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        # on a narrow terminal the note is cut, and never what is counted
        *([TextColumn("{task.fields[note]}", markup=False, table_column=note)] if with_note else ()),
        console=Console(stderr=True),
        expand=with_note,
        refresh_per_second=BARS_A_SECOND,
        transient=True,
    )


@contextmanager
def _bars() -> Iterator[Show]:
    bars = rich_bars(with_note=True)
    tasks: dict[str, TaskID] = {}

    def show(progress: Progress) -> None:
        if progress.connection not in tasks:
            tasks[progress.connection] = bars.add_task(progress.connection, total=None, note="")
        counted = f"{progress.records:,} received"
        waiting = waits(progress, time.time())
        note = printable(" · ".join((*waiting, progress.phase, counted, *progress.details)))
        bars.update(
            tasks[progress.connection],
            completed=progress.units_done,
            total=progress.units or None,
            note=note,
        )

    with bars:
        yield show


@contextmanager
def file_progress(*, terminal: bool) -> Iterator[Callable[[FileProgress], None]]:
    """Yield the function to call as files grow: a bar for the current file, or a line every LINE_EVERY_S elsewhere."""
    if not terminal:
        yield _plain_files()
        return
    bars = rich_bars()
    tasks: dict[str, TaskID] = {}

    def show(progress: FileProgress) -> None:
        if progress.file not in tasks:
            tasks[progress.file] = bars.add_task(progress.file, total=progress.expected_rows)
        bars.update(tasks[progress.file], completed=progress.rows, visible=not progress.done)

    with bars:
        yield show


def _plain_files() -> Callable[[FileProgress], None]:
    began = last = time.monotonic()

    def show(progress: FileProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last = now
            of = f"{progress.rows:,} of " if progress.expected_rows else ""
            print_message(
                f"{progress.file}: {of}{how_many(progress.expected_rows or progress.rows, 'row')}, {now - began:.0f} s"
            )

    return show
