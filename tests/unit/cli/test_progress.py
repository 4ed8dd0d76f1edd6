from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from rich.console import Console

from cli.progress import PlainLines, counts, rich_bars, waits
from connectors.core.waits import Wait, Waits
from connectors.fhir.run import EhrProgress


def progress(connection: str = "site", phase: str = "fetching charts", **shown: Any) -> EhrProgress:
    return EhrProgress(connection=connection, phase=phase, **shown)


def test_a_progress_line_shows_counts_and_the_expected_end() -> None:
    run = progress(units_done=100, units=400, records=3201, requests=240, retries=2)
    expected = "fetching charts, 100 of 400 units, 3,201 received, 240 requests, 2 retries, 12 s, ETA 36 s"
    assert counts(run, 12) == expected


def test_the_causes_of_a_slow_run_are_reported() -> None:
    run = progress(
        requests=240, retries=2, retries_left=98, places=3, down_until=datetime(2026, 1, 2, 14, 5, tzinfo=UTC)
    )
    expected = "fetching charts, 240 requests, 2 retries (98 left), 3 at a time, EHR down until 14:05 UTC, 12 s"
    assert counts(run, 12) == expected


def test_pauses_requested_by_the_server_are_reported() -> None:
    assert "600 s paused by the server's rate headers" in counts(progress(requests=3, paused_s=600.2), 700)


def test_without_a_terminal_a_line_appears_at_each_phase_and_every_ten_seconds() -> None:
    now = [0.0]
    lines: list[str] = []
    shown = PlainLines(lines.append, lambda: now[0])
    run = progress(phase="logging in")
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
    shown.show(progress(connection="a"))
    shown.show(progress(connection="b"))
    assert len(lines) == 2


def test_a_single_item_is_reported_in_the_singular() -> None:
    shown = counts(progress(units=1, records=1, requests=1, retries=1), 2)
    assert shown == "fetching charts, 0 of 1 unit, 1 received, 1 request, 1 retry, 2 s"


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()


def test_a_wait_of_two_seconds_or_more_is_shown_with_its_reason_and_end() -> None:
    run = progress(waiting=Wait("quiet hours spare the EHR", NOON, NOON + 90))
    expected = "waiting: quiet hours spare the EHR, 80 s at most (until 12:01:30 UTC)"
    assert waits(run, NOON + 10) == [expected]
    assert waits(progress(waiting=Wait("a short one", NOON, NOON + 2)), NOON + 1) == []
    assert waits(progress(), NOON) == []


def test_waiting_for_an_answer_is_shown_only_after_two_seconds() -> None:
    run = progress(waiting=Wait("the EHR's answer", NOON, NOON + 300, open=True))
    assert waits(run, NOON + 1) == []
    assert waits(run, NOON + 3) == ["waiting: the EHR's answer, 297 s at most (until 12:05:00 UTC)"]


def test_without_a_terminal_each_new_reason_to_wait_gets_a_line_at_once_and_again_while_it_lasts() -> None:
    now = [0.0]
    lines: list[str] = []
    shown = PlainLines(lines.append, lambda: now[0], lambda: NOON + now[0])
    run = progress()
    shown.show(run)
    for second in range(1, 25):
        now[0] = float(second)
        run.waiting = Wait("Retry-After asks for it", NOON + 1, NOON + 300) if second > 3 else None
        shown.show(run)
    assert [line.count("(until 12:05:00 UTC)") for line in lines] == [0, 1, 1, 1]


def test_a_missing_answer_is_shown_as_a_wait_only_if_nothing_else_arrives() -> None:
    now = [NOON]
    found = Waits(lambda: now[0], asyncio.sleep)
    with found.answer("the EHR's answer", 300):
        now[0] += 100
        assert found.current() == Wait("the EHR's answer", NOON, NOON + 300, open=True)
        with found.answer("the EHR's answer", 300):
            now[0] += 1
        now[0] += 5
        assert found.current() == Wait("the EHR's answer", NOON + 101, NOON + 401, open=True)
    assert found.current() is None


def test_a_narrow_terminal_cuts_the_note_of_a_bar_and_never_what_is_counted() -> None:
    bars = rich_bars(with_note=True)
    bars.add_task(
        "south-allscripts", total=1_440, completed=17, note="waiting: the EHR is preparing the export, 300 s at most"
    )
    out = StringIO()
    Console(width=80, file=out).print(bars.get_renderable())
    output = out.getvalue()
    assert "17/1440" in output
    assert "waiting: the EHR" in output
    assert len(output.splitlines()) == 1
