"""Real-looking data through every vendor's way: Synthea patients that stand beside the checkout, never in it."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.user_site import Key, Site, csv_rows, mock, reachable

PATIENTS = 10  # with 3,500 resources; all 40 cost each vendor's sync four times as much, and show nothing more
NAMES_ONE = re.compile(rb'"Patient/([^"/]+)"')

VIEW_OF = {
    "Patient": "patient",
    "Encounter": "encounter",
    "Condition": "condition",
    "MedicationRequest": "medication_request",
    "AllergyIntolerance": "allergy_intolerance",
    "Immunization": "immunization",
    "Procedure": "procedure",
    "DiagnosticReport": "diagnostic_report",
    "DocumentReference": "document_reference",
}


@pytest.fixture(scope="session")
def charts(synthea_dir: Path) -> list[bytes]:
    """The first patients, and every resource that names no other."""
    patients = gzip.decompress((synthea_dir / "Patient.ndjson.gz").read_bytes()).splitlines()[:PATIENTS]
    ours = {re.search(rb'"id": ?"([^"]+)"', line)[1] for line in patients}  # type: ignore[index]  # each has one
    others = [path for path in sorted(synthea_dir.glob("*.ndjson.gz")) if not path.name.startswith("Patient.")]
    lines = [line for path in others for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [*patients, *(line for line in lines if ours.issuperset(NAMES_ONE.findall(line)))]


def counted(resources: dict[Key, dict]) -> Counter[str]:
    """Rows a view, by a plain loop: one a resource, and one more for each component of an Observation."""
    rows: Counter[str] = Counter(dict.fromkeys((*VIEW_OF.values(), "observation"), 0))
    for (resource_type, _), resource in resources.items():
        if resource_type == "Observation":
            rows["observation"] += 1 + len(resource.get("component", []))
        elif resource_type in VIEW_OF:
            rows[VIEW_OF[resource_type]] += 1
    return rows


def test_everything_reachable_arrives_unchanged_and_every_table_has_the_expected_number_of_rows(
    site: Site, vendor: str, charts: list[bytes]
) -> None:
    with mock(vendor, data=charts) as served:
        site.connect(served)
        report = site.sync()
        expected = reachable(served)
    assert (report["status"], report["runs"][0]["quarantined"]) == ("complete", 0)
    exported = site.exported()
    assert exported.keys() == expected.keys()
    assert exported == expected
    assert site.run("export", "--out", "tables", "--format", "csv").code == 0
    tables = {
        path.name.removesuffix(".csv.gz"): len(csv_rows(path)) for path in (site.folder / "tables").glob("*.csv.gz")
    }
    wanted = counted(expected)
    assert {name: tables[name] for name in wanted} == wanted
