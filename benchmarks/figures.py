"""figures owns the result of a measurement: a value, the limit measured beside it, the bar it must reach, and peak memory.

The measuring modules produce the values; this one prints the table and writes the JSON.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

MEMORY_BAR_MB = 200.0
WIDTH_ELSEWHERE = 100  # columns, where nobody watches


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value. The ratio is value / limit; the bar applies to the ratio, or to the value if `bar_on` says so."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    limit_name: str = ""
    bar: float | None = None
    bar_on: Literal["ratio", "at most", "at least"] = "ratio"  # minimum of the ratio, or of the value
    peak_mb: float | None = None  # VmHWM of the chartferry process; Postgres and the mock are separate processes
    samples: tuple[float, ...] = ()
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The value divided by the limit; None if no limit was measured."""
        return self.value / self.limit if self.limit else None

    @property
    def passed(self) -> bool | None:
        """Whether all limits are met, including the one for memory; None if there is no limit."""
        checks = []
        if self.bar is not None:
            compared = {
                "ratio": (self.ratio or 0.0) >= self.bar,
                "at most": self.value <= self.bar,
                "at least": self.value >= self.bar,
            }
            checks.append(compared[self.bar_on])
        if self.peak_mb is not None:
            checks.append(self.peak_mb <= MEMORY_BAR_MB)
        return all(checks) if checks else None


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What two clients did under the same fault, each in a few words, as observed."""

    fault: str
    ours: str
    theirs: str


def print_behaviours(behaviours: Sequence[Behaviour], theirs: str) -> None:
    """Print the observations as one table on stdout."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("fault", "chartferry", theirs):
        table.add_column(column, overflow="fold")
    for seen in behaviours:
        table.add_row(Text(seen.fault), Text(seen.ours), Text(seen.theirs))
    _console().print(table)


def print_figures(figures: Sequence[Figure]) -> None:
    """Print all figures as one table on stdout."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measurement, what was measured beside it, note")
    for column in ("figure", "limit", "ratio", "bar", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=4)
    for figure in figures:
        table.add_row(*(Text(cell) for cell in _cells(figure)))
    _console().print(table)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_ELSEWHERE)


def _cells(figure: Figure) -> Iterable[str]:
    beside = f"beside: {figure.limit_name}" if figure.limit_name else ""
    yield "\n  ".join(filter(None, (figure.name, beside, figure.note)))
    yield f"{_number(figure.value)} {figure.unit}"
    yield "" if figure.limit is None else f"{_number(figure.limit)} {figure.unit}"
    yield "" if figure.ratio is None else f"{figure.ratio:.2f}"
    if figure.bar is None:
        yield ""
    else:
        sign = "≤" if figure.bar_on == "at most" else "≥"
        yield f"{sign} {figure.bar:.2f}" if figure.bar_on == "ratio" else f"{sign} {_number(figure.bar)}"
    yield "" if figure.peak_mb is None else f"{figure.peak_mb:.0f}"
    yield {True: "OK", False: "MISS", None: ""}[figure.passed]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def write_json(
    figures: Sequence[Figure], behaviours: Sequence[Behaviour], folder: Path, settings: dict[str, Any]
) -> Path:
    """Write the figures, the machine and the settings to `folder/<UTC time>.json`; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = folder / f"{now:%Y%m%dT%H%M%SZ}.json"
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "platform": platform.platform()}
    rows = [{**asdict(figure), "ratio": figure.ratio, "passed": figure.passed} for figure in figures]
    seen = [asdict(behaviour) for behaviour in behaviours]
    document = {"at": now.isoformat(), "machine": machine, "settings": settings, "figures": rows, "behaviours": seen}
    path.write_text(json.dumps(document, indent=1))
    return path
