"""What the end of a search means for its unit: settled, complete or not, or a hole. Pure; nothing here quotes an answer.

A listing is complete, and may so tell what has vanished, only if nothing at all was odd about it (vendor-facts 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from config.how_many import how_many
from connectors.fhir.errors import TerminalFetchError
from connectors.fhir.issue_types import shown
from connectors.fhir.outcomes import Issue
from connectors.fhir.profile import IssueGrade, VendorProfile
from connectors.fhir.records import codes_of, grade
from connectors.fhir.search.deferrals import RESTRICTED
from connectors.fhir.unit_details import SearchDetail
from snapshots.unit import Ending, Unit, UnitResult, UnitState
from snapshots.witness import Deletion, Said

MERGED = "merged into another patient, whose chart is fetched"
PUT_OFF = "the server postpones this search to another day"
_GRAVE = frozenset({"error", "fatal"})
_ENDINGS: dict[IssueGrade, Ending] = {"pause": Ending.PAUSED, "restricted": Ending.RESTRICTED}
_HOLES: dict[IssueGrade, str] = {
    "pause": PUT_OFF,
    "fatal": "the server could not produce all of it",
    "restart": "the server's paging session kept expiring",
    "restricted": RESTRICTED,
}
_NOTES: dict[IssueGrade, str] = {
    "ignored": "the server says that it ignored part of the search",
    "incomplete": "the server says that more may exist than it shows this client",
    "restricted": RESTRICTED,
}


@dataclass(kw_only=True)
class SearchTally:
    """What the pages of one unit brought."""

    issues: list[Issue] = field(default_factory=list)
    count: int = 0
    of_other_types: int = 0  # of `count`, as what is included beside matches
    unasked: int = 0  # of `of_other_types`: nothing marks them as included
    unreadable: int = 0
    doubtful: bool = False  # a page held links or issues that nobody understands
    redacted: int = 0  # placeholders of what the client may not see (F37)
    astray: int = 0  # of another patient, category or time than requested (F16)
    of_others: int = 0  # of `astray`: of another patient
    nameless: int = 0  # of no patient by what they name, from a search by patient
    unfiltered: bool = False  # the server refused the date filter: everything was listed
    dateless: bool = False  # searched by a date that a resource may not have
    lost: int = 0  # places that the server cannot produce
    lost_codes: tuple[str, ...] = ()
    merged: bool = False
    withheld: int = 0  # matches that the server counted, but neither sent nor linked to
    shifted: bool = False  # the number of matches kept changing while pages were read
    newest: datetime | None = None  # of the dates by which changes are requested


def ended(unit: Unit, tally: SearchTally, profile: VendorProfile) -> UnitResult:
    """Return how a unit ends whose pages all came, except for the positions in `lost`."""
    worst = grade(tally.issues, profile.answers.issue_codes)
    if hole := _hole(unit, tally, worst):
        ending = _ENDINGS.get(worst, Ending.FAILED)
        return UnitResult(key=unit.key, state=UnitState.FAILED, reason=hole, records=tally.count, ending=ending)
    if tally.count < SearchDetail.of(unit).expect and not tally.merged:
        return _unknown(unit)
    remarks = _remarks(tally, worst)
    # unrequested records prove no row absent, and hide none
    partial = worst in {"incomplete", "restricted"} or tally.redacted or tally.shifted or _is_unplaced(tally)
    ending = Ending.MERGED if tally.merged else Ending.PARTIAL if partial else Ending.LISTED
    return UnitResult(
        key=unit.key,
        state=UnitState.SETTLED,
        reason="; ".join(remarks) or None,
        complete_listing=not remarks and not unit.incremental,
        records=tally.count,
        ending=ending,
        newest=None if tally.newest is None else tally.newest.isoformat(),
    )


def is_whole(unit: Unit, tally: SearchTally, profile: VendorProfile) -> bool:
    """Whether a search for patients brought everything that it could: nothing unread, withheld or in doubt."""
    hole = _hole(unit, tally, grade(tally.issues, profile.answers.issue_codes))
    return hole is None and not (tally.doubtful or tally.shifted)


def _is_unplaced(tally: SearchTally) -> bool:
    """Whether nobody can tell whose some rows are: they name no patient, and the server did not heed whom the search named."""
    return bool(tally.nameless and tally.of_others)


def _unknown(unit: Unit) -> UnitResult:
    """Return the result for a Patient that the server does not return: a hole, unless the store has the Patient."""
    known = SearchDetail.of(unit).known
    return UnitResult(
        key=unit.key,
        state=UnitState.SETTLED if known else UnitState.FAILED,
        reason="no longer there" if known else "the server does not know this patient: check the id, or the cohort",
        ending=Ending.NOT_FOUND,
    )


def unread(tally: SearchTally) -> str:
    """Why a listing with entries that could not be read is a hole."""
    return f"{how_many(tally.unreadable, 'entry', 'entries')} could not be read: see quarantine"


def _hole(unit: Unit, tally: SearchTally, worst: IssueGrade) -> str | None:
    if tally.unreadable:
        return unread(tally)
    if tally.count and tally.of_other_types == tally.count and not tally.merged:
        return "only resources of other types came, and none of the requested type: the server answered something else"
    if tally.unasked and not tally.merged:
        return (
            f"{how_many(tally.unasked, 'entry', 'entries')} of other types came, not marked as included (`search.mode`): the "
            "server may have sent them in place of what was requested; they are kept"
        )
    if tally.withheld:
        return (
            f"the server's total is {tally.withheld:,} more than came, each resource counted once, and no `next` link leads to "
            "the rest: check the server's page size, and whether it lists resources twice"
        )
    if tally.lost:
        return lost_places(tally)
    grave = worst != "restricted" or any(issue.severity in _GRAVE for issue in tally.issues)
    if worst in _HOLES and grave:
        return named(_HOLES[worst], codes_of(tally.issues))
    if tally.dateless:
        return "too large for one request, so requested by date: rows without a date were not reached"
    return None


def lost_places(tally: SearchTally) -> str:
    """Return the description of a hole around a broken record."""
    what = "a record" if tally.lost == 1 else f"{tally.lost} records"
    return named(f"the server cannot produce {what} of this search; the rest was fetched around it", tally.lost_codes)


def _remarks(tally: SearchTally, worst: IssueGrade) -> list[str]:
    remarks = [named(_NOTES[worst], codes_of(tally.issues))] if worst in _NOTES else []
    if tally.doubtful:
        remarks.append("a page held links or issues that could not be understood: rows that it does not list are kept")
    if tally.redacted:
        remarks.append("redacted placeholders came instead of records that this client may not see")
    if tally.astray:
        remarks.append("the server ignored a filter and sent records that were not requested; they are kept")
    if _is_unplaced(tally):
        remarks.append(
            "some of these name no patient, so nobody can tell whose they are: the next sync searches again in full"
        )
    if tally.unfiltered:
        remarks.append("the server refused the date filter: listed in full")
    if tally.shifted:
        remarks.append("the number of matches kept changing while pages were read")
    if tally.merged:
        remarks.append(MERGED)
    return remarks


class UnitRefusal(NamedTuple):
    """How a unit ends if its search or read was refused for good, and what else follows."""

    result: UnitResult
    deletions: Sequence[Deletion] = ()


def refused(unit: Unit, error: TerminalFetchError, ending: Ending, *, served: bool) -> UnitRefusal | None:
    """Judge an answer that will not change; None: it is a hole by its own words.

    `served`: the server has given something of this type, so that "no such search" cannot be.
    """
    of_patient = asks_for_patient(unit)
    if ending is Ending.GONE and of_patient:
        return UnitRefusal(_settled(unit, "deleted in the EHR", ending), [_word(unit, Said.GONE)])
    if ending is Ending.MERGED:
        if of_patient:
            return UnitRefusal(
                _failed(
                    unit, "merged, but the server does not say into whom: ask its operator, or remove the id", ending
                )
            )
        return UnitRefusal(_settled(unit, MERGED, ending))
    if ending is Ending.NOT_FOUND:
        if of_patient:
            return UnitRefusal(_unknown(unit), [_word(unit, Said.NOT_FOUND)])
        # of an unknown patient: its Patient unit is the hole, once
        return UnitRefusal(_settled(unit, "the server does not know this patient", ending))
    if ending is Ending.NOT_SERVED:
        answer = f"HTTP {error.status}"
        if served or SearchDetail.of(unit).expected:
            reason = f"the server answers {answer} to this search, although the type was requested by name, or was served before"
            return UnitRefusal(_failed(unit, reason, ending))
        return UnitRefusal(_settled(unit, f"not served here: {answer}", ending))
    if ending is Ending.PAUSED:
        return UnitRefusal(_failed(unit, PUT_OFF, ending))
    if ending is Ending.RESTRICTED:
        return UnitRefusal(_failed(unit, named(RESTRICTED, error.codes), ending))
    return None


def asks_for_patient(unit: Unit) -> bool:
    """Whether a unit asks for one Patient, and not for what belongs to one."""
    return unit.resource_type == "Patient" and unit.patient_id is not None


def _word(unit: Unit, answer: Said) -> Deletion:
    return Deletion("Patient", unit.patient_id or "", answer, unit.way)


def _settled(unit: Unit, reason: str, ending: Ending) -> UnitResult:
    return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=reason, ending=ending)


def _failed(unit: Unit, reason: str, ending: Ending) -> UnitResult:
    return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason, ending=ending)


def named(text: str, codes: Sequence[str]) -> str:
    """Return a text followed by issue codes."""
    return f"{text} ({', '.join(shown(codes))})" if codes else text
