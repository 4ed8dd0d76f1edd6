from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cli import render
from cli.command_line import call
from cli.exit_codes import ExitCode
from cli.render import print_holes, print_message, print_table
from cli.sync import Outcome, outcome_of, outcomes_as_json
from config.connections import Connection
from connectors.core.errors import AuthError
from snapshots.report import Hole, RunReport

SITE = Connection(name="site", vendor="generic", base_url="https://ehr.example.org")
TWO = """
[connections.mercy-epic]
vendor = "generic"
base_url = "https://ehr.example.org"
[connections.other]
vendor = "generic"
base_url = "https://ehr.example.org"
"""


def report(status: str = "partial") -> RunReport:
    return RunReport(
        id=7,
        connection="site",
        status=status,
        mode="crawl",
        resources={"Patient": 2},
        patients=2,
        new=2,
        changed=0,
        unchanged=0,
        deleted=0,
        quarantined=0,
        holes=[Hole(resource_type="Observation", scope="patient ~3f2a9c41", reason="HTTP 500")],
        notes=[],
        requests=5,
        retries=1,
        seconds=1.23456,
    )


def usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    path = tmp_path / "chartferry.toml"
    path.write_text(TWO)
    assert call(["sync", "--config", str(path), *words]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_an_unknown_connection_is_reported_with_the_nearest_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean mercy-epic?" in usage_error(tmp_path, capsys, "mercy-epik")


@pytest.mark.parametrize(
    "words", [["pull", "Doe1970", "mercy-epic"], ["submit", "Doe1970", "x"], ["--tenant", "Doe1970", "sync"]]
)
def test_a_name_of_the_command_line_that_resembles_no_known_one_is_not_shown(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text(TWO)
    assert call(["--config", str(path), *words]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "of this name (not shown, since it may name a patient)" in shown
    assert "Doe1970" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "fast"], "one of auto, bulk, crawl"),
        (["--since", "yesterday"], "auto, none, or an instant"),
        (["--since", "2026-01-01T00:00:00"], "which time zone?"),
        (["--types", "Patient,observation"], "observation: must be a resource type of FHIR R4"),
        (["--types", "Pateint"], "did you mean Patient?"),
        (["--tenant", "nosuch"], "there are: default"),
        (["--group", "g"], "apply to one connection"),
        (["other", "--patients", "Doe1970"], "the file of --patients cannot be read: No such file"),
    ],
)
def test_invalid_options_are_refused_with_the_allowed_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in usage_error(tmp_path, capsys, *words)


def test_without_a_connection_there_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text("")
    assert call(["sync", "--config", str(path), "--json"]) == 4
    assert json.loads(capsys.readouterr().out) == {"status": "nothing", "runs": [], "errors": []}


def test_json_has_the_fields_of_the_contract() -> None:
    answer = outcomes_as_json([Outcome(SITE, ExitCode.PARTIAL, report())], ExitCode.PARTIAL)
    assert answer["status"] == "partial"
    (run,) = answer["runs"]
    assert run["holes"] == [{"type": "Observation", "scope": "patient ~3f2a9c41", "reason": "HTTP 500"}]
    assert set(run) >= {
        "id", "connection", "status", "resources", "new", "changed", "unchanged", "deleted", "quarantined", "holes",
        "requests", "retries", "seconds",
    }  # fmt: skip


def test_holes_with_one_reason_are_one_counted_line_unless_all_are_requested() -> None:
    found = [
        *(Hole(resource_type="Observation", scope=f"Observation file {n}", reason="HTTP 500") for n in range(17)),
        Hole(resource_type="Patient", scope="patient ~3f2a9c41", reason="HTTP 403"),
    ]
    lines: list[str] = []
    print_holes([replace(report(), holes=found)], write=lines.append)
    assert lines == [
        "hole     site: 17 × HTTP 500 (Observation 17)",  # noqa: RUF001
        "hole     site: Patient, patient ~3f2a9c41: HTTP 403",
        "hole     site: all 18: `chartferry runs 7`",
    ]
    lines.clear()
    print_holes([replace(report(), holes=found)], every=True, write=lines.append)
    assert len(lines) == 18


@pytest.mark.anyio
async def test_an_error_of_one_connection_becomes_its_outcome() -> None:
    async def refused() -> RunReport:
        raise AuthError("the token endpoint refused the client")

    async def broken() -> RunReport:
        raise RuntimeError("Jane Doe")

    async def well() -> RunReport:
        return report("complete")

    assert (await outcome_of(SITE, refused)).code == ExitCode.FAILED
    unforeseen = await outcome_of(SITE, broken)
    assert unforeseen.code == ExitCode.UNEXPECTED
    assert "Jane" not in str(unforeseen.error)
    assert (await outcome_of(SITE, well)).code == ExitCode.COMPLETE


@pytest.mark.parametrize(
    "words",
    [
        ["sync"],
        ["sync", "--plan"],
        ["prove", "site"],
        ["pull", "site", "p1"],
        ["export", "--out", "x"],
        ["config", "check"],
    ],
)
def test_every_command_reports_a_mistyped_override_before_any_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text(
        '[connections.site]\nvendor = "generic"\nbase_url = "https://ehr.example.org"\nprofile = {retry_bases_s = 1}\n'
    )
    assert call([*words, "--config", str(path)]) == ExitCode.USAGE
    errors = capsys.readouterr().err
    assert "connections.site.profile.retry_bases_s" in errors
    assert "did you mean retry.base_s?" in errors


def test_text_from_servers_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "HTTP 500 \x1b[31m\x1b]8;;http://evil\x07x\u202ey\x9b2J\r\u200bz\tend"
    hostile_report = replace(
        report(), notes=[hostile], error=hostile, holes=[Hole(resource_type="Goal", scope=hostile, reason=hostile)]
    )
    print_holes([hostile_report], every=True)
    print_table(("reason",), [(hostile,)])
    print_message(hostile)
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert "HTTP 500" in text
        assert all(c.isprintable() or c == "\n" for c in text)


def test_a_table_on_a_narrow_terminal_breaks_no_word_and_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ("connection", "status", "?mode", "patients#", "resources#", "?requests#")
    row = ("mercy-epic-production", "complete", "crawl", 12_345, 1_234_567, 98_765)
    for width in (60, 50, 34):
        monkeypatch.setattr(render, "WIDTH_ELSEWHERE", width)
        print_table(columns, [row])
        shown = capsys.readouterr().out
        assert {"mercy-epic-production", "complete", "12,345", "1,234,567"} <= {*shown.split()}
        assert max(map(len, shown.splitlines())) <= width


def test_a_message_that_nobody_can_read_any_more_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        print_message("a line")
        with suppress(OSError):
            closed.close()


def test_a_table_too_wide_for_the_terminal_omits_columns_of_zeros(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "WIDTH_ELSEWHERE", 30)
    print_table(("connection", "patients#", "holes#", "deleted#"), [("mercy-epic", 12, 0, 0), ("st-lukes", 3, 2, 0)])
    out = capsys.readouterr().out
    assert ("mercy-epic" in out, "patients" in out, "holes" in out, "deleted" in out) == (True, True, True, False)
