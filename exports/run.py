"""The use case: one export of one snapshot into one folder.

Reads like the paragraph "Export" of the architecture: request, plan, one snapshot, bytes out, gzip, part file, rename, manifest.
The snapshot is opened and closed by the caller, who also chose its connections and patients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from exports.catalogue import LoadedView, builtin_names, load_view
from exports.compiler import compile_view
from exports.delivery.files import AtomicFile, DeliveredFile, output_folder
from exports.delivery.manifest import manifest_content, remove_manifest, write_manifest
from exports.formats.csv_table import csv_rows, data_error, is_data_error
from exports.formats.ndjson import ndjson_rows
from exports.plan import ExportRequest, PlannedFile, plan_export
from exports.snapshot_port import OpenRun, RowChunks, Snapshot
from snapshots.errors import StoreQueryError


@dataclass(frozen=True)
class Progress:
    """How far a file is: rows and uncompressed bytes so far; `expected_rows` None where only the end tells."""

    file: str
    rows: int
    bytes: int
    expected_rows: int | None
    done: bool


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote. `rows` is the sum over all files; nothing of the runs `not_included` is in them."""

    out: Path
    files: tuple[DeliveredFile, ...]
    rows: int
    as_of: datetime
    runs: tuple[int, ...]
    not_included: tuple[OpenRun, ...]


async def export(
    request: ExportRequest, snapshot: Snapshot, *, on_progress: Callable[[Progress], None] = lambda _: None
) -> ExportResult:
    """Write the files of a request and their manifest; equal requests on equal runs give equal bytes.

    Nothing is written before every view has been compiled. Files of an earlier export with the same names are replaced one by
    one; while that goes on there is no manifest.

    Raises:
        ViewError: a view that does not exist or is wrong.
        ViewDataError: data that does not fit a view.
        PlanError: the request contradicts itself.
        DestinationError: the folder cannot be written.
    """
    available = dict(await snapshot.present())
    views = _views(request)
    files = plan_export(request, available, views)
    for planned in files:
        if planned.view is not None:
            compile_view(planned.view.definition, snapshot.source(planned.resource_type))
    with output_folder(request.out) as folder:
        remove_manifest(folder)
        delivered = tuple([await _deliver(planned, folder, snapshot, available, on_progress) for planned in files])
        content = manifest_content(
            version=version("chartferry"),
            as_of=snapshot.as_of,
            runs=snapshot.runs,
            not_included=snapshot.not_included,
            request=_told(request, files),
            files=delivered,
        )
        write_manifest(folder, content)
    rows = sum(file.rows for file in delivered)
    return ExportResult(request.out, delivered, rows, snapshot.as_of, snapshot.runs, snapshot.not_included)


def _views(request: ExportRequest) -> list[LoadedView]:
    if "csv" not in request.wanted_formats and not request.views:
        return []
    return [load_view(name) for name in request.views or builtin_names()]


async def _deliver(
    planned: PlannedFile,
    folder: Path,
    snapshot: Snapshot,
    available: dict[str, int | None],
    on_progress: Callable[[Progress], None],
) -> DeliveredFile:
    expected = available.get(planned.resource_type) if planned.view is None else None
    with AtomicFile(folder / planned.name, compress="fast") as file:
        chunks = _rows(planned, snapshot)
        try:
            async for chunk in chunks:
                file.write(chunk)
                on_progress(Progress(planned.name, chunks.rows, file.uncompressed_bytes, expected, done=False))
        except StoreQueryError as error:
            if planned.view is None or not is_data_error(error):
                raise
            raise data_error(planned.view.name, error) from None  # the cause may quote a resource
        delivered = file.commit(kind=planned.kind, rows=chunks.rows)
    if planned.view is None and len(snapshot.connections) > 1:
        parts = dict(zip(snapshot.connections, chunks.rows_by_query, strict=True))
        delivered = replace(delivered, rows_by_connection=parts)
    on_progress(Progress(planned.name, chunks.rows, delivered.uncompressed_bytes, chunks.rows, done=True))
    return delivered


def _rows(planned: PlannedFile, snapshot: Snapshot) -> RowChunks:
    if planned.view is None:
        return ndjson_rows(snapshot, planned.resource_type)
    return csv_rows(snapshot, planned.view.definition)


def _told(request: ExportRequest, files: tuple[PlannedFile, ...]) -> dict[str, Any]:
    """The request as the manifest tells it: no path of this machine, and patients only as a count and a checksum."""
    patients = None
    if request.patients is not None:
        ids = sorted(set(request.patients))
        patients = {"count": len(ids), "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
    return {
        "formats": list(request.wanted_formats),
        "types": sorted(set(request.types)),
        "views": [{"name": file.view.name, "sha256": file.view.digest} for file in files if file.view is not None],
        "connections": sorted(set(request.connections)),
        "patients": patients,
    }
