from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.prove.comparison import EVERYONE, Answer, LookedUp, ProofTally, difference, judged, weighed
from snapshots.instants import moment

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
BEFORE, LATER = "2026-02-01T00:00:00Z", "2026-03-02T00:00:00.000+00:00"
IDS = st.sets(st.text("abcdef", min_size=1, max_size=2), max_size=12)


def verdict_of(listed: dict, held: dict, elsewhere: dict | None = None, **rest: object) -> tuple[str, str]:
    incomplete: Any = rest.pop("incomplete", None)
    unlisted = LookedUp(**rest)  # type: ignore[arg-type]
    return judged(difference(listed, held, elsewhere or {}, BEGAN), unlisted=unlisted, incomplete=incomplete)


@given(listed=IDS, held=IDS)
def test_only_what_the_ehr_lists_and_the_store_lacks_is_missing(listed: set[str], held: set[str]) -> None:
    found = difference(dict.fromkeys(listed), dict.fromkeys(held), {}, BEGAN)
    assert set(found.missing) == listed - held
    assert set(found.unlisted) == held - listed


@given(listed=IDS, held=IDS)
def test_a_verdict_is_fewer_exactly_if_something_is_missing(listed: set[str], held: set[str]) -> None:
    verdict, _ = verdict_of(dict.fromkeys(listed), dict.fromkeys(held), readable=len(held - listed))
    assert (verdict == "fewer") == bool(listed - held)


def test_a_row_stored_under_another_patient_or_none_is_not_missing() -> None:
    assert verdict_of({"prov-1": None}, {}, {"prov-1": (None, False)}) == ("equal", "")


def test_a_tombstoned_row_that_the_ehr_still_lists_is_missing() -> None:
    verdict, reason = verdict_of({"a": None}, {}, {"a": (None, True)})
    assert verdict == "fewer"
    assert "1 of them deleted in the store" in reason


def test_a_version_older_than_the_run_that_is_not_stored_is_missing() -> None:
    verdict, reason = verdict_of({"a": "2026-02-02T00:00:00Z"}, {"a": BEFORE})
    assert verdict == "fewer"
    assert "older version" in reason


def test_a_version_newer_than_the_start_of_the_run_is_not_missing() -> None:
    verdict, reason = verdict_of({"a": LATER}, {"a": BEFORE})
    assert verdict == "equal"
    assert "changed since" in reason


def test_the_same_instant_written_differently_is_equal() -> None:
    assert verdict_of({"a": "2026-02-01T00:00:00.000+00:00"}, {"a": BEFORE}) == ("equal", "")


def test_an_incomplete_listing_proves_only_what_is_missing() -> None:
    assert verdict_of({"a": None}, {"a": None, "b": None}, incomplete="more may exist")[0] == "not asked"
    assert verdict_of({"a": None, "c": None}, {"a": None}, incomplete="more may exist")[0] == "fewer"


def test_a_row_that_the_ehr_no_longer_has_counts_as_more() -> None:
    assert verdict_of({}, {"a": None}, gone=1)[0] == "more"


def test_a_row_that_no_search_or_read_finds_counts_as_more_and_not_as_gone() -> None:
    verdict, reason = verdict_of({}, {"a": None}, unproven=1)
    assert verdict == "more"
    assert reason == "1 not listed, and reads do not show whether they are still at the EHR"


def test_an_instant_without_a_zone_says_nothing() -> None:
    assert moment("2026-02-01T00:00:00", zoned=True) is None
    assert moment("soon") is None
    assert moment(LATER) == BEGAN + timedelta(days=1)


def test_a_tally_of_a_million_questions_names_some_and_counts_the_rest() -> None:
    tally = ProofTally(named=3)
    for _ in range(20):
        tally.add(answer("more"))
    assert (len(tally.findings), tally.unnamed) == (3, 17)
    assert tally.types[0].more == 20


def test_missing_rows_are_named_first_if_space_is_short() -> None:
    tally = ProofTally(named=2)
    for verdict in ("more",) * 5 + ("fewer",) * 2:
        tally.add(answer(verdict))
    assert [finding.verdict for finding in tally.findings].count("fewer") == 2


def answer(verdict: str) -> Answer:
    return Answer(
        resource_type="Condition",
        scope="patient ~1",
        method="ids",
        verdict=verdict,  # type: ignore[arg-type]
        at_ehr=1,
        stored=0,
        missing=verdict == "fewer",
        reason="why",
    )


def answered(verdict: str = "equal", **rest: object) -> Answer:
    given: dict = {
        "resource_type": "Condition",
        "scope": "patient ~1",
        "method": "ids",
        "at_ehr": 5,
        "stored": 5,
        **rest,
    }
    return Answer(verdict=verdict, **given)


def test_a_count_above_the_listing_and_the_store_is_fewer_whatever_the_pages_list() -> None:
    found = weighed(answered(), counted=35, recounted=35, listed=5, stored=5)
    assert (found.verdict, found.missing, found.at_ehr) == ("fewer", 30, 35)


def test_a_count_above_the_listing_alone_leaves_the_question_open() -> None:
    assert weighed(answered(stored=40), counted=35, recounted=35, listed=5, stored=40).verdict == "unanswered"


def test_a_count_that_a_deletion_between_count_and_pages_explains_is_equal() -> None:
    assert weighed(answered(), counted=6, recounted=5, listed=5, stored=5).verdict == "equal"


def test_a_count_below_what_the_pages_list_does_no_harm() -> None:
    found = weighed(answered(), counted=1, recounted=None, listed=5, stored=5)
    assert found.verdict == "equal"
    assert "count is 1, but" in found.reason


def test_a_type_listed_both_whole_and_by_patient_is_counted_once() -> None:
    tally = ProofTally()
    tally.add(answered(scope=EVERYONE, at_ehr=2, stored=2))
    tally.add(answered(scope="patient ~1", at_ehr=1, stored=1))
    tally.add(answered(scope="patient ~2", at_ehr=1, stored=1))
    assert [(one.at_ehr, one.stored, one.equal) for one in tally.types] == [(2, 2, 3)]


def test_a_question_that_could_not_be_asked_stays_open() -> None:
    tally = ProofTally()
    tally.add(answered("not asked", at_ehr=None, reason="HTTP 404"))
    assert tally.silent == ["Condition"]
    tally.leave_open("Condition", "rows are stored")
    assert [(one.not_asked, one.unanswered) for one in tally.types] == [(0, 1)]
    assert (tally.findings[0].verdict, tally.findings[0].reason) == ("unanswered", "HTTP 404; rows are stored")
