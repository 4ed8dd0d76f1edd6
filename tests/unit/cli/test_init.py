from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from cli.command_line import call
from cli.init import TEMPLATE
from config.connections import Connection
from config.settings import ExportDefaults, load_settings
from connectors.fhir.vendors import PROFILES


def uncommented() -> str:
    return "\n".join(line.removeprefix("#: ") for line in TEMPLATE.splitlines())


def test_the_written_file_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chartferry.toml"
    assert call(["init", str(path)]) == 0
    assert load_settings(path, {}).connections == {}
    assert "config check" in capsys.readouterr().out


def test_every_commented_example_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text(uncommented())
    settings = load_settings(path, {})
    assert {each.vendor for each in settings.connections.values()} == set(PROFILES)
    assert {each.auth for each in settings.connections.values()} == {"smart", "secret", "bearer", "none"}


def test_every_connection_key_appears_in_an_example() -> None:
    tables = tomllib.loads(uncommented())
    shown = {key for table in tables["connections"].values() for key in table}
    known = {field.alias or name for name, field in Connection.model_fields.items()} - {"name", "auth"}
    assert known <= shown
    assert set(ExportDefaults.model_fields) <= set(tables["export"])


def test_an_existing_file_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text("mine")
    assert call(["init", str(path)]) == 2
    assert path.read_text() == "mine"
    assert "was not changed" in capsys.readouterr().err


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert call(["init", str(tmp_path / "file" / "chartferry.toml")]) == 2
    assert "cannot be" in capsys.readouterr().err


def test_the_suggested_commands_can_be_typed_as_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert call(["init"]) == 0
    assert "  2. chartferry config check\n" in capsys.readouterr().out
    monkeypatch.setenv("PATH", "/nowhere")
    assert call(["init", "site/chartferry.toml"]) == 0
    out = capsys.readouterr().out
    assert f"  2. {Path(sys.executable).parent}/chartferry config check --config site/chartferry.toml\n" in out
