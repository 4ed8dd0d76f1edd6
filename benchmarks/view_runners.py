"""view_runners measures exports by view beside other runners of ViewDefinitions, and beside DuckDB with SQL by hand.

The views and data are those of `view_export`. Each is timed as a user would time it, from the start of the command to its end, in
turns. chartferry reads its store, in the order of ids, and notes in the audit whose data it read; the others read NDJSON. All
write CSV without compression, and must give as many rows. A runner that cannot run on this machine is named, and left out.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure
from benchmarks.processes import CommandFailedError, measure
from benchmarks.separate_environment import locked_version, separate_environment
from benchmarks.view_export import MANY_ROWS, SYNTHEA, VIEWS, copied_rows, loaded_rows
from benchmarks.view_runner_command import RUNNERS
from benchmarks.workplace import Workplace, tell

COMMAND = Path(__file__).with_name("view_runner_command.py")
BY_HAND = "duckdb"
_PRESSURES = ", ".join(
    f"{side} ->> '$.valueQuantity.value' AS {side}_value, {side} ->> '$.valueQuantity.unit' AS {side}_unit,"
    f" {side} ->> '$.valueQuantity.code' AS {side}_code"
    for side in ("systolic", "diastolic")
)
_IN_DUCKDB = {
    MANY_ROWS: """
        SELECT
            json ->> '$.id' AS key, split_part(json ->> '$.subject.reference', '/', 2) AS patient,
            split_part(json ->> '$.encounter.reference', '/', 2) AS encounter, json ->> '$.status' AS status,
            json ->> '$.category[0].coding[0].code' AS category, json ->> '$.code.coding[0].system' AS system,
            json ->> '$.code.coding[0].code' AS code, json ->> '$.effectiveDateTime' AS effective_at,
            json ->> '$.valueQuantity.value' AS value, json ->> '$.valueQuantity.unit' AS unit
        FROM resources
    """,
    "blood pressures": f"""
        SELECT key, patient, effective_at, {_PRESSURES}
        FROM (
            SELECT
                key, patient, effective_at,
                list_filter(parts, lambda part: list_contains(part ->> '$.code.coding[*].code', '8480-6'))[1] AS systolic,
                list_filter(parts, lambda part: list_contains(part ->> '$.code.coding[*].code', '8462-4'))[1] AS diastolic
            FROM (
                SELECT
                    json ->> '$.id' AS key, split_part(json ->> '$.subject.reference', '/', 2) AS patient,
                    json ->> '$.effectiveDateTime' AS effective_at, CAST(json -> '$.component' AS JSON[]) AS parts
                FROM resources
                WHERE list_contains(json ->> '$.code.coding[*].code', '85354-9')
            )
        )
    """,
    "lines of explanations of benefit": """
        SELECT
            key, patient, status, created, item ->> '$.sequence' AS sequence,
            item ->> '$.productOrService.coding[0].system' AS system, item ->> '$.productOrService.coding[0].code' AS code,
            item ->> '$.productOrService.text' AS text, item ->> '$.servicedPeriod.start' AS start,
            item ->> '$.net.value' AS net, item ->> '$.net.currency' AS currency,
            split_part(item ->> '$.encounter[0].reference', '/', 2) AS encounter
        FROM (
            SELECT
                json ->> '$.id' AS key, split_part(json ->> '$.patient.reference', '/', 2) AS patient,
                json ->> '$.status' AS status, json ->> '$.created' AS created, unnest(CAST(json -> '$.item' AS JSON[])) AS item
            FROM resources
        )
    """,
}


def run(place: Workplace) -> list[Figure]:
    """Measure each view with chartferry and with each runner in turns; the figures are medians."""
    if not SYNTHEA.is_dir():
        tell("no Synthea charts are beside this checkout: other runners of views are not measured")
        return []
    python = str(separate_environment("view-runners") / "bin" / "python")
    _write_lines(place.folder)
    with loaded_rows(place) as (_, config):
        return [figure for name in VIEWS for figure in _measured(place, config, python, name)]


def _measured(place: Workplace, config: Path, python: str, name: str) -> Iterator[Figure]:
    view, by_hand = place.folder / "runner-view.json", place.folder / "runner-view.sql"
    view.write_text(json.dumps(_accepted_by_all(name)))
    by_hand.write_text(_IN_DUCKDB[name])
    table, out = place.folder / "theirs.csv", place.folder / "ours"
    lines = place.folder / f"{VIEWS[name]['resource']}.ndjson"
    ours: list[float] = []
    counts: set[int] = set()
    theirs: dict[str, list[float]] = {runner: [] for runner in RUNNERS}
    for turn in range(place.runs):
        tell(f"{name} beside other runners, turn {turn + 1} of {place.runs}")
        for runner in [*theirs]:
            given = by_hand if runner == BY_HAND else view
            try:
                done = measure([python, str(COMMAND), runner, str(given), str(lines), str(table)], place.folder)
            except CommandFailedError as error:
                tell(f"{runner} cannot run here: {str(error).splitlines()[-1]}")
                del theirs[runner]
                continue
            theirs[runner].append(done.seconds)
            counts.add(_rows_of(table))
        export = ("export", "--out", str(out), "--format", "csv", "--compress", "none", "--view", str(view), "--json")
        done = place.chartferry(config, *export)
        counts.add(done.json["rows"])
        ours.append(done.seconds)
        shutil.rmtree(out)
    [rows] = counts
    for runner, seconds in theirs.items():
        yield Figure(
            name=f"{name}, start to exit, beside {_named(runner)}", value=rows / median(ours), unit="rows/s",
            limit=rows / median(seconds), limit_name=f"{runner}, NDJSON to CSV", samples=tuple(ours),
        )  # fmt: skip


def _rows_of(table: Path) -> int:
    with table.open(newline="") as file:
        return sum(1 for _ in csv.reader(file)) - 1


def _named(runner: str) -> str:
    version = locked_version("view-runners", runner)
    return f"SQL by hand in DuckDB {version}" if runner == BY_HAND else f"{runner} {version}"


def _accepted_by_all(name: str) -> dict[str, Any]:
    """The view with its keys as strings: fhir4ds-v2 gives `Patient/1` as key, which is no id."""
    view = {"resourceType": "https://sql-on-fhir.org/ig/StructureDefinition/ViewDefinition", "status": "active"}
    view |= {"name": "measured", **VIEWS[name]}
    accepted: dict[str, Any] = json.loads(json.dumps(view).replace('"type": "id"', '"type": "string"'))
    return accepted


def _write_lines(folder: Path) -> None:
    files = {kind: (folder / f"{kind}.ndjson").open("w") for kind in {view["resource"] for view in VIEWS.values()}}
    for row in copied_rows():
        files[row[3]].write(row[6] + "\n")
    for file in files.values():
        file.close()
