"""What is answered to a misspelt option or command."""

from __future__ import annotations

import pytest

from cli.command_line import call


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["export", "-out", "x"], "No such option: -out (Possible options: --out)"),
        (["export", "-o", "x"], "No such option: -o (Possible options: --out)"),
        (["sync", "-types=Patient"], "No such option: -types (Possible options: --types)"),
        (["-json", "runs"], "No such option: -json (Possible options: --json)"),
        (["export", "--OUT", "x"], "No such option: --OUT (Possible options: --out)"),
        (["export", "--as_of", "3"], "No such option: --as_of (Possible options: --as-of)"),
        (["export", "--ouput", "x"], "No such option: --ouput (Possible options: --out)"),
        (["-v"], "No such option: -v (Possible options: --version)"),
        (["export", "\u2014out", "x"], "--out)"),
        (["sync", "\u2013types=Patient"], "--types)"),
        (["runs", "-n", "3"], "No such option: -n"),
        (["sync", "-palns"], "No such option: -p (Possible options: --plan"),
        (["sync", "--plans"], "No such option: --plan… (Possible options: --plan"),
        (["export", "--connection", ""], "the word behind --connection is empty"),
        (["export", "--patients="], "--patients is empty"),
        (["sync", " "], "a word is empty"),
        (["--tenant", "", "runs"], "the word behind --tenant is empty"),
        (["export", "--out", "--json"], "--out needs a value, but --json follows it"),
        (["export", "--out=x", "--types", "--format=csv"], "--types needs a value, but --format follows it"),
        (["SYNC"], "No such command 'SYNC'. Did you mean 'sync'?"),
        (["export", "--limit", "five"], "must be a whole number"),
        (["snapshots"], "Missing argument 'CONNECTION'. The patient's connection."),
        (["submit", "x"], "Missing argument 'TARGET'. A receiver of the configuration: [receivers.TARGET]."),
    ],
)
def test_a_misspelt_word_is_reported_with_the_nearest_one(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(words) == 2
    shown = capsys.readouterr().err
    assert expected in shown
    assert "Patient" not in shown


def test_after_two_hyphens_a_long_dash_is_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["sync", "--config", "none.toml", "--", "\u2014types"]) == 2
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "stuck"),
    [
        (["audit", "-p12345678"], "12345678"),
        (["pull", "x", "-Doe1970"], "oe1970"),
        (["erase", "x", "-pDoe1970"], "Doe1970"),
        (["export", "-patients77"], "77"),
        (["audit", "--patient12345678"], "12345678"),
        (["audit", "--patientDoe"], "Doe"),
        (["audit", "-pTiens"], "iens"),
        (["audit", "--patient", "--as", "Doe"], "Doe"),
        (["audit", "12345678"], "12345678"),
        (["audit", "Doesmith"], "Doesmith"),
        (["Doesmith"], "Doesmith"),
        (["pull", "mercy", "Ann", "Doe1970"], "Doe1970"),
        (["runs", "7", "Doe1970"], "Doe1970"),
    ],
)
def test_a_word_that_may_name_a_patient_is_not_shown(
    words: list[str], stuck: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(words) == 2
    assert stuck not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["query", "-"],
        ["export", "--out", "x", "--query", "-"],
        ["init", "-"],
        ["store", "backup", "--out", "-"],
        ["store", "restore", "-"],
        ["tenants", "export", "default", "--out", "-"],
        ["mock", "serve", "--vendor", "epic", "--data", "-"],
        ["demo", "--dir", "-"],
    ],
    ids=" ".join,
)
def test_a_hyphen_is_no_path_where_nothing_is_read_from_stdin_or_written_to_stdout(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(words) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "-: this is neither read from stdin nor written to stdout; name a file or a folder" in shown
