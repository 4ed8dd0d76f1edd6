"""The rules of a crawl: dates and watermarks, what is not asked, merges, how a search ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.capability import Capability
from connectors.fhir.outcomes import Issue
from connectors.fhir.patients.merges import aliases_in, with_survivors
from connectors.fhir.records import record_from
from connectors.fhir.search.deferrals import Deferrals
from connectors.fhir.search.inspection import Inspection
from connectors.fhir.search.since import SinceByPatient, date_of, newest, since_parameter, window_parameter
from connectors.fhir.search.verdicts import SearchTally, ended
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.unit_details import SearchDetail
from connectors.fhir.vendors import PROFILES, profile_for
from snapshots.instants import moment
from snapshots.patient import Alias, Deferral
from snapshots.record import Record
from snapshots.unit import Ending, Unit, UnitKind, UnitState
from tests.profiles import grouped

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
EPIC, CERNER, GENERIC = PROFILES["epic"], PROFILES["cerner"], PROFILES["generic"]
T1, T2 = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def record(kind: str = "Observation", identity: str = "o1", **rest: object) -> Record:
    return record_from(orjson.dumps({"resourceType": kind, "id": identity, **rest}), FhirBase("https://x"))


def unit(kind: str = "Observation", patient: str | None = "p1", **changes: Any) -> Unit:
    detail = SearchDetail(path="x").packed
    return Unit(
        key="k",
        kind=UnitKind.SEARCH,
        resource_type=kind,
        patient_id=patient,
        template="GET /x",
        detail=detail,
        **changes,
    )


# -- since


def test_types_with_one_sided_dates_can_be_searched_for_changes_but_not_in_windows() -> None:
    assert since_parameter("Immunization", CERNER, Capability()) is not None
    assert window_parameter("Immunization", CERNER, Capability()) is None
    assert window_parameter("Observation", CERNER, Capability()) == ("_lastUpdated", "updated")
    assert window_parameter("Observation", EPIC, Capability()) == ("issued", "created")
    assert window_parameter("Goal", EPIC, Capability()) is None


@pytest.mark.parametrize(
    ("kind", "parameter", "element"),
    [
        ("AllergyIntolerance", "date", "recordedDate"),
        ("Condition", "recorded-date", "recordedDate"),
        ("MedicationRequest", "authoredon", "authoredOn"),
        ("ServiceRequest", "authored", "authoredOn"),
        ("Observation", "issued", "issued"),
        ("DocumentReference", "date", "date"),
    ],
)
def test_the_date_behind_a_search_parameter_is_read_from_its_element(kind: str, parameter: str, element: str) -> None:
    assert date_of(orjson.dumps({"resourceType": kind, element: T1}), kind, parameter) == T1
    assert date_of(b'{"resourceType":"X"}', kind, parameter) is None
    assert date_of(b"not json", kind, parameter) is None


days = st.integers(0, 2_000).map(lambda day: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=day, seconds=7 * day))
instants = days.map(lambda one: one.strftime("%Y-%m-%dT%H:%M:%SZ"))


@given(instants, st.none() | instants)
def test_a_patient_who_lags_is_requested_from_no_later_than_the_others(mark: str, lag: str | None) -> None:
    since_by_patient = SinceByPatient(
        marks={"Observation": mark}, covered={"p1", "p2"}, lags={("Observation", "p1"): lag}
    )
    since = since_by_patient.since("Observation", "p1")
    assert since_by_patient.since("Observation", "p2") == mark
    assert since is None if lag is None else since == min(mark, lag)


@given(st.lists(instants))
def test_the_newest_date_is_the_latest_valid_one_that_is_not_in_the_future(dates: list[str]) -> None:
    found = None
    for date in [*dates, "2099-01-01", "nonsense", None]:
        found = newest(found, date, NOW)
    assert found == (moment(max(dates)) if dates else None)


# -- not asked


def deferrals(*known: Deferral, heed: bool = True, **profile: object) -> Deferrals:
    return Deferrals(known, profile_for("epic", grouped(profile)), lambda: NOW, heed_restricted=heed)


def words(found: Deferrals, resource_type: str, patient: str) -> str:
    hindrance = found.hindrance(resource_type, patient)
    return hindrance.reason if hindrance else ""


def test_a_pause_lasts_until_the_hospitals_next_midnight() -> None:
    found = deferrals(limits__time_zone="America/Chicago")
    words = found.pause("DocumentReference")
    assert found.learned[0].until == datetime(2026, 5, 2, 5, tzinfo=UTC)
    assert "2026-05-02 00:00 America/Chicago" in words
    assert found.hindrance("DocumentReference", "p9") == (Ending.PAUSED, words)
    assert found.hindrance("Observation", "p9") is None


def test_a_restriction_holds_until_its_time_unless_a_person_requests_the_type() -> None:
    soon = Deferral("Observation", "p1", "restricted", NOW + timedelta(days=1))
    over = Deferral("Observation", "p2", "restricted", NOW - timedelta(days=1))
    paused = Deferral("DocumentReference", None, "paused", NOW + timedelta(hours=1))
    found = deferrals(soon, over, paused)
    assert "requested again after 2026-05-02" in words(found, "Observation", "p1")
    assert found.hindrance("Observation", "p2") is None
    by_hand = deferrals(soon, paused, heed=False)
    assert by_hand.hindrance("Observation", "p1") is None
    assert by_hand.hindrance("DocumentReference", "p1") is not None


def test_a_bare_403_holds_for_the_run_and_a_code_for_longer() -> None:
    found = deferrals()
    found.refuse("Goal", "p1", "forbidden", by_code=False, every_type=False)
    found.refuse("Goal", "p2", "break-the-glass", by_code=True, every_type=False)
    found.refuse("Goal", "p3", "break-the-glass", by_code=True, every_type=True)
    assert found.hindrance("Goal", "p1") == (Ending.RESTRICTED, "forbidden")
    assert [one[:2] for one in found.learned] == [("Goal", "p2"), ("*", "p3")]
    assert found.hindrance("Condition", "p3") == (Ending.RESTRICTED, "break-the-glass")


def test_a_type_refused_for_three_patients_is_closed_unless_one_patient_was_allowed() -> None:
    found = deferrals()
    for patient in ("p1", "p2", "p3"):
        assert found.hindrance("Goal", patient) is None
        found.refuse("Goal", patient, "restricted", by_code=False, every_type=False)
    requested = [number for number in range(1, 20) if found.hindrance("Goal", f"further{number}") is None]
    assert requested == [1, 2, 4, 8, 16], "three are not everybody"
    assert "refuses this type for every patient" in words(found, "Goal", "p4")
    found.let_through("Goal")
    assert found.hindrance("Goal", "p4") is None


# -- merges


def link(kind: str, reference: object) -> dict:
    return {"type": kind, "other": {"reference": reference}}


def test_patient_links_show_merges_and_malformed_links_are_ignored() -> None:
    links = [link("replaced-by", "https://x/Patient/new/_history/1"), link("replaces", "Patient/old"), link("seealso", "Patient/z"),  # noqa: E501
             link("replaces", None), "odd", link("replaces", "Patient/me"), link("replaces", "https://y/Patient/theirs"),
             link("replaces", "RelatedPerson/r")]  # fmt: skip
    found = aliases_in([record("Patient", "me", link=links), record(), record("Patient", "n", link="odd")])
    assert found == [Alias("me", "new", gone=False), Alias("old", "me", gone=False)]


def test_chains_of_survivors_are_followed_and_circles_end() -> None:
    aliases = [Alias("a", "b", gone=True), Alias("b", "c", gone=True), Alias("c", "a", gone=False)]
    assert with_survivors(["a", "x"], aliases) == (("a", "x", "b", "c"), frozenset({"a", "b"}))


# -- how a search ends


@pytest.mark.parametrize("code", ["4119", "59133", "59109", "59204", "59205", "59100", "59101", "4122", "4134"])
def test_an_issue_that_puts_the_listing_in_doubt_settles_it_without_proving_deletions(code: str) -> None:
    result = ended(unit(), SearchTally(issues=[Issue("information", "processing", (code,))], count=3), EPIC)
    assert (result.state, result.complete_listing) == (UnitState.SETTLED, False)
    assert code in (result.reason or "")


@pytest.mark.parametrize("code", ["4101", "4117"])
def test_an_issue_unrelated_to_the_listing_leaves_it_complete(code: str) -> None:
    assert ended(unit(), SearchTally(issues=[Issue("warning", "processing", (code,))]), EPIC).complete_listing


@pytest.mark.parametrize(
    "tally",
    [
        SearchTally(redacted=1), SearchTally(astray=1), SearchTally(unfiltered=True), SearchTally(merged=True),
        SearchTally(unreadable=1), SearchTally(lost=1), SearchTally(dateless=True),
        SearchTally(issues=[Issue("fatal", "forbidden", ("4130",))]),
        SearchTally(issues=[Issue("fatal", "processing", ("unheard-of",))]),
    ],
)  # fmt: skip
def test_nothing_odd_about_a_listing_lets_it_prove_deletions(tally: SearchTally) -> None:
    assert not ended(unit(), tally, EPIC).complete_listing


def test_an_incremental_listing_proves_no_deletion() -> None:
    assert not ended(unit(incremental=True), SearchTally(), EPIC).complete_listing


def looked(records: list[Record], wanted: Unit) -> SearchTally:
    tally = SearchTally()
    Inspection.of(wanted, CERNER, Capability(), None).look(records, tally)
    return tally


def test_unrequested_rows_are_counted() -> None:
    mine, other = {"reference": "Patient/p1"}, {"reference": "Patient/p2"}
    assert looked([record(subject=mine), record(), record("Patient", "p2")], unit()).astray == 0
    assert looked([record(subject=other)], unit()).astray == 1
    assert looked([record(subject=other, performer=[mine])], unit()).astray == 0
    old, fresh = {"lastUpdated": T1}, {"lastUpdated": T2}
    assert looked([record(meta=old), record(meta=fresh)], unit(since=T2)).astray == 1
    lab = [{"coding": [{"code": "laboratory"}]}]
    assert looked([record(category=lab)], unit(split="category=http://x|laboratory,exam")).astray == 0
    assert looked([record(category=lab)], unit(split="category=exam")).astray == 1


def test_redacted_placeholders_are_recognised() -> None:
    assert looked([record(meta={"security": [{"code": "REDACTED"}]}), record()], unit()).redacted == 1
