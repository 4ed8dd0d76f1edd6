"""The units of a crawl, and since when each is requested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.capability import Capability
from connectors.fhir.search.since import FULL, SinceByPatient
from connectors.fhir.search.units import UnitPlan, directory_units
from connectors.fhir.vendors import PROFILES, profile_for
from snapshots.unit import Unit

T1, T2 = "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"
CERNER, EPIC, GENERIC = PROFILES["cerner"], PROFILES["epic"], PROFILES["generic"]
DECLARED = Capability(search_params={"Condition": frozenset({"patient", "_lastUpdated"})})


def charts(
    patients: list[str], types: list[str], profile: Any, since_by_patient: SinceByPatient = FULL, **how: Any
) -> list[Unit]:
    return list(UnitPlan(types, profile, how.pop("capability", Capability()), since_by_patient).charts(patients, **how))


def since_by_patient(
    marks: Mapping[str, str],
    lags: Mapping[tuple[str, str], str | None] | None = None,
    *covered: str,
    all_: bool = False,
) -> SinceByPatient:
    return SinceByPatient(marks=marks, covered=None if all_ else frozenset(covered), lags=lags or {})


def test_epic_observations_are_requested_category_by_category() -> None:
    assert [u.detail["path"] for u in charts(["p1"], ["Observation"], EPIC)][:2] == [
        "Observation?patient=p1&category=social-history",
        "Observation?patient=p1&category=vital-signs",
    ]


def test_the_splits_of_a_type_are_spaced_so_that_one_is_answered_before_the_next_is_sent() -> None:
    kinds = [u.resource_type for u in charts(["p1"], ["Observation", "Goal", "Condition"], EPIC)]
    assert kinds[:5] == ["Observation", "Goal", "Condition", "Observation", "Condition"]


patients = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=5)
types = st.lists(st.sampled_from(["Patient", "Observation", "Condition", "Goal"]), unique=True, max_size=4)


@given(patients, types, st.sampled_from(sorted(PROFILES)))
def test_every_patient_and_type_has_units_with_unique_keys_and_no_id_in_a_template(
    ids: list, of: list, vendor: str
) -> None:
    plan = UnitPlan(of, PROFILES[vendor], Capability(), FULL)
    named = [f"id-{i}" for i in ids]
    units = [*plan.patients(named), *plan.charts(named)]
    assert len({unit.key for unit in units}) == len(units)
    batched = {(one, "Patient") for u in units if u.kind == "batch" for one in u.ids}
    single = {(u.patient_id, u.resource_type) for u in units if u.kind != "batch"}
    assert batched | single == {(i, t) for i in named for t in of}
    assert not any(u.patient_id in u.template for u in units if u.patient_id)


def test_patients_are_requested_by_fifties_where_a_vendor_accepts_lists_and_one_by_one_elsewhere() -> None:
    ids = [f"p{n}" for n in range(120)]

    def sizes(vendor: str, of: list[str]) -> list[int]:
        plan = UnitPlan(of, PROFILES[vendor], Capability(), FULL, check_patients=True)
        return [len(u.ids or "1") for u in plan.patients(ids)]

    assert sizes("cerner", ["Patient"]) == [50, 50, 20]
    assert sizes("epic", ["Patient"]) == sizes("va", ["Patient"]) == sizes("cerner", ["Goal"]) == [1] * 120


def test_ids_and_instants_leave_percent_encoded() -> None:
    marks = since_by_patient({"Condition": "2024-01-01T00:00:00+02:00"}, all_=True)
    (unit,) = charts(["a b/c"], ["Condition"], GENERIC, marks, capability=DECLARED)
    assert unit.detail["path"] == "Condition?patient=a%20b%2Fc&_lastUpdated=ge2024-01-01T00:00:00%2B02:00&_count=200"


def test_each_vendor_is_searched_for_changes_in_its_own_way_or_not_at_all() -> None:
    marks = since_by_patient(dict.fromkeys(("Observation", "Condition", "Goal", "Immunization"), T1), None, "p")

    def search_of(profile: Any, kind: str) -> tuple[str, bool]:
        unit = charts(["p"], [kind], profile, marks)[0]
        return unit.detail["path"].partition("p")[2], unit.incremental

    assert "issued=ge2024-01-01T00:00:00Z" in search_of(EPIC, "Observation")[0]
    assert "recorded-date=ge2024-01-01T00:00:00Z" in search_of(EPIC, "Condition")[0]
    assert search_of(EPIC, "Immunization")[1] is False
    assert "_lastUpdated=ge2024" in search_of(CERNER, "Immunization")[0]
    assert search_of(CERNER, "Goal")[1] is False
    assert search_of(profile_for("epic", {"changes": {"since_mode": "updated"}}), "Observation")[1] is False
    assert search_of(profile_for("cerner", {"changes": {"since_mode": "full"}}), "Observation")[1] is False


def test_new_patients_are_fetched_whole_and_lagging_ones_from_where_they_were() -> None:
    marks = since_by_patient(
        {"Condition": T2}, {("Condition", "late"): T1, ("Condition", "lost"): None}, "ok", "late", "lost"
    )
    since = {u.patient_id: u.since for u in charts(["ok", "late", "lost", "new"], ["Condition"], CERNER, marks)}
    assert since == {"ok": T2, "late": T1, "lost": None, "new": None}
    assert marks.behind(["ok", "late", "new", "lost"]) == ("late", "lost", "ok", "new")
    assert marks.behind(["ok", "late", "new", "lost"], 3) == ("lost", "late", "ok", "new")


def test_a_manual_instant_applies_to_new_patients_but_not_to_those_who_lag_behind_it() -> None:
    marks = since_by_patient({"Condition": T2}, {("Condition", "late"): T1}, all_=True)
    since = {u.patient_id: u.since for u in charts(["new", "late"], ["Condition"], CERNER, marks)}
    assert since == {"new": T2, "late": T1}


def test_a_chart_requested_again_in_full_has_separate_keys() -> None:
    marks = since_by_patient({"Condition": T2}, None, "p")
    (first,), (second,) = (
        charts(["p"], ["Condition"], CERNER, marks),
        charts(["p"], ["Condition"], CERNER, marks, again=":merged", in_full=True),
    )
    assert first.key != second.key
    assert (first.incremental, second.incremental) == (True, False)


def test_a_directory_is_one_unit_per_type() -> None:
    (unit,) = directory_units(["Organization"], GENERIC, Capability(), {})
    assert (unit.patient_id, unit.detail["path"]) == (None, "Organization?_count=200")
