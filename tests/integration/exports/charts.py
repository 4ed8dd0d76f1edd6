"""Charts in a store, and the files that an export makes of them, read back."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from exports.delivery.destination import LocalFolder
from exports.plan import ExportRequest
from exports.run import export
from snapshots.record import Batch, Record
from snapshots.report import RunScope
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.unit import Unit, UnitKind, UnitResult, UnitState
from snapshots.witness import Deletion, Said


def record(resource: dict[str, Any]) -> Record:
    body = json.dumps(resource).encode()
    patient = resource["id"] if resource["resourceType"] == "Patient" else None
    reference = resource.get("subject", resource.get("patient", {})).get("reference", "")
    if reference.startswith("Patient/"):
        patient = reference.removeprefix("Patient/")
    digest = hashlib.blake2b(body, digest_size=16).digest()
    return Record(resource["resourceType"], resource["id"], patient, None, None, digest, body)


async def fill(store: Store, resources: Iterable[dict[str, Any]], connection: str = "site") -> None:
    scope = RunScope(connection=connection, kind="sync", mode="crawl", selection="all", types=())
    run = await store.begin_run(scope)
    try:
        await run.plan([Unit(key="file:1", kind=UnitKind.FILE, resource_type="*")])
        settled = UnitResult(key="file:1", state=UnitState.SETTLED)
        await run.write(Batch(records=[record(resource) for resource in resources], results=[settled]))
        await run.finish(watermark=None)
    finally:
        await run.aclose()


def patient(id_: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id_, **more}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def table_header(path: Path) -> list[str]:
    return next(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode(), newline="")))


def table_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode(), newline="")))


def view_file(folder: Path, name: str, *columns: dict[str, Any], resource: str = "Patient", **more: Any) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"resource": resource, "name": name, "select": [{"column": list(columns)}], **more}))
    return str(path)


async def remove(store: Store, *ids: str, connection: str = "site") -> None:
    scope = RunScope(connection=connection, kind="sync", mode="crawl", selection="all", types=())
    async with await store.begin_run(scope) as run:
        await run.write(Batch(deletions=[Deletion("Patient", id_, Said.DELETED) for id_ in ids]))
        await run.finish(watermark=None)


async def exported_files(store: Store, out: Path, *formats: str, views: tuple[str, ...] = ()) -> dict[str, bytes]:
    async with store.snapshot(Selection()) as snapshot:
        await export(ExportRequest(out=LocalFolder(out), formats=formats, views=views), snapshot)
    return {name: (out / name).read_bytes() for name in names_in(out) - {"manifest.json"}}
