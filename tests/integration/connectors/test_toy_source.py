"""A source that is no EHR, over the core alone into a real store: a folder of NDJSON files, each of them a unit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from connectors.core.drain import fetch_pending
from connectors.core.errors import FetchError
from connectors.core.pipeline import Emit, Fetched
from connectors.core.run import Progress, Run
from snapshots.record import Quarantined, Record
from snapshots.report import RunReport, RunScope
from snapshots.unit import Unit, UnitKind, UnitResult, UnitState, unit_key
from snapshots.witness import Way, WayScope
from tests.integration.connectors.kept_rows import KeptRows

pytestmark = pytest.mark.anyio
FOLDER = Way("folder", WayScope.EVERYTHING)


def planned(folder: Path) -> Iterator[Unit]:
    for file in sorted(folder.iterdir()):
        yield Unit(
            key=unit_key("file", file.name),
            kind=UnitKind.LISTING,
            resource_type=file.stem,
            template=file.name,
            detail={"path": str(file)},
            way=FOLDER,
        )


async def read(unit: Unit, emit: Emit) -> UnitResult:
    try:
        lines = (await anyio.Path(unit.detail["path"]).read_bytes()).splitlines()
    except OSError as error:
        raise FetchError(f"{unit.template} cannot be read: {error.strerror}") from error
    records, odd = [], []
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
        except ValueError:
            odd.append(Quarantined(unit.resource_type, f"line {number}", "is no JSON", line, unit.key))
            continue
        digest = hashlib.blake2b(line, digest_size=16).digest()
        records.append(Record(unit.resource_type, found["id"], None, None, None, digest, line, unit.key, way=FOLDER))
    await emit(Fetched(records=records, quarantined=odd, size=sum(map(len, lines))))
    return UnitResult(key=unit.key, state=UnitState.SETTLED, records=len(records), complete_listing=not odd)


async def sync_folder(folder: Path, kept: KeptRows) -> RunReport:
    """What such a source's use case is: a run, its units, the drain, what was missed, the end."""

    def now() -> datetime:
        return datetime.now(UTC)

    scope = RunScope(connection="folder", kind="sync", mode="folder", selection="all", types=())
    async with kept.open(scope) as store:
        progress = Progress(connection=scope.connection)
        run = Run(store=store, now=now, sleep=anyio.sleep, on_progress=lambda shown: None, progress=progress)
        if not store.planned:
            await store.plan(planned(folder))
        await fetch_pending(run, (UnitKind.LISTING,), read, doing="reading files", workers=2, let_in=lambda: True)
        await store.evidence.note_missed()
        return await store.finish(watermark=now().isoformat(), notes=run.notes)


async def test_a_folder_is_synced_and_removed_items_are_deleted_after_a_second_listing(
    store: KeptRows, tmp_path: Path
) -> None:
    devices = tmp_path / "Device.ndjson"
    devices.write_text('{"resourceType":"Device","id":"a"}\n{"resourceType":"Device","id":"b"}\n')
    first = await sync_folder(tmp_path, store)
    assert (first.status, first.new, first.mode) == ("complete", 2, "folder")
    devices.write_text('{"resourceType":"Device","id":"a"}\n')
    doubtful, sure = [await sync_folder(tmp_path, store) for _ in range(2)]
    assert (doubtful.status, doubtful.deleted, len(doubtful.holes)) == ("partial", 0, 1)
    assert (sure.status, sure.deleted) == ("complete", 1)
    assert store.live().keys() == {("Device", "a")}


async def test_a_line_that_cannot_be_read_is_a_hole_and_deletes_nothing(store: KeptRows, tmp_path: Path) -> None:
    devices = tmp_path / "Device.ndjson"
    devices.write_text('{"resourceType":"Device","id":"a"}\n{"resourceType":"Device","id":"b"}\n')
    await sync_folder(tmp_path, store)
    devices.write_text('{"resourceType":"Device","id":"a"}\nhalf a li')
    reports = [await sync_folder(tmp_path, store) for _ in range(2)]
    assert [(one.quarantined, one.deleted, len(one.holes)) for one in reports] == [(1, 0, 1)] * 2
    assert store.live().keys() == {("Device", "a"), ("Device", "b")}
