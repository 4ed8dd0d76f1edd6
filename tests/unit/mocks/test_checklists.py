"""Every row of every vendor's checklist has a test that a naive client fails (docs/mocks.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROWS = {"epic": 16, "cerner": 14, "allscripts": 9, "va": 8}  # of vendor-facts 1.12, 2.10, 3.5, 4.4
_LINE = re.compile(r"^\| (\w+)-(\d\d) \| [^|]+ \| ((?:`\w+`(?:<br>)?)+) \|$", re.MULTILINE)


def table() -> dict[str, list[str]]:
    """Row -> names of its tests, as the page says."""
    page = (ROOT / "docs/mocks.md").read_text()
    return {
        f"{vendor}_{number}": re.findall(r"\w+", cell.replace("<br>", " "))
        for vendor, number, cell in _LINE.findall(page)
    }


def written(vendor: str) -> set[str]:
    file = ROOT / f"tests/integration/mocks/test_{vendor}_checklist.py"
    return set(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))


@pytest.mark.parametrize("vendor", ROWS)
def test_every_row_of_the_checklist_is_in_the_table(vendor: str) -> None:
    assert [n for n in range(1, ROWS[vendor] + 1) if f"{vendor}_{n:02d}" not in table()] == []


@pytest.mark.parametrize("vendor", ROWS)
def test_every_row_of_the_table_names_tests_of_that_row_that_exist(vendor: str) -> None:
    named = {name: row for row, names in table().items() for name in names if row.startswith(vendor + "_")}
    assert named
    assert [name for name, row in named.items() if not name.startswith(f"test_{row}_")] == []
    assert set(named) == written(vendor), "and every test of a checklist is in the table"
