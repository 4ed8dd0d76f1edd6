"""Faults that belong to a patient, a record or a vendor's rule (docs/faults.md). Data; `test_fault_matrix` runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mocks.serving import Served
from tests.acceptance.faulted import FAILED, PARTIAL, Case, Night, charts, charts_only, rule
from tests.user_site import Key, reachable

CRAWL = ("--mode", "crawl")
OF_A_COHORT = {"group": None, "cohort": "file:cohort.csv"}
FORMER = "eFormerPatientId"


def set_knobs(served: Served, **knobs: Any) -> None:
    """The EHR changes its mind."""
    served.ehr.config = replace(served.ehr.config, **knobs)


def knobs(**changed: Any) -> Callable[[Served], None]:
    return lambda served: set_knobs(served, **changed)


def one_kickoff_or_none(night: Night) -> None:
    assert night.requests("kickoff") <= 1


def restrict_the_first_patient(code: str) -> Any:
    def strike(served: Served) -> None:
        action = {"status": 403, "body": "operation-outcome", "issue_code": code}
        served.faults.add(rule("search", f"patient={served.patient_ids[0]}", action=action))

    return strike


def not_hammered(night: Night) -> None:
    """At most one question a type of what is restricted, and no retry."""
    refused = [entry for entry in night.served.log if entry.fault]
    assert len(refused) == len({entry.target for entry in refused})


def only_the_first(served: Served) -> dict[Key, Any]:
    first = served.patient_ids[0]
    dataset = served.dataset
    mine = {(kind, row.id) for kind in dataset.types for row in dataset.of_type(kind) if row.patient == first}
    return {key: row for key, row in charts_only(served).items() if key in mine or key == ("Patient", first)}


def merge_former(served: Served) -> None:
    set_knobs(served, merged={FORMER: served.patient_ids[0]})


def delete_a_patient(served: Served) -> None:
    """One without whom every type still has something: a type that is no longer declared is another matter."""
    gone = served.patient_ids[1]
    dataset = served.dataset
    for kind in dataset.types:
        for row in [row for row in dataset.of_type(kind) if row.patient == gone or row.id == gone]:
            dataset.delete(kind, row.id)


def hide_some(served: Served) -> None:
    """The EHR shows fewer, and says that there may be more."""
    set_knobs(served, outcome_codes={"Immunization": "4119"})
    for row in served.dataset.of_type("Immunization")[:3]:
        served.dataset.delete("Immunization", row.id)


def show_all(served: Served) -> None:
    set_knobs(served, outcome_codes={})
    for line in charts(2):
        if b'"resourceType":"Immunization"' in line:
            served.dataset.replace(line)


def is_immunization(resource: Any) -> bool:
    return bool(resource["resourceType"] == "Immunization")


def nothing_was_tombstoned(night: Night) -> None:
    assert night.report["runs"][0]["deleted"] == 0


def poison_first(served: Served) -> None:
    set_knobs(served, poison_patient=served.patient_ids[0])


def is_redacted(resource: Any) -> bool:
    return "REDACTED" in str(resource.get("meta", ""))


def patients_only(served: Served) -> dict[Key, Any]:
    return {key: row for key, row in reachable(served).items() if key[0] == "Patient"}


CASES = (
    Case(
        number="F8",
        what="the-group-was-exported-too-recently",
        vendor="epic",
        settings={"group": "its own", "cohort": None},
        words=("--mode", "bulk"),
        profile={"kickoff.window_s": 0},
        good_night_before=True,
        prepare=knobs(kickoff_window_s=86_400),
        code=FAILED,
        says="recently|window|once",
        shown=one_kickoff_or_none,
        ends=knobs(kickoff_window_s=0),
    ),
    Case(
        number="F13",
        what="more-may-exist-proves-nothing-gone",
        vendor="epic",
        good_night_before=True,
        prepare=hide_some,
        tolerates=is_immunization,
        says="4119",
        shown=nothing_was_tombstoned,
        ends=show_all,
    ),
    Case(
        number="F16",
        what="the-patient-of-a-search-is-ignored",
        words=CRAWL,
        settings=OF_A_COHORT,
        patients=1,
        rules=(rule("search", "/(Condition|Procedure|Immunization)", action={"ignore": ["patient", "subject"]}),),
        expected=only_the_first,
        says="the server ignored a filter and sent records that were not requested; they are kept",
    ),
    Case(
        number="F17",
        what="a-patient-whose-record-poisons-its-page",
        vendor="cerner",
        words=CRAWL,
        settings=OF_A_COHORT,
        expected=charts_only,
        prepare=poison_first,
        code=PARTIAL,
        holes=frozenset({"Observation"}),
        ends=knobs(poison_patient=None),
    ),
    Case(
        number="F37",
        what="redacted-placeholders",
        vendor="allscripts",
        words=CRAWL,
        settings=OF_A_COHORT,
        expected=charts_only,
        prepare=knobs(redact_every=3),
        tolerates=is_redacted,
        says="(?i)redacted",
        ends=knobs(redact_every=0),
    ),
    Case(
        number="F38",
        what="413-of-a-large-answer",
        vendor="allscripts",
        words=CRAWL,
        settings=OF_A_COHORT,
        expected=charts_only,
        prepare=knobs(max_rows=60),
        ends=knobs(max_rows=100_000),
    ),
    Case(
        number="F42",
        what="patient-alone-is-refused-in-bulk",
        vendor="epic",
        settings={"group": "its own", "cohort": None},
        words=("--mode", "bulk", "--types", "Patient"),
        expected=patients_only,
    ),
    Case(
        number="F45",
        what="a-merged-patient",
        vendor="epic",
        settings={"cohort": "file:cohort.csv"},
        extra_patients=(FORMER,),
        prepare=merge_former,
    ),
    Case(
        number="F45",
        what="a-deleted-patient",
        charts=3,
        vendor="epic",
        settings={"cohort": "file:cohort.csv"},
        good_night_before=True,
        prepare=delete_a_patient,
    ),
    Case(
        number="F46",
        what="break-the-glass-of-a-resource",
        vendor="epic",
        prepare=restrict_the_first_patient("4130"),
        code=PARTIAL,
        holes=None,
        unserved=frozenset({"Location"}),  # where the restricted encounters were
        says="restricted",
        shown=not_hammered,
        waits=True,
    ),
    Case(
        number="F46",
        what="break-the-glass-of-a-patient",
        vendor="epic",
        prepare=restrict_the_first_patient("4131"),
        code=PARTIAL,
        holes=None,
        unserved=frozenset({"Location"}),  # where the restricted encounters were
        says="restricted",
        shown=not_hammered,
        waits=True,
    ),
    Case(
        number="F47",
        what="the-daily-document-limit",
        vendor="epic",
        mock={"daily_documents": 1},
        code=PARTIAL,
        holes=frozenset({"DocumentReference"}),
        says="paused until",
        ends=knobs(daily_documents=None),
        waits=True,
    ),
)
