"""Reads one file of an export, line by line, into records, deletions, issues and quarantine, and counts them. No I/O.

One bad line costs that line. In an error file, lines that are not JSON by themselves are kept and read together, because one
outcome may span many lines. `download` decides what a cut or a wrong count means for the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from config.how_many import how_many
from connectors.core.pipeline import Fetched
from connectors.fhir.bulk.file_forms import form_of
from connectors.fhir.bulk.ndjson import Line, LineSplitter, OverlongLine
from connectors.fhir.json_answers import UnreadableJsonError, json_from, pieces_of
from connectors.fhir.outcomes import Issue, UnreadableOutcomeError, outcome_from, outcome_of
from connectors.fhir.records import SubsettedError, UnreadableResourceError, deletions_from, record_from
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.unit_details import FileDetail
from snapshots.record import Quarantined, Record
from snapshots.unit import Unit, UnitKind
from snapshots.witness import Deletion

_MOST_TOGETHER = 16_000_000  # bytes of lines that are read together


@dataclass
class FileReading:
    """What was read of one file so far. Feed it decompressed bytes; take out what is ready."""

    unit: Unit
    base: FhirBase
    splitter: LineSplitter = field(default_factory=LineSplitter)
    records: list[Record] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    size: int = 0  # bytes of bodies that wait to be handed on
    total: int = 0  # bytes of bodies in all
    fed: int = 0  # bytes of the file, line ends included
    lines: int = 0
    headers: int = 0
    deleted: int = 0  # that deletion Bundles name
    unreadable: int = 0
    subsetted: int = 0  # of these: whole lines of resources that are not whole
    other_types: dict[str, int] = field(default_factory=dict)
    form: str | None = None  # what the file is in place of NDJSON, while none of its lines could be read
    # as if it was cut, which a file in another form is not, and neither is a line that is whole JSON but no resource
    last_line_unreadable: bool = False
    _is_last: bool = False  # the line that is being read has no line feed
    # of an error file, from the first line that is no JSON by itself
    _together: list[Line] = field(default_factory=list)
    _together_size: int = 0
    detail: FileDetail = field(init=False)

    def __post_init__(self) -> None:
        """Read the manifest's description of the file."""
        self.detail = FileDetail.of(self.unit)

    @classmethod
    def going_on(cls, unit: Unit, base: FhirBase, place: Mapping[str, Any]) -> FileReading:
        """The reading of a file from where an interrupted run had stored it to (`place`)."""
        return cls(
            unit,
            base,
            splitter=LineSplitter(number=place["number"]),
            fed=place["bytes"],
            lines=place["lines"],
            total=place["total"],
        )

    def place(self) -> Mapping[str, Any] | None:
        """How far the lines reach that have been read: the bytes that need not come again. None while there is doubt.

        A line that could not be read, an issue or a type that the manifest did not name belong to the file's end: a run that
        goes on must meet them.
        """
        doubtful = self.unreadable or self.issues or self.other_types or self.headers
        if doubtful or self.splitter.held < 0 or self.unit.kind != UnitKind.FILE:
            return None
        end = self.fed - self.splitter.held
        return {"bytes": end, "number": self.splitter.number, "lines": self.lines, "total": self.total}

    def feed(self, piece: bytes) -> None:
        """Read every line that this piece completes."""
        self.fed += len(piece)
        self._read_all(self.splitter.feed(piece))

    def finish(self) -> None:
        """Read a last line without its newline; if it can be read, the file is complete, else truncated."""
        before = self.unreadable - self.subsetted
        self._is_last = True
        self._read_all(self.splitter.finish())
        if self.unit.kind == UnitKind.ERROR_FILE:
            self._read_together()
            return  # it is fetched once: what cannot be read of it is a hole, whether it was cut or not
        if self.unreadable - self.subsetted == before or self.form is not None:
            return
        last = self.quarantined[-1]
        self.last_line_unreadable = not all(piece.readable for piece in pieces_of(last.raw))
        if self.last_line_unreadable:
            self.quarantined[-1] = last._replace(
                reason=f"{last.reason}: the file ends in the middle of line {self.lines}"
            )

    def take(self) -> Fetched | None:
        """Give what has been read since the last time, if there is any."""
        if not (self.records or self.deletions or self.quarantined):
            return None
        found = Fetched(records=self.records, deletions=self.deletions, quarantined=self.quarantined, size=self.size)
        self.records, self.deletions, self.quarantined, self.size = [], [], [], 0
        return found

    def give_up_last_line(self) -> None:
        """Undo the quarantine of a truncated last line."""
        self.quarantined.pop()

    def _read_all(self, lines: list[Line | OverlongLine]) -> None:
        """Read lines into the account: the plain way for resources, everything else one by one."""
        if self.unit.kind != UnitKind.FILE:
            for line in lines:
                self._read(line)
            return
        trimmed = self.detail.elements
        base, key, wanted, keep, size = self.base, self.unit.key, self.unit.resource_type, self.records.append, 0
        way, of_none = self.unit.way, self.unit.way_of_none
        for line in lines:
            try:
                record = record_from(line[1], base, key, way) if type(line) is tuple else None
            except UnreadableResourceError:
                record = None
            if record is None or record.resource_type != wanted or trimmed:
                self._read(line)
                continue
            keep(record if of_none is None or record.patient_id is not None else record._replace(way=of_none))
            size += len(record.body)
            self.lines += 1
        self.size += size
        self.total += size

    def _read(self, line: Line | OverlongLine) -> None:
        self.lines += 1
        if isinstance(line, OverlongLine):
            self._quarantine(line.number, "longer than the limit for a line", line.head)
            return
        number, body = line
        self.total += len(body)
        try:
            if self.unit.kind == UnitKind.DELETED_FILE:
                self._read_deletions(number, body)
                return
            if self.unit.kind == UnitKind.ERROR_FILE:
                self._read_outcome(line)
                return
            in_part = self.detail.elements
            record = record_from(body, self.base, self.unit.key, self.unit.way, in_part=in_part)
        except SubsettedError as error:
            self.subsetted += 1
            self._quarantine(number, str(error), body)
            return
        except UnreadableResourceError as error:
            if self._is_header(body):
                return
            if not (b'"OperationOutcome"' in body and self._says(body)):
                self._quarantine(number, str(error), body)
            return
        if record.resource_type == "OperationOutcome":
            if not self._says(body):
                self._quarantine(number, "an OperationOutcome that cannot be read", body)
            return
        if record.resource_type in ("Parameters", "Bundle") and self._is_no_resource(
            record.resource_type, number, body
        ):
            return
        if self.unit.resource_type not in ("*", record.resource_type):
            self.other_types[record.resource_type] = self.other_types.get(record.resource_type, 0) + 1
        self.records.append(self._by_its_way(record))
        self.size += len(body)

    def _by_its_way(self, record: Record) -> Record:
        """Return the separate way for what an export of members lists but belongs to none of them."""
        of_none = self.unit.way_of_none
        return record if of_none is None or record.patient_id is not None else record._replace(way=of_none)

    def _says(self, body: bytes) -> bool:
        """Take an outcome's issues, if all of it can be read."""
        try:
            outcome = outcome_from(body)
        except UnreadableOutcomeError:
            return False
        self.issues += outcome.issues
        return not outcome.unread

    def _read_outcome(self, line: Line) -> None:
        """Read a line of an error file, unless it is a part of something longer."""
        number, body = line
        if not self._together:
            try:
                self._take_outcome(number, json_from(body), body)
            except UnreadableJsonError:
                pass
            else:
                return
        self._together.append(line)
        self._together_size += len(body)
        if self._together_size > _MOST_TOGETHER:
            self._read_together()

    def _read_together(self) -> None:
        lines, self._together, self._together_size = self._together, [], 0
        for piece in pieces_of(b"\n".join(body for _, body in lines)):
            number = lines[min(piece.start, len(lines) - 1)][0]
            if piece.readable:
                self._take_outcome(number, piece.value, piece.raw)
            else:
                self._quarantine(number, "neither JSON nor an OperationOutcome", piece.raw)

    def _take_outcome(self, number: int, value: Any, raw: bytes) -> None:
        try:
            outcome = outcome_of(value)
        except UnreadableOutcomeError as error:
            self._quarantine(number, str(error), raw)
            return
        self.issues += outcome.issues
        if outcome.unread:
            self._quarantine(
                number, f"{how_many(outcome.unread, 'item')} of an OperationOutcome that cannot be read", raw
            )

    def _read_deletions(self, number: int, body: bytes) -> None:
        gone, unread = deletions_from(body, self.base)
        self.deletions += gone
        self.deleted += len(gone) + unread
        self.size += len(body)
        if unread:
            self._quarantine(
                number,
                f"{how_many(unread, 'entry is', 'entries are')} not a DELETE of a resource below the FHIR base",
                body,
            )

    def _is_no_resource(self, resource_type: str, number: int, body: bytes) -> bool:
        """Whether the line is a header, or an unrequested Bundle, whose content would be missing."""
        if resource_type == "Parameters":
            return self._is_header(body)
        if self.unit.resource_type == "Bundle":
            return False
        self._quarantine(number, "a Bundle instead of a single resource", body)
        return True

    def _is_header(self, body: bytes) -> bool:
        """Whether the line starts a block of a file that was organised by a type (Bulk Data IG, organizeOutputBy)."""
        if not self.detail.organized or b'"Parameters"' not in body or b'"header"' not in body:
            return False
        self.headers += 1
        return True

    def _quarantine(self, number: int, reason: str, raw: bytes) -> None:
        self.unreadable += 1
        if self.unreadable != self.lines or self.unit.kind != UnitKind.FILE:
            self.form = None
        elif self.lines == 1:
            self.form = form_of(raw, is_last=self._is_last)
        reason = self.form or reason
        resource_type = None if self.unit.resource_type == "*" else self.unit.resource_type
        source = f"{self.unit.template}, line {number}"
        self.quarantined.append(Quarantined(resource_type, source, reason, raw, self.unit.key))
        self.size += len(raw)
