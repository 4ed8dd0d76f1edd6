from __future__ import annotations

import os
from pathlib import Path

import pytest

from cron.launch import clean_environment, lock_name, main, seconds, take_lock


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("45s", 45), ("30m", 1800), ("6h", 21_600), ("1.5d", 129_600)]
)
def test_durations_are_read_with_their_unit(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "-1", "6 h", "1w", "six"])
def test_malformed_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^" + text.replace("-", "\\-") + "$"):
        seconds(text)


def test_the_environment_loses_what_would_shadow_our_modules_and_keeps_the_rest() -> None:
    environ = {"PYTHONPATH": "/x", "PYTHONHOME": "/x", "VIRTUAL_ENV": "/x", "HOME": "/h", "CHARTFERRY_CONFIG": "c"}
    assert clean_environment(environ) == {"LANG": "C.UTF-8", "HOME": "/h", "CHARTFERRY_CONFIG": "c"}
    assert clean_environment({"LANG": "de_DE.UTF-8"})["LANG"] == "de_DE.UTF-8"


def test_equal_lines_share_a_lock_and_others_do_not() -> None:
    assert lock_name(["/opt/bin/chartferry", "sync", "a"]) == lock_name(["chartferry", "sync", "a"])
    assert lock_name(["chartferry", "sync", "a"]) != lock_name(["chartferry", "sync", "b"])
    assert "/" not in lock_name(["chartferry", "export", "--out", "/var/x"])
    assert lock_name(["chartferry", "sync", "a b"]) != lock_name(["chartferry", "sync", "a", "b"])
    long = ["chartferry", "sync", "x" * 200]
    assert lock_name([*long, "a"]) != lock_name([*long, "b"])


@pytest.mark.parametrize("command", [["chartferry", "pull", "mercy", "eq081-VQ"], ["fetch-one", "eq081-VQ"]])
def test_a_lock_is_named_for_the_command_and_never_for_its_arguments(command: list[str]) -> None:
    name = lock_name(command)
    assert name.startswith(command[0])
    assert "eq081" not in name
    assert "mercy" not in name


def test_an_unknown_option_is_refused_without_quoting_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["chartferry", "pull", "mercy", "--patient", "eq081-VQ"])
    assert "eq081" not in capsys.readouterr().err


def test_a_lock_is_given_once_and_again_after_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.lock"
    first = take_lock(path)
    assert first is not None
    assert take_lock(path) is None
    os.close(first)
    second = take_lock(path)
    assert second is not None
    os.close(second)
