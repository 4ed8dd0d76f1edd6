"""What the `bulk` table of a connection may say."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from config.bulk_options import BulkOptions
from config.settings import read_settings

TEXT = """
[connections.a]
vendor = "generic"
base_url = "https://x.example.org/r4"
bulk = {{ {bulk} }}
"""


def problems(tmp_path: Path, bulk: str) -> list[tuple[str, str]]:
    file = tmp_path / "chartferry.toml"
    file.write_text(TEXT.format(bulk=bulk))
    _, found = read_settings(file, {})
    return [(problem.path, problem.allowed) for problem in found]


@pytest.mark.parametrize(
    ("bulk", "path", "says"),
    [
        ('until = "2026-01-01"', "bulk.until", "with its zone"),
        ('type_filters = ["Observation"]', "bulk.type_filters.0", "must be one search"),
        ('type_filters = ["Observation?_sort=date"]', "bulk.type_filters.0", "_sort"),
        ('type_filters = ["Observatoin?code=1"]', "bulk.type_filters.0", "Observation"),
        ('elements = ["Patient.name.given"]', "bulk.elements.0", "root element"),
        ('include_associated_data = ["Everything"]', "bulk.include_associated_data.0", "LatestProvenanceResources"),
        ('organize_by = "Pateint"', "bulk.organize_by", "Patient"),
        ('organise_by = "Patient"', "bulk.organise_by", "did you mean organize_by?"),
    ],
)
def test_a_wrong_value_is_reported_with_its_place_and_the_allowed_values(
    tmp_path: Path, bulk: str, path: str, says: str
) -> None:
    (found,) = problems(tmp_path, bulk)
    assert found[0] == f"connections.a.{path}"
    assert says in found[1]


def test_everything_that_the_guide_allows_is_accepted(tmp_path: Path) -> None:
    bulk = (
        'until = "2026-01-01T00:00:00Z", type_filters = ["MedicationRequest?status=active,completed&intent=order"], '
        'elements = ["id", "Patient.birthDate"], include_associated_data = ["_own"], organize_by = "Patient"'
    )
    assert problems(tmp_path, bulk) == []


def test_exports_that_are_narrowed_differ_from_whole_ones_and_from_each_other() -> None:
    whole, filtered = BulkOptions(until="2026-01-01T00:00:00Z"), BulkOptions(type_filters=("Goal?x=1", "Goal?x=2"))
    assert whole.selection == ""
    assert filtered.selection == BulkOptions(type_filters=("Goal?x=2", "Goal?x=1")).selection
    assert filtered.selection != BulkOptions(elements=("id",)).selection


def test_a_table_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValidationError):
        BulkOptions(type_filters="Goal?x=1")  # type: ignore[arg-type]
