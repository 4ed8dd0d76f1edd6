"""view_runner_command is the program that runs one ViewDefinition with somebody else's runner, from NDJSON to CSV.

`view_runners` starts it in an environment that has them: RUNNER VIEW.json IN.ndjson OUT.csv. For `duckdb`, VIEW is a file of SQL
that somebody wrote by hand, over a table `resources` with the column `json`. It imports nothing of chartferry.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def duckdb(view: Path, lines: Path, table: Path) -> None:
    """Run SQL by hand with DuckDB."""
    _copied(importlib.import_module("duckdb").connect(), view.read_text(), lines, table)


def fhir4ds(view: Path, lines: Path, table: Path) -> None:
    """Run a view with fhir4ds-v2, which compiles it to DuckDB's SQL and adds functions in C++."""
    runner: Any = importlib.import_module("fhir4ds")
    query = runner.generate_view_sql(runner.parse_view_definition(view.read_text()))
    _copied(runner.create_connection(), query, lines, table)


def pysof(view: Path, lines: Path, table: Path) -> None:
    """Run a view with pysof, which evaluates FHIRPath in Rust, by 1,000 resources at a time."""
    runner: Any = importlib.import_module("pysof")
    runner.process_ndjson_to_file(json.loads(view.read_text()), str(lines), str(table), "csv_with_header")


def _copied(connection: Any, query: str, lines: Path, table: Path) -> None:
    connection.execute(
        "CREATE VIEW resources AS SELECT json, json AS resource, json ->> '$.id' AS id, json ->> '$.resourceType' AS resourceType"
        f" FROM read_ndjson_objects('{lines}')"
    )
    connection.execute(f"COPY ({query}) TO '{table}' (FORMAT csv, HEADER)")


RUNNERS: dict[str, Callable[[Path, Path, Path], None]] = {"duckdb": duckdb, "fhir4ds-v2": fhir4ds, "pysof": pysof}


def main() -> None:
    """Run one view."""
    runner, *paths = sys.argv[1:]
    RUNNERS[runner](*map(Path, paths))


if __name__ == "__main__":
    main()
