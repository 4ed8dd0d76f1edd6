from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cli.main import call

SITE = '[connections.site]\nvendor = "generic"\nbase_url = "https://ehr.example.org"\n'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--types", "Nonsense"], "not a FHIR resource type"),
        (["--connection", "sity"], "did you mean site?"),
        (["--tenant", "nosuch"], "there are: default"),
        (["--seed", "3"], "said with it"),
        (["--encrypt-to", "nobody"], "recipient 1 is no public key"),
        (["--encrypt-to", "file:nowhere"], "--encrypt-to file:nowhere: cannot be read: No such file"),
        (["--publish", "set", "--limit", "3", "--csv", "excel"], "--out, --csv, --limit: not with --publish"),
    ],
)
def test_words_that_mean_nothing_are_refused_before_the_store_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text(SITE)
    assert call(["export", "--config", str(path), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_told_before_the_store_is_opened(
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
        assert f"pip install 'chartferry[{extra}]'" in " ".join(capsys.readouterr().err.split())
