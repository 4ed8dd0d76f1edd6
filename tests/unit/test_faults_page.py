"""The page of faults and the fault matrix say the same."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.acceptance.fault_cases import CASES

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "tests/acceptance/test_fault_matrix.py"
NIGHTS = ROOT / "tests/acceptance"
LISTED = [f"F{number}" for number in range(1, 51)]
BY_ITSELF = {"F7": 0, "F49": 6}  # these need another run or process, so they are separate tests


def page_rows() -> dict[str, tuple[set[int], set[str]]]:
    """Fault -> exit codes, test ids, as the page has them."""
    found = {}
    for line in (ROOT / "docs/faults.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"[FG]\d+", cells[0]):
            assert cells[0] not in found
            found[cells[0]] = ({int(code) for code in cells[-3].split(", ")}, set(re.findall(r"`([^`]+)`", cells[-1])))
    return found


def suite_rows() -> dict[str, tuple[set[int], set[str]]]:
    """The same, as the suite has them."""
    found: defaultdict[str, tuple[set[int], set[str]]] = defaultdict(lambda: (set(), set()))
    for case in CASES:
        found[case.number][0].add(case.code)
        found[case.number][1].add(case.id)
    for node in ast.walk(ast.parse(SUITE.read_text())):
        if isinstance(node, ast.FunctionDef) and (named := re.match(r"test_(f\d+)_", node.name)):
            number = named[1].upper()
            found[number][0].add(BY_ITSELF[number])
            found[number][1].add(node.name)
    return dict(found)


def test_every_fault_of_the_catalogue_has_a_case() -> None:
    assert [number for number in LISTED if number not in suite_rows()] == []


@pytest.mark.parametrize("number", sorted({*LISTED, *suite_rows()}))
def test_the_page_lists_the_cases_and_their_exit_codes(number: str) -> None:
    assert page_rows()[number] == suite_rows()[number]


def test_case_names_are_unique() -> None:
    names = [case.id for case in CASES]
    assert len(names) == len(set(names))


def night_rows() -> dict[str, str]:
    """Test -> history's number, as the page has them."""
    found = {}
    for line in (ROOT / "docs/faults.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"n\d+[a-z]?(, n\d+[a-z]?)*", cells[0]):
            found[cells[-1].strip("`")] = cells[0].partition(",")[0]
    return found


def night_tests() -> dict[str, str]:
    """The same, as the suite has them."""
    found = {}
    for path in NIGHTS.glob("test_nights_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (named := re.match(r"test_(n\d+[a-z]?)_", node.name)):
                found[node.name] = named[1]
    return found


def test_the_page_lists_every_history_of_several_nights_that_is_tested() -> None:
    assert len(night_tests()) > 20
    assert night_rows() == night_tests()
