from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cli.progress import PlainLines, counts


@dataclass
class Run:
    connection: str = "site"
    phase: str = "fetching charts"
    units_done: int = 0
    units: int = 0
    records: int = 0
    requests: int = 0
    retries: int = 0
    retries_left: int | None = None
    places: int | None = None
    down_until: datetime | None = None
    paused_s: float = 0.0


def test_a_line_tells_counts_and_when_it_will_end() -> None:
    run = Run(units_done=100, units=400, records=3201, requests=240, retries=2)
    expected = "fetching charts, 100 of 400 units, 3,201 resources, 240 requests, 2 retries, 12 s, ETA 36 s"
    assert counts(run, 12) == expected


def test_what_slows_a_run_down_is_told() -> None:
    run = Run(requests=240, retries=2, retries_left=98, places=3, down_until=datetime(2026, 1, 2, 14, 5, tzinfo=UTC))
    told = "fetching charts, 240 requests, 2 retries (98 left), 3 at a time, EHR down until 14:05 UTC, 12 s"
    assert counts(run, 12) == told


def test_pauses_that_the_server_asked_for_are_told() -> None:
    assert "600 s paused by the server's rate headers" in counts(Run(requests=3, paused_s=600.2), 700)


def test_elsewhere_a_line_comes_at_each_phase_and_every_ten_seconds() -> None:
    now = [0.0]
    lines: list[str] = []
    shown = PlainLines(lines.append, lambda: now[0])
    run = Run(phase="logging in")
    shown.show(run)
    run.phase, run.units = "fetching charts", 400
    for second in range(25):
        now[0], run.units_done = float(second), second * 4
        shown.show(run)
    assert [line.split(", ")[0] for line in lines] == ["site: logging in", *["site: fetching charts"] * 3]
    assert "40 of 400 units" in lines[2]


def test_connections_do_not_hide_each_other() -> None:
    lines: list[str] = []
    shown = PlainLines(lines.append, lambda: 0.0)
    shown.show(Run(connection="a"))
    shown.show(Run(connection="b"))
    assert len(lines) == 2


def test_one_of_a_kind_is_not_told_in_the_plural() -> None:
    told = counts(Run(units=1, records=1, requests=1, retries=1), 2)
    assert told == "fetching charts, 0 of 1 unit, 1 resource, 1 request, 1 retry, 2 s"
