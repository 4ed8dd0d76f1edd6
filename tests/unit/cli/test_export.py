from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cli.command_line import call
from cli.export_summary import odd_value_lines
from exports.delivery.files import DeliveredFile, TableCounts

SITE = '[connections.site]\nvendor = "generic"\nbase_url = "https://ehr.example.org"\n'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--types", "Nonsense"], "must be a resource type of FHIR R4"),
        (["--connection", "sity"], "did you mean site?"),
        (["--tenant", "nosuch"], "there are: default"),
        (["--seed", "3"], "give both"),
        (["--base-url", "https://x.example"], "--base-url needs --publish"),
        (["--types", ","], "--types names nothing"),
        (["--encrypt-to", "nobody"], "recipient 1 is not a public key"),
        (["--encrypt-to", "file:nowhere"], "--encrypt-to file:nowhere: cannot be read: No such file"),
        (["--connection", ","], "--connection names nothing; leave it out for the default"),
        (["--format", " , "], "--format names nothing"),
        (["--out", "-"], "--out -: an export is several files, so name a folder or a URL"),
        (["--publish", "set", "--limit", "3", "--csv", "excel"], "--out, --csv, --limit: not with --publish"),
    ],
)
def test_invalid_options_are_refused_before_the_store_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text(SITE)
    assert call(["export", "--config", str(path), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_reported_before_the_store_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chartferry.toml").write_text('[store]\nurl = "postgresql://127.0.0.1:9/nowhere"\n' + SITE)
    monkeypatch.chdir(tmp_path)
    for extra, package, words in (
        ("duckdb", "duckdb", ("--out", "out", "--format", "duckdb")),
        ("delta", "deltalake", ("--format", "delta", "--to", "lake")),
        ("age", "pyrage", ("--out", "out", "--encrypt-to", "age1x")),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, "exports.warehouse.delta", raising=False)
        assert call(["export", *words]) == 2
        assert f"{sys.executable} -m pip install 'chartferry[{extra}]'" in " ".join(capsys.readouterr().err.split())


def test_a_value_that_does_not_fit_is_counted_once_however_many_formats_and_parts_hold_its_table() -> None:
    def file(path: str, **more: Any) -> DeliveredFile:
        return DeliveredFile(path=path, kind="table", rows=1, bytes=1, uncompressed_bytes=1, sha256="0", **more)

    files = [
        file("patient.0001.csv.gz", left_empty={"x": 2}),
        file("patient.0002.csv.gz", left_empty={"x": 1, "y": 4}, left_out=5),
        file("patient.parquet", left_empty={"x": 3, "y": 4}, left_out=5),
        file("charts.duckdb", tables={"patient": TableCounts(3, {"x": 3, "y": 4}, 5), "goal": TableCounts(1)}),
        file("Patient.ndjson.gz"),
    ]
    assert odd_value_lines(files) == [
        "left empty, because the value does not fit the column: patient.x 3, patient.y 4; NDJSON has what the EHR wrote",
        "left out, because the view's criteria could not be decided: patient 5",
    ]
