"""How each file of an export ended: what its lines, its issues and the manifest's count say together. Pure.

`download` fetches the files; `file_reading` reads their lines.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from config.how_many import how_many
from connectors.fhir.bulk.file_reading import FileReading
from connectors.fhir.errors import ProtocolError
from connectors.fhir.outcomes import Issue
from connectors.fhir.profile import IssueGrade
from connectors.fhir.records import codes_of, grade
from connectors.fhir.unit_details import DoubtDetail
from snapshots.unit import Ending, Unit, UnitKind, UnitResult, UnitState

GRAVE = frozenset({"error", "fatal"})
# grades of a grave issue that mean that data are missing
_NOT_EXPORTED: frozenset[IssueGrade] = frozenset({"fatal", "pause", "restart"})
_NOT_SHOWN: frozenset[IssueGrade] = frozenset({"incomplete", "restricted"})  # there may be more than came
_UNPROVED = (
    "nothing proves the file complete (Content-Length, chunks, gzip, or a `count` in the manifest), or it ends in zeros: one "
    "that was cut at the end of a line would look the same, so rows that it does not list are kept"
)
_EMPTY = (
    "the file has no line, and the manifest does not count any: this does not prove that there is nothing of the type"
)
_PARTIAL = (
    "the file says itself that there may be more than it has: rows that it does not list are kept, and the type is not known "
    "to be complete"
)
_MISLABELLED = "the file has other types than the manifest names, stored as what they are"
_MISCOUNTED = "the file has more lines than the manifest counts; all are stored"


class Count(NamedTuple):
    """The manifest's count of a file, against the lines that came."""

    promised: int | None  # None: the manifest counts no lines
    at_least: int  # lines that came, as the server may count them at the least ...
    at_most: int  # ... and at the most

    @property
    def is_short(self) -> bool:
        """Whether less came, however it was counted."""
        return self.promised is not None and self.at_most < self.promised

    @property
    def is_exceeded(self) -> bool:
        """Whether more came, however it was counted."""
        return self.promised is not None and self.at_least > self.promised

    @property
    def is_met(self) -> bool:
        """Whether all came, however it was counted."""
        return self.promised is not None and self.at_least >= self.promised


def count_of(unit: Unit, reading: FileReading) -> Count:
    """Compare a file with its `count`; the guide does not say what that counts.

    It may mean the headers of an organised file too, or not; of deletions, which come as Bundles, these or what is in them.
    """
    if unit.kind == UnitKind.DELETED_FILE:
        return Count(reading.detail.count, reading.lines, max(reading.lines, reading.deleted))
    return Count(reading.detail.count, reading.lines - reading.headers, reading.lines)


class FileVerdicts:
    """The verdicts of one export's files. `meanings` are what the vendor's issue codes mean."""

    def __init__(self, meanings: Mapping[str, IssueGrade]) -> None:
        self._meanings = meanings
        self.lost = 0  # error files by which the server's own export failed: holes, though the files are here

    def of(self, unit: Unit, reading: FileReading, count: Count, *, ends: bool) -> UnitResult:
        """Return how a completely delivered file ended; `ends`: the wire itself says that it did.

        Raises:
            ProtocolError: it is an error instead of data.
        """
        if unit.kind == UnitKind.ERROR_FILE:
            return self._of_errors(unit, reading, whole=count.is_met or ends)
        return self._of_data(unit, reading, count, ends=ends)

    def _of_errors(self, unit: Unit, reading: FileReading, *, whole: bool) -> UnitResult:
        """Judge what the server says about its own export.

        It does not say which types it means, so the gravest issue counts for all.

        Warnings are normal, as Epic's 59205 (F27). An `error` or a `fatal` means that something was not exported: a hole, unless
        the vendor's codes are known to mean less (Epic: 4118, no permission; 4119, more may exist): then nothing is taken for
        deleted, and nothing is known to be complete. What cannot be read may say so too, and is a hole.
        """
        grave = [issue for issue in reading.issues if issue.severity in GRAVE]
        lost = self._graded(reading.issues, _NOT_EXPORTED)
        reasons = []
        if lost:
            codes = ", ".join(codes_of(lost)) or "no codes"
            reasons.append(f"the server says that its export failed in part: {how_many(len(lost), 'error')} ({codes})")
        if reading.unreadable:
            reasons.append(f"{how_many(reading.unreadable, 'part')} of it could not be read: see quarantine")
        if reasons:
            self.lost += 1
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason="; ".join(reasons))
        partial = bool(self._graded(reading.issues, _NOT_SHOWN))
        return UnitResult(
            key=unit.key,
            state=UnitState.SETTLED,
            reason="; ".join([_errors_reason(reading, grave), *([] if whole else [_UNPROVED])]),
            complete_listing=whole and not grave and not partial,
            ending=Ending.PARTIAL if partial else Ending.LISTED,
        )

    def _graded(self, issues: Sequence[Issue], grades: Container[IssueGrade]) -> list[Issue]:
        """Return the issues that mean one of these, each judged by itself, even beside a graver one."""
        return [issue for issue in issues if grade([issue], self._meanings) in grades]

    def of_manifest(self, unit: Unit) -> UnitResult:
        """Return how a manifest's own doubts and issues ended: a hole if files may be missing, or something failed; else a note.

        Its issues are judged as those of an error file.
        """
        found = DoubtDetail.of(unit)
        grave = [issue for issue in found.issues if issue.severity in GRAVE]
        lost, partial = self._graded(found.issues, _NOT_EXPORTED), bool(self._graded(found.issues, _NOT_SHOWN))
        reasons = [found.doubt] if found.doubt else []
        codes = ", ".join(codes_of(found.issues)) or "no codes"
        if lost:
            reasons.append(f"the manifest says that the export failed in part ({codes})")
        elif found.issues:
            reasons.append(f"the manifest has issues of its own ({codes})")
        reason = "; ".join(reasons)
        if found.more or lost:
            self.lost += not found.more  # the failure is reported, and all existing files may be here
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason)
        return UnitResult(
            key=unit.key,
            state=UnitState.SETTLED,
            reason=reason,
            complete_listing=not (found.doubt or grave or partial),
            ending=Ending.PARTIAL if partial else Ending.LISTED,
        )

    def _of_data(self, unit: Unit, reading: FileReading, count: Count, *, ends: bool) -> UnitResult:
        if any(issue.severity in GRAVE for issue in reading.issues):
            raise ProtocolError(
                f"{unit.template} contains an OperationOutcome instead of data: {', '.join(codes_of(reading.issues))}."
            )
        reasons = []
        if lost := self._graded(reading.issues, _NOT_EXPORTED):
            codes = ", ".join(codes_of(lost))
            reasons.append(
                f"the server says in it that its export failed in part: {how_many(len(lost), 'issue')} ({codes})"
            )
        if reading.unreadable:
            reasons.append(
                f"{reading.unreadable:,} of {how_many(reading.lines, 'line')} could not be read: see quarantine"
            )
        if count.is_short:
            reasons.append(
                f"{how_many(reading.lines, 'line')} came, even on the second try, but the manifest promises {count.promised}"
            )
        if reasons:
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason="; ".join(reasons), records=reading.lines)
        # what came under a wrong type says nothing of what the named type no longer has
        lists_all = reading.detail.lists_all and not reading.other_types
        partial = bool(self._graded(reading.issues, _NOT_SHOWN))
        # the zeros may stand for lines, which no later export of news would bring
        unknown = partial or (reading.splitter.padded and not count.is_met)
        # nothing at all is what a file looks like that its server failed to write, whatever length it says
        proved = count.is_met or (ends and reading.lines > 0)
        remarks = [
            *([_EMPTY] if lists_all and not reading.lines and not proved and unit.kind == UnitKind.FILE else []),
            *([] if count.is_met or ends else [_UNPROVED]),
            *([_PARTIAL] if partial else []),
            *([f"{_MISLABELLED}: {', '.join(sorted(reading.other_types))}"] if reading.other_types else []),
            *([_MISCOUNTED] if count.is_exceeded else []),
        ]
        return UnitResult(
            key=unit.key,
            state=UnitState.SETTLED,
            reason="; ".join(remarks) or None,
            complete_listing=lists_all and proved and not unknown,
            records=reading.lines - reading.headers,
            ending=Ending.PARTIAL if unknown else Ending.LISTED,
        )


def _errors_reason(reading: FileReading, grave: Sequence[Issue]) -> str:
    """Return the note about an error file that is no hole: its codes, never its words."""
    codes = ", ".join(codes_of(reading.issues)) or "no codes"
    kept = "; what the export does not list is kept, since it may be what failed" if grave else ""
    issues, errors = how_many(len(reading.issues), "issue"), how_many(len(grave), "error")
    return f"the server's error file has {issues}, {errors} among them ({codes}){kept}"
