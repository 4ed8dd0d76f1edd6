"""How each file of an export ended: what its lines, its issues and the manifest's count say together. Pure.

`download` brings the files; `file_reading` reads their lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from connectors.fhir.bulk.file_reading import FileReading
from connectors.fhir.errors import ProtocolError
from connectors.fhir.outcomes import Issue
from connectors.fhir.profile import IssueGrade
from connectors.fhir.records import codes_of, grade
from connectors.fhir.unit_details import DoubtDetail
from snapshots.unit import Ending, Unit, UnitResult, UnitState

GRAVE = frozenset({"error", "fatal"})
# grades of a grave issue that mean that data are missing
_NOT_EXPORTED: frozenset[IssueGrade] = frozenset({"fatal", "pause", "restart"})
_NOT_SHOWN: frozenset[IssueGrade] = frozenset({"incomplete", "restricted"})  # there may be more than came


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
    """Compare a file with its `count`, of which the guide does not say what it counts.

    It may mean the headers of an organised file too, or not; of deletions, which come as Bundles, these or what is in them.
    """
    if unit.kind == "deleted-file":
        return Count(reading.detail.count, reading.lines, max(reading.lines, reading.deleted))
    return Count(reading.detail.count, reading.lines - reading.headers, reading.lines)


@dataclass
class FileTally:
    """What all files of an export have shown together: the report says it once."""

    issues: list[Issue] = field(default_factory=list)
    unread: int = 0  # parts of error files that cannot be read
    error_files: int = 0
    mislabelled: Counter[str] = field(default_factory=Counter)
    miscounted: int = 0
    unproved: int = 0
    empty: int = 0
    partial: int = 0
    lost: int = 0
    resumed: int = 0
    doubts: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return sentences for the run's report."""
        found = []
        if self.error_files:
            grave = sum(issue.severity in GRAVE for issue in self.issues)
            codes = ", ".join(codes_of(self.issues)) or "no codes"
            unread = f", and {self.unread} parts that cannot be read" if self.unread else ""
            kept = (
                "; what the export does not list is kept, since it may be what failed" if grave or self.unread else ""
            )
            found.append(
                f"the server's error files contain {len(self.issues)} issues, {grave} of them errors ({codes}){unread}{kept}"
            )
        found += self.doubts
        if self.unproved:
            found.append(
                f"{self.unproved} files came with nothing that proves them complete (Content-Length, chunks, gzip, or a `count` "
                "in the manifest): a file that was cut at the end of a line would look the same, so what they do not list is kept"
            )
        if self.empty:
            found.append(
                f"{self.empty} files have no lines, and the manifest does not count them: this does not prove that there is "
                "nothing of their types"
            )
        if self.partial:
            found.append(
                f"{self.partial} files say themselves that there may be more than they have: what they do not list is kept, and "
                "their types are not known to be complete"
            )
        if self.mislabelled:
            what = ", ".join(f"{pair} ({files} files)" for pair, files in sorted(self.mislabelled.items()))
            found.append(f"the manifest names other types than its files contain; stored as what they are: {what}")
        if self.miscounted:
            found.append(f"{self.miscounted} files have more lines than the manifest counts; all are stored")
        if self.resumed:
            found.append(f"{self.resumed} cut downloads were resumed where they stopped")
        return found


class FileVerdicts:
    """The verdicts of one export's files. `meanings` are what the vendor's issue codes mean."""

    def __init__(self, meanings: Mapping[str, IssueGrade]) -> None:
        self._meanings = meanings
        self.tally = FileTally()

    def of(self, unit: Unit, reading: FileReading, count: Count, *, ends: bool) -> UnitResult:
        """Return how a file ended that the wire delivered completely; `ends`: the wire itself says that it did.

        Raises:
            ProtocolError: it is an error in place of data.
        """
        self.tally.miscounted += count.is_exceeded
        if not count.is_met and not ends:
            self.tally.unproved += 1
        if unit.kind == "error-file":
            return self._of_errors(unit, reading, whole=count.is_met or ends)
        # nothing at all is what a file looks like that its server failed to write, whatever length it says
        proved = count.is_met or (ends and reading.lines > 0)
        return self._of_data(unit, reading, count, proved=proved)

    def _of_errors(self, unit: Unit, reading: FileReading, *, whole: bool) -> UnitResult:
        """Judge what the server says of its own export. It does not say of which types, so the gravest counts for all.

        Warnings are normal, as Epic's 59205 (F27). An `error` or a `fatal` means that something was not exported: a hole, unless
        the vendor's codes are known to mean less (Epic: 4118, no permission; 4119, more may exist): then nothing is taken for
        deleted, and nothing is known to be complete. What cannot be read may say so too, and is a hole.
        """
        self.tally.error_files += 1
        self.tally.issues += reading.issues
        self.tally.unread += reading.unreadable
        grave = [issue for issue in reading.issues if issue.severity in GRAVE]
        lost = self._graded(reading, _NOT_EXPORTED)
        reasons = []
        if lost:
            codes = ", ".join(codes_of(lost)) or "no codes"
            reasons.append(f"the server says that its export failed in part: {len(lost)} errors ({codes})")
        if reading.unreadable:
            reasons.append(f"{reading.unreadable} parts of it could not be read: see quarantine")
        if reasons:
            self.tally.lost += 1
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason="; ".join(reasons))
        partial = bool(self._graded(reading, _NOT_SHOWN))
        return UnitResult(
            key=unit.key,
            state=UnitState.SETTLED,
            complete_listing=whole and not grave and not partial,
            ending=Ending.PARTIAL if partial else Ending.LISTED,
        )

    def _graded(self, reading: FileReading, grades: Container[IssueGrade]) -> list[Issue]:
        """Return the issues of a file that mean one of these, each judged by itself, whatever graver one stands beside it."""
        return [issue for issue in reading.issues if grade([issue], self._meanings) in grades]

    def of_manifest(self, unit: Unit) -> UnitResult:
        """Return how a doubt about the manifest itself ended: a hole if there may be more files; else a note."""
        found = DoubtDetail.of(unit)
        if found.more:
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=found.doubt)
        self.tally.doubts.append(found.doubt)
        return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=found.doubt)

    def _of_data(self, unit: Unit, reading: FileReading, count: Count, *, proved: bool) -> UnitResult:
        if any(issue.severity in GRAVE for issue in reading.issues):
            raise ProtocolError(
                f"{unit.template} contains an OperationOutcome instead of data: {', '.join(codes_of(reading.issues))}."
            )
        for other in reading.other_types:
            self.tally.mislabelled[f"{other} as {unit.resource_type}"] += 1
        reasons = []
        if lost := self._graded(reading, _NOT_EXPORTED):
            codes = ", ".join(codes_of(lost))
            reasons.append(f"the server says in it that its export failed in part: {len(lost)} issues ({codes})")
        if reading.unreadable:
            reasons.append(f"{reading.unreadable} of {reading.lines} lines could not be read: see quarantine")
        if count.is_short:
            reasons.append(
                f"{reading.lines} lines came, even on the second try, but the manifest promises {count.promised}"
            )
        if reasons:
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason="; ".join(reasons), records=reading.lines)
        # what came under a wrong type says nothing of what the named type no longer has
        lists_all = reading.detail.lists_all and not reading.other_types
        if lists_all and not reading.lines and not proved and unit.kind == "file":
            self.tally.empty += 1
        partial = bool(self._graded(reading, _NOT_SHOWN))
        self.tally.partial += partial
        return UnitResult(
            key=unit.key,
            state=UnitState.SETTLED,
            complete_listing=lists_all and proved and not partial,
            records=reading.lines - reading.headers,
            ending=Ending.PARTIAL if partial else Ending.LISTED,
        )
