"""The table of rules is kept by the tests that it names: each row has one, and each is there."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/conformance.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| [A-Z]\d+", line)
]
CODE_ROOTS = ("connectors/fhir", "connectors/core", ".")


@lru_cache
def names_in(path: Path) -> frozenset[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds))


def names_a_test(row: list[str]) -> bool:
    _, rule, held, _, test = row
    path, _, name = test.strip("`").partition("::")
    whole = rule and re.fullmatch(r"yes|(yes|narrower) \([a-z]\)", held) and name.startswith("test_")
    return bool(whole) and name in names_in(ROOT / "tests" / path)


def test_every_rule_names_an_existing_test() -> None:
    assert [row for row in ROWS if not names_a_test(row)] == []


def test_every_rule_names_existing_code() -> None:
    named = {row[0]: row[3].strip("`") for row in ROWS}
    there = {rule for rule, code in named.items() if any((ROOT / root / code).is_file() for root in CODE_ROOTS)}
    assert [rule for rule, code in named.items() if code != "—" and rule not in there] == []


def test_rules_are_numbered_uniquely_and_without_gaps() -> None:
    numbers = [row[0].split()[0] for row in ROWS]
    assert len(set(numbers)) == len(numbers)
    for letter, some in ((letter, [int(n[1:]) for n in numbers if n[0] == letter]) for letter in "SKPMFDB"):
        assert some == list(range(1, len(some) + 1)), letter
    assert len(numbers) == sum(line.startswith("| ") and "::" in line for line in PAGE.splitlines())


def test_every_exception_to_a_house_rule_states_its_reason() -> None:
    marks = {mark for row in ROWS for mark in re.findall(r"\(([a-z])\)", row[2])}
    reasons = set(re.findall(r"(?:^|\. |\)\. )\(([a-z])\)", PAGE, re.MULTILINE))
    assert marks == reasons
