"""Requests by id the rows that a listing no longer had: a second check before anything counts as gone.

`snapshots.evidence` chooses the rows, `snapshots.fates` decides what to believe. This module reads them, and also some listed
rows of the same types as controls: a 404 means something only if an existing row can be read.
docs/completeness-rules.md has the whole rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from urllib.parse import quote

from config.how_many import how_many
from connectors.core.drain import fetch_pending
from connectors.core.errors import AuthError
from connectors.core.pipeline import Emit, Fetched
from connectors.fhir.capability import Capability
from connectors.fhir.endings import may_be_a_gateways, says_not_found
from connectors.fhir.errors import RequestError, TerminalFetchError
from connectors.fhir.json_answers import bare
from connectors.fhir.not_found import NotFoundAnswers
from connectors.fhir.patients.merges import refused_survivor
from connectors.fhir.records import UnreadableResourceError, record_from
from connectors.fhir.run import EhrRun
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.ways import PATIENTS
from snapshots.record import Batch, Quarantined
from snapshots.unit import Ending, Unit, UnitKind, UnitResult, UnitState, unit_key
from snapshots.witness import AbsentRow, Deletion, Said

_KINDS = (UnitKind.CONFIRM, UnitKind.CONTROL)
_LEAST_READS = 200  # missed rows per run; or a share of its requests, if that is more
_SHARE = 0.05
_SAID = {
    Ending.GONE: Said.GONE,
    Ending.MERGED: Said.MERGED,
    Ending.RESTRICTED: Said.WITHHELD,
    Ending.NOT_FOUND: Said.NOT_FOUND,
}
_FOR_ROWS = 4  # this share of the reads is reserved for rows, however many patients are no longer listed


async def confirm_absences(run: EhrRun, capability: Capability) -> None:
    """Find what this run has missed and request it by id, within limits; what is not requested stays doubted.

    First the patients who are no longer listed, because what their charts should contain depends on whether they exist; then
    rows; then, after a full listing, some of the rows that no listing could have shown. If the EHR fails meanwhile, its answers
    are lost, and the rows stay doubted.
    """
    evidence = run.store.evidence
    readable = capability.readable_types
    reader = _Reader(run.client, in_part=bool(run.request.bulk.elements))
    left = max(_LEAST_READS, int(run.client.requests * _SHARE))
    run.show("looking for rows that are no longer listed")
    await _read_pending(run, reader)  # of a run that was killed
    await evidence.note_departed(PATIENTS)
    left -= await _ask(run, reader, readable, left - left // _FOR_ROWS)
    await evidence.note_missed()
    left -= await _ask(run, reader, readable, left)
    if run.request.kind == "sync" and run.is_full:
        await _look_after_unwitnessed(run, reader, readable, left)
    if reader.requested:
        run.notes.append(f"{how_many(reader.requested, 'row')} not listed, so requested by id")


async def _look_after_unwitnessed(run: EhrRun, reader: _Reader, readable: Sequence[str] | None, left: int) -> None:
    evidence, profile = run.store.evidence, run.request.profile
    await evidence.note_listings(run.now())
    period = timedelta(days=profile.changes.reconcile_every_d)
    fresh = timedelta(days=profile.references.fresh_d)
    most = max(0, min(left, profile.completeness.unwitnessed_reads))
    unwitnessed = await evidence.rotate(readable, most, at=run.now(), period=period, fresh=fresh)
    await _ask(run, reader, readable, left)
    if unwitnessed:
        counts = ", ".join(f"{count:,} {resource_type}" for resource_type, count in unwitnessed.items())
        run.notes.append(
            f"no listing of this connection can show {counts}; they are kept; each run reads up to "
            f"{profile.completeness.unwitnessed_reads} to check whether they still exist"
        )


async def _ask(run: EhrRun, reader: _Reader, readable: Sequence[str] | None, limit: int) -> int:
    """Read what is due, up to a limit; return the number read."""
    if limit <= 0:
        return 0
    evidence = run.store.evidence
    due = await evidence.due(readable, limit)
    missed_types = {row.resource_type for row in due} | set(await evidence.not_found_types())
    if not missed_types:
        return 0
    # a type may have no listed row that could serve as a control
    types = sorted({*missed_types, "Patient"} - reader.controlled)
    controls = await evidence.controls(types)
    reader.controlled.update(types)
    await run.store.plan((*_units(controls, UnitKind.CONTROL), *_units(due, UnitKind.CONFIRM)))
    await evidence.note_requested(due)
    await _read_pending(run, reader)
    return len(due)


def _units(rows: Iterable[AbsentRow], kind: UnitKind) -> Iterator[Unit]:
    """Return one unit per row."""
    for row in rows:
        yield Unit(
            key=unit_key(kind, row.resource_type, row.id),
            kind=kind,
            resource_type=row.resource_type,
            template=f"GET /{row.resource_type}/{{id}}",
            ids=(row.id,),
            of_chart=row.patient_id,
        )


async def _read_pending(run: EhrRun, reader: _Reader) -> None:
    try:
        await fetch_pending(
            run,
            _KINDS,
            reader.fetch,
            doing="requesting rows that are no longer listed",
            workers=run.workers,
            notice=run.notices.received,
            let_in=lambda: True,
        )
    except AuthError as error:
        run.notes.append(f"rows that are no longer listed could not be requested: {error}")
        await _leave_unanswered(run)


async def _leave_unanswered(run: EhrRun) -> None:
    """Settle what was not requested after all: a missing answer says nothing about a row."""
    pending = await run.store.pending(None, _KINDS)
    results = [UnitResult(key=unit.key, state=UnitState.SETTLED) for unit in pending]
    words = [
        Deletion(unit.resource_type, identity, Said.UNANSWERED)
        for unit in pending
        if unit.kind == UnitKind.CONFIRM
        for identity in unit.ids
    ]
    await run.store.write(Batch(results=results, deletions=words))


class _Reader:
    """Reads single rows, and takes every answer literally.

    `in_part`: the run's files have only some elements. What it reads as a control is then not stored: no later part would replace
    the whole row, which would stay at this version.
    """

    def __init__(self, client: EhrClient, *, in_part: bool) -> None:
        self._client = client
        self._in_part = in_part
        self._answers = NotFoundAnswers(client)
        self.controlled: set[str] = set()  # types of which listed rows are read in this run
        self.requested = 0

    async def fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Emit the row, or the EHR's statement about it. The unit settles either way: an unknown row is doubted, not failed."""
        (identity,) = unit.ids
        self.requested += unit.kind == UnitKind.CONFIRM
        path = f"{unit.resource_type}/{quote(identity, safe='')}"
        call = self._client.fhir_call(path, unit.template, patient=unit.of_chart)
        records = 0
        try:
            reply = await self._client.send(call)
            record = record_from(bare(reply.body), self._client.base, unit.key)
        except TerminalFetchError as error:
            answer = await self._answer_of(error, unit) if unit.kind == UnitKind.CONFIRM else None
            await emit(Fetched(deletions=self._deletions(unit, identity, answer)))
        except RequestError:
            await emit(Fetched(deletions=self._deletions(unit, identity, Said.UNANSWERED)))
        except UnreadableResourceError as error:
            bad = Quarantined(unit.resource_type, "read", str(error), reply.body)
            words = self._deletions(unit, identity, Said.UNANSWERED)
            await emit(Fetched(quarantined=[bad], deletions=words))
        else:
            records = int((record.resource_type, record.id) == (unit.resource_type, identity))
            deletions = (
                [] if records else self._deletions(unit, identity, self._led_away(unit, identity, record.resource_type))
            )
            is_kept = records and not (self._in_part and unit.kind == UnitKind.CONTROL)
            await emit(Fetched(records=[record] if is_kept else [], deletions=deletions, size=len(record.body)))
        return UnitResult(key=unit.key, state=UnitState.SETTLED, records=records)

    def _deletions(self, unit: Unit, identity: str, answer: Said | None) -> list[Deletion]:
        """Ignore a control that fails: its row was listed a moment ago."""
        return (
            [Deletion(unit.resource_type, identity, answer)]
            if answer is not None and unit.kind == UnitKind.CONFIRM
            else []
        )

    def _led_away(self, unit: Unit, identity: str, came: str) -> Said:
        """Another Patient than the requested one is a merge, which a crawl will find; anything else is no answer."""
        return Said.MERGED if unit.resource_type == came == "Patient" else Said.UNANSWERED

    async def _answer_of(self, error: TerminalFetchError, unit: Unit) -> Said | None:
        """None: the read itself is refused; the controls show whether this concerns the row or its whole type."""
        ending = await self._answers.ending(error, unit.resource_type, unit.of_chart)
        if ending is Ending.FAILED and (says_not_found(error) or may_be_a_gateways(error)):
            return Said.UNANSWERED
        if ending is Ending.RESTRICTED and unit.resource_type == "Patient":
            return Said.MERGED if refused_survivor(error, unit.ids[0], self._client.base) else Said.WITHHELD
        return _SAID.get(ending)
