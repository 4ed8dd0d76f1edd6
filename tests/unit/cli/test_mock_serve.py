from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cli.command_line import call
from cli.mock_serve import _with_faults
from mocks.mock_config import MockConfig


def test_the_seed_of_a_fault_script_leaves_the_patients_as_they_are(tmp_path: Path) -> None:
    script = tmp_path / "faults.toml"
    script.write_text("seed = 9\n[[rules]]\naction = { status = 503 }\n")
    found = _with_faults(MockConfig(vendor="epic", seed=3), script)
    assert (found.seed, found.fault_seed) == (3, 9)


def test_a_port_in_use_is_reported_as_a_mistake_and_not_as_a_bug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["mock", "serve", "--vendor", "generic", "--patients", "1", "--keys", str(tmp_path), "--port", port]
        assert call(words) == 2
    assert "choose another --port" in capsys.readouterr().err


def test_a_missing_fault_script_is_reported_in_plain_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "none.toml"
    words = ["mock", "serve", "--vendor", "generic", "--keys", str(tmp_path), "--faults", str(script)]
    assert call(words) == 2
    assert f"fault script {script} cannot be read: No such file or directory; check the path" in capsys.readouterr().err
