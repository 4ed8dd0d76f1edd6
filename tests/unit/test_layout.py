"""What every file of the house keeps to."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("config", "snapshots", "connectors", "exports", "cli", "cron", "mocks", "benchmarks")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
BANNED = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def test_a_file_is_named_for_what_it_owns() -> None:
    assert [str(path) for path in MODULES if path.stem in BANNED] == []


def test_no_file_is_too_long_to_read_in_one_sitting() -> None:
    assert [str(path) for path in MODULES if len(path.read_text().splitlines()) > 400] == []


@pytest.mark.parametrize("folder", ["connectors", "snapshots", "exports", "config"])
def test_library_code_neither_prints_nor_exits(folder: str) -> None:
    texts = ((path, path.read_text()) for path in (ROOT / folder).rglob("*.py"))
    calls = [
        f"{path.name}:{node.lineno}"
        for path, text in texts
        if re.search(r"\b(print|exit)\(", text)  # to take every file apart would cost a second
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.exit", "exit", "os._exit"}
    ]
    assert calls == []


@pytest.mark.parametrize("package", ["config", "snapshots", "connectors", "exports", "cli", "cron", "mocks"])
def test_the_package_that_is_imported_is_ours(package: str) -> None:
    found = importlib.import_module(package).__file__
    assert found is not None
    assert Path(found).is_relative_to(ROOT)
