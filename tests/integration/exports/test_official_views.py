"""The official SQL on FHIR tests, as they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exports.errors import ViewError
from tests.conftest import SHARED
from tests.integration.exports.conftest import RunView

FOLDER = SHARED / "sql-on-fhir-tests"


def _cases() -> list[Any]:
    return [
        pytest.param(document["resources"], test, id=f"{path.stem}: {test['title']}")
        for path in sorted(FOLDER.glob("*.json"))
        for document in [json.loads(path.read_text())]
        for test in document["tests"]
    ]


def _multiset(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True) for row in rows)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="shared/sql-on-fhir-tests is not beside this checkout")
@pytest.mark.parametrize(("resources", "test"), _cases())
def test_an_official_view_gives_the_rows_it_should(
    resources: list[dict[str, Any]], test: dict[str, Any], run_view: RunView
) -> None:
    if test.get("expectError"):
        with pytest.raises((ViewError, psycopg.DataError)):
            run_view(test["view"], resources)
        return
    rows = run_view(test["view"], resources)
    assert _multiset(rows) == _multiset(test["expect"])
    for row in rows:
        assert list(row) == test.get("expectColumns", list(row))


def test_the_official_tests_are_all_there() -> None:
    if not FOLDER.is_dir():
        pytest.skip("shared/sql-on-fhir-tests is not beside this checkout")
    assert len(_cases()) == sum(len(json.loads(path.read_text())["tests"]) for path in Path(FOLDER).iterdir())
