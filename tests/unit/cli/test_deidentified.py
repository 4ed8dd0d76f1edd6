from __future__ import annotations

from pathlib import Path

import pytest

from cli.command_line import call
from cli.deidentified import ProfileName, checked_profile
from config.settings import load_settings


def test_without_a_key_the_profile_says_where_one_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "chartferry.toml").write_text('[store]\nurl = "embedded:store"\n')
    monkeypatch.chdir(tmp_path)
    assert call(["export", "--out", "out", "--profile", "safe-harbor"]) == 2
    shown = capsys.readouterr()
    assert "safe_harbor_key" in shown.err
    assert "openssl rand -hex 32" in shown.err


def test_the_key_is_read_from_the_configured_place_and_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFE_HARBOR_KEY", "0f" * 32)
    file = tmp_path / "chartferry.toml"
    file.write_text('[store]\nurl = "embedded:store"\n[export]\nsafe_harbor_key = "env:SAFE_HARBOR_KEY"\n')
    settings = load_settings(file, {})
    profile = checked_profile(ProfileName.safe_harbor, settings)
    assert profile is not None
    assert profile.key == b"0f" * 32
    assert "0f0f" not in repr(profile) + repr(settings)
    assert checked_profile(None, settings) is None
