"""Compares what an EHR lists with what the store holds, question by question: one patient and one type each. Pure.

`prove` asks the EHR. Only rows that the store lacks count against it. Rows that the store has beyond a listing may have come by
reference or by bulk; they count as "more" only if the EHR says that they are gone, or does not say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from snapshots.instants import moment
from snapshots.proof import Finding, TypeProof, Verdict

EVERYONE = "everyone"
_ANSWERED = frozenset({"equal", "more", "fewer"})


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How a listing and the store differ, by ids."""

    missing: tuple[str, ...]  # listed, and not live in the store
    tombstoned: int  # of those: the store has a tombstone
    changed_since: int  # of those: written at the EHR after the run began
    outdated: int  # held in an older version than the EHR had before the run began
    newer: int  # held, and changed at the EHR since the run began
    unlisted: tuple[str, ...]  # live in the store, and not listed


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one question came to."""

    resource_type: str
    scope: str
    method: str
    verdict: Verdict
    at_ehr: int | None
    stored: int
    missing: int = 0
    reason: str = ""
    not_served: bool = False  # the server states that it has no such search


def difference(
    listed: Mapping[str, str | None],
    held: Mapping[str, str | None],
    elsewhere: Mapping[str, tuple[str | None, bool]],
    began: datetime,
) -> Difference:
    """Compare ids with their lastUpdated. `elsewhere` is what the store knows of listed ids that are not in `held`."""
    missing, tombstoned, changed_since, outdated, newer = [], 0, 0, 0, 0
    for id_, at_ehr in listed.items():
        ehr_time = moment(at_ehr, zoned=True)
        known, gone = (held[id_], False) if id_ in held else elsewhere.get(id_, (None, True))
        if gone:
            missing.append(id_)
            tombstoned += id_ in elsewhere
            changed_since += ehr_time is not None and ehr_time >= began
            continue
        stored_time = moment(known, zoned=True)
        if stored_time is not None and ehr_time is not None and ehr_time > stored_time:
            newer += ehr_time >= began
            outdated += ehr_time < began
    return Difference(
        missing=tuple(missing),
        tombstoned=tombstoned,
        changed_since=changed_since,
        outdated=outdated,
        newer=newer,
        unlisted=tuple(id_ for id_ in held if id_ not in listed),
    )


@dataclass(frozen=True, kw_only=True)
class LookedUp:
    """What reading the rows that no search listed came to, in numbers."""

    gone: int = 0  # answered 404 or 410, which can be believed here
    # answered 404 or 410, which proves nothing: reads are not declared, or no read of an existing row was answered
    unproven: int = 0
    readable: int = 0
    unknown: int = 0  # not read, or answered otherwise


def judged(found: Difference, *, unlisted: LookedUp, incomplete: str | None) -> tuple[Verdict, str]:
    """The verdict on a difference, and why in words.

    `unlisted` is what is known of rows that the store holds and no search lists. `incomplete`: why the listing may not have been
    whole.
    """
    counts = [
        (len(found.missing), "missing in the store"),
        (found.tombstoned, "of them deleted in the store"),
        (
            found.changed_since,
            "of them changed since: written at the EHR after the run began; the next sync fetches them",
        ),
        (found.outdated, "stored in an older version than the EHR had when the run began"),
        (found.newer, "changed since at the EHR: the next sync fetches them"),
        (unlisted.gone, "no longer at the EHR: the next full listing deletes them"),
        (unlisted.unproven, "not listed, and reads do not show whether they are still at the EHR"),
        (unlisted.readable, "stored beyond what this search lists, and still at the EHR"),
        (unlisted.unknown, "stored beyond what this search lists, not checked"),
    ]
    words = [f"{number:,} {what}" for number, what in counts if number]
    if incomplete is not None:
        words.append(incomplete)
    verdict: Verdict
    if found.missing or found.outdated:
        verdict = "fewer"
    elif incomplete is not None:
        verdict = "not asked"
    else:
        verdict = "more" if unlisted.gone or unlisted.unproven or unlisted.unknown else "equal"
    return verdict, "; ".join(words)


def weighed(answer: Answer, *, counted: int, recounted: int | None, listed: int, stored: int) -> Answer:
    """Compare an answer from walked pages with the server's own count, requested before and, if they differ, after them.

    A listing proves what it holds, so a lower count is wrong and does no harm. A higher count suggests a lost page, unless the
    rows were deleted meanwhile.
    """
    if counted == listed:
        return answer
    difference = f"the server's count is {counted:,}, but its pages list {listed:,}"
    if counted < listed:
        return replace(answer, reason="; ".join(filter(None, (answer.reason, difference))))
    if recounted == listed:
        return answer
    most = counted if recounted is None else recounted
    difference += (
        f", the store holds {stored:,}: one of the EHR's answers is wrong (if it is always the count, "
        'set profile = { completeness.count_query = "" })'
    )
    reason = "; ".join(filter(None, (answer.reason, difference)))
    if most > stored or answer.verdict == "fewer":
        missing = max(answer.missing, most - stored)
        return replace(answer, verdict="fewer", at_ehr=max(most, listed), missing=missing, reason=reason)
    return replace(answer, verdict="unanswered", at_ehr=max(most, listed), reason=reason)


@dataclass
class ProofTally:
    """Gathers answers into a certificate's lines. At most `named` findings are kept, the rest is counted."""

    named: int = 500
    findings: list[Finding] = field(default_factory=list)
    unnamed: int = 0
    _types: dict[str, TypeProof] = field(default_factory=dict)
    # what the one question of all of a type came to: its numbers are not those of the patients' added to them
    _whole: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _not_served: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Answer) -> None:
        """Count one answer, and name it unless it is plainly equal."""
        before = self._types.get(answer.resource_type) or TypeProof(
            resource_type=answer.resource_type, method=answer.method
        )
        verdicts = {name: getattr(before, name) for name in ("equal", "more", "fewer", "not_asked", "unanswered")}
        verdicts[answer.verdict.replace(" ", "_")] += 1
        answered = answer.verdict in _ANSWERED
        at_ehr, stored, missing = (answer.at_ehr or 0, answer.stored, answer.missing) if answered else (0, 0, 0)
        if answer.scope == EVERYONE:
            self._whole[answer.resource_type] = (at_ehr, stored, missing)
            at_ehr = stored = missing = 0
        self._not_served[answer.resource_type] += answer.not_served
        self._types[answer.resource_type] = TypeProof(
            resource_type=answer.resource_type,
            method=_methods(before.method, answer.method),
            at_ehr=before.at_ehr + at_ehr,
            stored=before.stored + stored,
            missing=before.missing + missing,
            **verdicts,
        )
        if answer.verdict == "equal" and not answer.reason:
            return
        if answer.verdict != "fewer" and len(self.findings) >= self.named:
            self.unnamed += 1
            return
        if len(self.findings) >= 2 * self.named:
            self.unnamed += 1
            return
        self.findings.append(
            Finding(
                resource_type=answer.resource_type,
                scope=answer.scope,
                verdict=answer.verdict,
                at_ehr=answer.at_ehr,
                stored=answer.stored,
                reason=answer.reason,
            )
        )

    @property
    def silent(self) -> Sequence[str]:
        """Types of which no question was answered."""
        return [name for name, one in self._types.items() if not one.equal + one.more + one.fewer]

    @property
    def served_in_part(self) -> Sequence[str]:
        """Types for which the server answered some questions, and replied to others that it has no such search."""
        return [name for name, number in self._not_served.items() if number and name not in self.silent]

    def leave_open(self, resource_type: str, reason: str) -> None:
        """Count questions of a type that could not be asked as unanswered: they leave the proof open."""
        one = self._types[resource_type]
        if not one.not_asked:
            return
        self._types[resource_type] = replace(one, not_asked=0, unanswered=one.unanswered + one.not_asked)
        self.findings = [
            replace(found, verdict="unanswered", reason="; ".join(filter(None, (found.reason, reason))))
            if (found.resource_type, found.verdict) == (resource_type, "not asked")
            else found
            for found in self.findings
        ]

    @property
    def types(self) -> Sequence[TypeProof]:
        """The lines by type, in the order of names."""
        return [self._with_whole(self._types[name]) for name in sorted(self._types)]

    def _with_whole(self, one: TypeProof) -> TypeProof:
        at_ehr, stored, missing = self._whole.get(one.resource_type, (0, 0, 0))
        return replace(
            one, at_ehr=max(at_ehr, one.at_ehr), stored=max(stored, one.stored), missing=max(missing, one.missing)
        )


def _methods(one: str, other: str) -> str:
    found = {*one.split(" + "), *other.split(" + ")}
    return " + ".join(name for name in ("count", "ids", "read") if name in found) or one
