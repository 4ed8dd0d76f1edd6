"""The conformance command: `python -m tests.conformance [FOLDER] [--report FILE]` runs the official tests of a folder.

The report has the form that sql-on-fhir.org collects from implementations: by file, each test's name and whether it passed. Exit
codes: 0 all passed, 1 one did not, 2 there are no tests.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from exports.compiler import compile_view
from exports.errors import ViewError
from snapshots.embedded import embedded_postgres
from snapshots.sql import load
from tests.conftest import SHARED

Json = dict[str, Any]


def main() -> int:
    """Run the tests, write the report, and say how many passed."""
    parser = argparse.ArgumentParser(prog="./run conformance", description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED / "sql-on-fhir-tests", help="the tests' files")
    parser.add_argument("--report", type=Path, default=Path("test_report.json"), help="default: test_report.json")
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.glob("*.json"))
    if not paths:
        sys.stderr.write("there are no tests in that folder; name the one of sql-on-fhir.js' tests\n")
        return 2
    with (
        tempfile.TemporaryDirectory(prefix="cf-") as folder,
        embedded_postgres(Path(folder)) as url,
        psycopg.connect(url, autocommit=True) as postgres,
    ):
        postgres.execute(load("sessions")["pin"])
        report = {path.name: {"tests": _of_file(path, postgres)} for path in paths}
    arguments.report.write_text(json.dumps(report, indent=2) + "\n")
    results = [test["result"]["passed"] for file in report.values() for test in file["tests"]]
    sys.stdout.write(f"{sum(results)} of {len(results)} passed; the report is in {arguments.report}\n")
    for name, file in report.items():
        for test in file["tests"]:
            if not test["result"]["passed"]:
                sys.stdout.write(f"  {name}: {test['name']}: {test['result']['error']}\n")
    return 0 if all(results) else 1


def _of_file(path: Path, postgres: psycopg.Connection[Any]) -> list[Json]:
    document = json.loads(path.read_text(encoding="utf-8"))
    return [
        {"name": test["title"], "result": _result(test, document["resources"], postgres)} for test in document["tests"]
    ]


def _result(test: Json, resources: list[Json], postgres: psycopg.Connection[Any]) -> Json:
    try:
        rows = rows_of(test["view"], resources, postgres)
    except (ViewError, psycopg.Error) as error:
        expected = test.get("expectError", False) and isinstance(error, (ViewError, psycopg.DataError))
        return {"passed": True} if expected else {"passed": False, "error": str(error).partition("\n")[0]}
    wrong = mistake(test, rows)
    return {"passed": False, "error": wrong} if wrong else {"passed": True}


def rows_of(view: Json, resources: list[Json], postgres: psycopg.Connection[Any]) -> list[Json]:
    """The rows of a view on resources, as JSON objects in the order of its columns."""
    source = sql.SQL(
        "(SELECT 'site'::text AS connection, body ->> 'id' AS id, body FROM jsonb_array_elements({}::jsonb) AS t(body))"
    ).format(sql.Literal(json.dumps(resources)))
    query = sql.SQL('SELECT row_to_json("#row")::text FROM ({}) AS "#row"').format(compile_view(view, source).query)
    return [json.loads(text) for (text,) in postgres.execute(query)]


def mistake(test: Json, rows: list[Json]) -> str | None:
    """What is wrong about the rows of a test; None where nothing is."""
    if test.get("expectError"):
        return "an error was expected"
    if "expectCount" in test and len(rows) != test["expectCount"]:
        return f"{len(rows)} rows, expected {test['expectCount']}"
    if "expect" in test and _multiset(rows) != _multiset(test["expect"]):
        return "the rows are not those expected"
    if rows and list(rows[0]) != test.get("expectColumns", list(rows[0])):
        return "the columns are not those expected, in their order"
    return None


def _multiset(rows: list[Json]) -> Counter[str]:
    """Rows by what is in them: 5 is 5.0."""
    return Counter(json.dumps(json.loads(json.dumps(row), parse_int=float), sort_keys=True) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
