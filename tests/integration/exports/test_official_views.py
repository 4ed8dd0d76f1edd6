"""The official SQL on FHIR tests, as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exports.errors import ViewError
from tests.conformance.__main__ import mistake
from tests.conftest import SHARED
from tests.integration.exports.conftest import RunView

FOLDER = SHARED / "sql-on-fhir-tests"
# every file of the suite (FHIR/sql-on-fhir.js, 144 tests); those that are not beside this checkout are skipped, by name
FILES = (
    "basic", "collection", "combinations", "constant", "constant_types", "fhirpath", "fhirpath_numbers", "fn_boundary",
    "fn_empty", "fn_extension", "fn_first", "fn_join", "fn_oftype", "fn_reference_keys", "foreach", "logic", "repeat",
    "row_index", "union", "validate", "view_resource", "where",
)  # fmt: skip


def _cases() -> list[Any]:
    paths = {path.stem: path for path in FOLDER.glob("*.json")}
    found = [
        pytest.param(document["resources"], test, id=f"{stem}: {test['title']}")
        for stem, path in sorted(paths.items())
        for document in [json.loads(path.read_text())]
        for test in document["tests"]
    ]
    absent = [
        pytest.param(
            [], {}, id=stem, marks=pytest.mark.skip(f"shared/sql-on-fhir-tests/{stem}.json is not beside this checkout")
        )
        for stem in FILES
        if stem not in paths
    ]
    return [*found, *absent]


@pytest.mark.parametrize(("resources", "test"), _cases())
def test_an_official_view_gives_the_expected_rows(
    resources: list[dict[str, Any]], test: dict[str, Any], run_view: RunView
) -> None:
    if test.get("expectError"):
        with pytest.raises((ViewError, psycopg.DataError)):
            run_view(test["view"], resources)
        return
    assert mistake(test, run_view(test["view"], resources)) is None


def test_all_official_tests_are_present() -> None:
    if not FOLDER.is_dir():
        pytest.skip("shared/sql-on-fhir-tests is not beside this checkout")
    run = [case for case in _cases() if not case.marks]
    assert len(run) == sum(len(json.loads(path.read_text())["tests"]) for path in Path(FOLDER).glob("*.json"))
