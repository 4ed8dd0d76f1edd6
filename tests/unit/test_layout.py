"""What every file of the house keeps to."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("config", "snapshots", "connectors", "exports", "cli", "cron", "mocks", "benchmarks")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
BANNED = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def test_a_file_is_named_for_what_it_owns() -> None:
    assert [str(path) for path in MODULES if path.stem in BANNED] == []


def test_a_file_says_what_it_owns() -> None:
    assert [str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_a_file_is_read_in_one_sitting() -> None:
    assert [str(path) for path in MODULES if len(path.read_text().splitlines()) > 400] == []


@pytest.mark.parametrize("folder", ["connectors", "snapshots", "exports", "config"])
def test_library_code_neither_prints_nor_exits(folder: str) -> None:
    calls = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.exit", "exit", "os._exit"}
    ]
    assert calls == []


def test_no_vendor_is_named_in_the_code_of_connectors_outside_its_profile() -> None:
    named = []
    for path in (ROOT / "connectors").rglob("*.py"):
        if path.parent.name == "vendors":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                words = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                if words & {"epic", "cerner", "allscripts", "va", "generic"}:
                    named.append(f"{path.name}:{node.lineno}")
    assert named == []


@pytest.mark.parametrize("package", ["config", "snapshots", "connectors", "exports", "cli", "cron", "mocks"])
def test_the_package_that_is_imported_is_ours(package: str) -> None:
    found = importlib.import_module(package).__file__
    assert found is not None
    assert Path(found).is_relative_to(ROOT)
