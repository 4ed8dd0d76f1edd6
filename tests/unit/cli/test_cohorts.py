"""Which patients a command is for, and under which name their roster is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cli.patient_file import file_name, read_patients
from cli.run_options import RunOptions
from cli.wiring import _cohort
from config.connections import Connection
from connectors.fhir.cohort.cohort_file import parse_cohort
from connectors.fhir.run import CohortSource
from connectors.fhir.sync import SyncRequest, run_scope
from connectors.fhir.vendors import PROFILES


def connection(cohort: object = None) -> Connection:
    return Connection.model_validate(
        {"name": "site", "vendor": "epic", "base_url": "https://ehr.example.org", "cohort": cohort}
    )


def scope_of(cohort: CohortSource | None, mode: str = "crawl", group: str | None = None):
    request = SyncRequest(
        connection="site",
        base_url="https://x",
        profile=PROFILES["epic"],
        cohort=cohort,
        mode=mode,  # type: ignore[arg-type]
        group=group,
    )
    return run_scope(request)


def test_values_know_their_line() -> None:
    text = '\ufeff# cohort of May\n\nmrn,name\n  4711 ,x\n"4,7",y\n4711,again\nPatient/\nPatient/p9\n'
    assert parse_cohort(text) == {"4711": 4, "4,7": 5, "p9": 8}


def test_a_changed_cohort_file_keeps_its_roster_and_does_not_resume_a_crashed_run(
    tmp_path: Path,
) -> None:
    file = tmp_path / "c.csv"
    found = []
    for text in ("p1\np2", "p2\np3"):
        file.write_text(text)
        found.append(scope_of(_cohort(connection(f"file:{file}"), RunOptions())))
    assert found[0].selection == found[1].selection == "cohort"
    assert found[0].cohort != found[1].cohort


def test_a_cohort_file_is_identified_by_its_path_and_stdin_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "a.csv", tmp_path / "b.csv"
    assert file_name(str(one)) == file_name(f"{tmp_path}/./a.csv") != file_name(str(two))
    bare = [scope_of(CohortSource(values=values)).selection for values in (("a", "b"), ("b", "a"), ("a",))]
    assert bare[0] == bare[1] != bare[2]


def test_an_export_of_named_patients_is_identified_by_its_list() -> None:
    named = CohortSource(values=("a",), name="cohort")
    assert scope_of(named, "bulk").selection.startswith("patients:")
    assert scope_of(named, "crawl").selection == "cohort"


def test_the_stored_patients_can_be_chosen_as_cohort_by_configuration_or_flag(tmp_path: Path) -> None:
    assert connection("store").files == {}
    for cohort in (
        _cohort(connection("store"), RunOptions()),
        _cohort(connection(f"file:{tmp_path}/none.csv"), RunOptions(stored_patients=True)),
    ):
        assert cohort == CohortSource(stored=True)
        assert scope_of(cohort).selection == "store"
    assert _cohort(connection("store"), RunOptions(group="g")) is None
    with pytest.raises(ValidationError, match='"store"'):
        connection("cohort.csv")


def test_patients_read_from_a_file_carry_their_lines_to_the_request(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text("id\n\np1\n")
    found = _cohort(connection(), RunOptions(patients=read_patients(str(file)), patients_name="file:x"))
    assert found == CohortSource(values=("p1",), lines=(3,), name="file:x")
