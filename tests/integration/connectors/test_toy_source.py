"""A source that is no EHR, over the core alone into a real store: a folder of NDJSON files, each of them a unit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from cli.plan_preview import PreviewRuns
from cli.plan_report import show_plans
from cli.preview import Preview
from cli.render import run_as_json, run_row
from connectors.core.drain import fetch_pending
from connectors.core.errors import ConnectorError, FetchError
from connectors.core.pipeline import Emit, Fetched
from connectors.core.run import Progress, Run
from snapshots.record import Quarantined, Record
from snapshots.report import RunReport, RunScope
from snapshots.unit import Unit, UnitKind, UnitResult, UnitState, unit_key
from snapshots.witness import Way, WayScope
from tests.integration.connectors.kept_rows import KeptRows

pytestmark = pytest.mark.anyio
FOLDER = Way("folder", WayScope.EVERYTHING)
FEED = Way("feed", WayScope.NOTHING)
OpenRun = Callable[[RunScope, Callable[[], datetime]], AbstractAsyncContextManager[Any]]


def now() -> datetime:
    return datetime.now(UTC)


def planned(folder: Path, *, of_types: bool = True) -> Iterator[Unit]:
    for file in sorted(folder.iterdir()):
        yield Unit(
            key=unit_key("file", file.name),
            kind=UnitKind.LISTING,
            resource_type=file.stem if of_types else "*",
            template=file.name,
            detail={"path": str(file)},
            way=FOLDER if of_types else FEED,
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
        records.append(
            Record(found["resourceType"], found["id"], None, None, None, digest, line, unit.key, way=unit.way)
        )
    await emit(Fetched(records=records, quarantined=odd, size=sum(map(len, lines))))
    return UnitResult(key=unit.key, state=UnitState.SETTLED, records=len(records), complete_listing=not odd)


async def sync_folder(folder: Path, open_run: OpenRun, *, of_types: bool = True) -> RunReport:
    """What such a source's use case is: a run, its units, the drain, what was missed, the end."""
    scope = RunScope(connection="folder", kind="sync", mode="folder", selection="all", types=(), by_patient=False)
    async with open_run(scope, now) as store:
        progress = Progress(connection=scope.connection)
        run = Run(store=store, now=now, sleep=anyio.sleep, on_progress=lambda shown: None, progress=progress)
        if not store.planned:
            await store.plan(planned(folder, of_types=of_types))
        try:
            await fetch_pending(run, (UnitKind.LISTING,), read, doing="reading files", workers=2, let_in=lambda: True)
        except ConnectorError as error:
            return await store.fail(reason=str(error), notes=run.notes)
        await store.evidence.note_missed()
        return await store.finish(watermark=now().isoformat(), notes=run.notes)


async def test_a_folder_is_synced_and_removed_items_are_deleted_after_a_second_listing(
    store: KeptRows, tmp_path: Path
) -> None:
    devices = tmp_path / "Device.ndjson"
    devices.write_text('{"resourceType":"Device","id":"a"}\n{"resourceType":"Device","id":"b"}\n')
    first = await sync_folder(tmp_path, store.open)
    assert (first.status, first.new, first.mode) == ("complete", 2, "folder")
    devices.write_text('{"resourceType":"Device","id":"a"}\n')
    doubtful, sure = [await sync_folder(tmp_path, store.open) for _ in range(2)]
    assert (doubtful.status, doubtful.deleted, len(doubtful.holes)) == ("partial", 0, 1)
    assert (sure.status, sure.deleted) == ("complete", 1)
    assert store.live().keys() == {("Device", "a")}


async def test_a_line_that_cannot_be_read_is_a_hole_and_deletes_nothing(store: KeptRows, tmp_path: Path) -> None:
    devices = tmp_path / "Device.ndjson"
    devices.write_text('{"resourceType":"Device","id":"a"}\n{"resourceType":"Device","id":"b"}\n')
    await sync_folder(tmp_path, store.open)
    devices.write_text('{"resourceType":"Device","id":"a"}\nhalf a li')
    reports = [await sync_folder(tmp_path, store.open) for _ in range(2)]
    assert [(one.quarantined, one.deleted, len(one.holes)) for one in reports] == [(1, 0, 1)] * 2
    assert store.live().keys() == {("Device", "a"), ("Device", "b")}


async def test_a_source_without_patients_counts_none_and_claims_each_type_that_it_names(
    store: KeptRows, tmp_path: Path
) -> None:
    (tmp_path / "Device.ndjson").write_text('{"resourceType":"Device","id":"a"}\n')
    (tmp_path / "Location.ndjson").write_text("")
    report = await sync_folder(tmp_path, store.open)
    shown = run_as_json(report)
    assert (report.status, report.patients, shown["patients"]) == ("complete", None, None)
    assert run_row(report)[4] is None  # an empty cell: 0 would say that it looked for patients
    up_to = store.watermarks()["Device"]
    assert shown["claims"] == [
        {"way": "folder", "type": kind, "patients": None, "up_to": up_to, "full": True}
        for kind in ("Device", "Location")
    ]


async def test_a_source_without_types_claims_all_that_it_has(store: KeptRows, tmp_path: Path) -> None:
    (tmp_path / "messages.ndjson").write_text(
        '{"resourceType":"Device","id":"a"}\n{"resourceType":"Location","id":"b"}\n'
    )
    report = await sync_folder(tmp_path, store.open, of_types=False)
    (claim,) = report.claims
    assert (claim.way, claim.resource_type, claim.up_to) == ("feed", None, store.watermarks()["*"])
    assert report.resources == {"Device": 1, "Location": 1}
    (tmp_path / "more.ndjson").write_text("half a li")
    kept = dict(store.watermarks())
    report = await sync_folder(tmp_path, store.open, of_types=False)
    assert (report.status, store.watermarks()) == ("partial", kept)
    assert store.live().keys() == {("Device", "a"), ("Location", "b")}


async def test_a_plan_of_a_source_without_patients_shows_its_units_and_reads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Device", "Location"):
        (tmp_path / f"{name}.ndjson").write_text("not read")
    preview = Preview(connection="folder")
    await sync_folder(tmp_path, PreviewRuns(preview, now()).begin_run)
    assert show_plans([preview], json=False) == 0
    assert capsys.readouterr().out == "folder: folder, 2 units\n  Device 1, Location 1\n"
