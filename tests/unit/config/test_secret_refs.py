from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from config.errors import SecretUnreadableError
from config.secret_refs import Secret, SecretRef


def test_a_secret_masks_itself_wherever_it_is_shown() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(secret)


def test_a_file_is_read_relative_to_its_base_and_without_white_space(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("hunter2\n")
    assert SecretRef.parse("file:k", tmp_path).read({}) == Secret("hunter2")


def test_an_environment_variable_is_read() -> None:
    assert SecretRef.parse("env:K", Path("/")).read({"K": "hunter2"}) == Secret("hunter2")


@pytest.mark.parametrize("text", ["hunter2", "file:", "vault:hunter2", ""])
def test_anything_else_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match="env:NAME") as caught:
        SecretRef.parse(text, Path("/"))
    assert "hunter2" not in str(caught.value)


def test_a_missing_variable_says_what_to_export() -> None:
    with pytest.raises(SecretUnreadableError, match=r"env:K is not set: export K in the environment"):
        SecretRef("env", "K").read({})


def test_an_unreadable_reference_is_reported_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large").write_bytes(b"x" * 1_000_001)
    for name, reason in {
        "none": r"no such file or directory",
        "empty": r"is empty",
        "binary": r"is not text in UTF-8",
        "large": r"more than 1,000,000 bytes",
        ".": r"is a directory",
    }.items():
        with pytest.raises(SecretUnreadableError, match=reason):
            SecretRef.parse(f"file:{name}", tmp_path).read({})
