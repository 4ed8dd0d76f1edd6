"""Real-looking data through every vendor's way: 40 Synthea patients that stand beside the checkout, never in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.user_site import Key, Site, csv_rows, mock, reachable

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


def counted(resources: dict[Key, dict]) -> Counter[str]:
    """Rows a view, by a plain loop: one a resource, and one more for each component of an Observation."""
    rows: Counter[str] = Counter(dict.fromkeys((*VIEW_OF.values(), "observation"), 0))
    for (resource_type, _), resource in resources.items():
        if resource_type == "Observation":
            rows["observation"] += 1 + len(resource.get("component", []))
        elif resource_type in VIEW_OF:
            rows[VIEW_OF[resource_type]] += 1
    return rows


def test_everything_reachable_arrives_as_written_and_every_table_has_the_rows_that_a_loop_counts(
    site: Site, vendor: str, synthea_dir: Path
) -> None:
    with mock(vendor, data=synthea_dir) as served:
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
