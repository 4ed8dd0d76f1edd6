"""manifest.json: what an export wrote, from which runs, with counts and checksums.

The manifest is removed before the first file of a new export appears, and written after the last; so a manifest that exists is
true. Meanwhile the previous manifest is kept under another name: the files that it lists belong to exports and may be deleted.
The manifest contains nothing about the time or machine of the export, so equal requests on equal runs give equal bytes; only
`drift` also depends on what was in the folder before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exports.delivery.files import AtomicFile, DeliveredFile, destination_errors
from exports.errors import DestinationError
from exports.formats.file_formats import FORMATS
from exports.snapshot_port import OpenRun, ShownRun

MANIFEST_NAME = "manifest.json"
BULK_PUBLISH = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkPublishManifest"
_FORMER_NAME = ".manifest.json.chartferry-former"
# the names of an export's files: a path that somebody wrote into a manifest by hand must not lead elsewhere
_OWN_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_]*\.(?:{'|'.join(FORMATS)})(?:\.gz|\.zst)?|datapackage\.json")


def manifest_content(
    *,
    version: str,
    as_of: datetime,
    runs: Sequence[ShownRun],
    not_included: Sequence[OpenRun],
    request: Mapping[str, Any],
    files: Sequence[DeliveredFile],
    descriptions: Sequence[DeliveredFile] = (),
    drift: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """Return the manifest as JSON with a fixed layout. `runs` have ended; the files have nothing of those in `not_included`.

    `descriptions` hold no data, but say what the columns of the files are; `drift` is how they differ from the last export's.
    """
    document: dict[str, Any] = {
        "chartferry": version,
        "as_of": instant(as_of),
        "runs": [one.run for one in runs],
        "states": states(runs),
        "not_included": [
            {"run": one.run, "connection": one.connection, "began": instant(one.began)} for one in not_included
        ],
        "request": dict(request),
        "files": [_stated(file) for file in files],
    }
    if descriptions:
        document["descriptions"] = [_stated(file) for file in descriptions]
    if drift:
        document["drift"] = list(drift)
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _stated(file: DeliveredFile) -> dict[str, Any]:
    return {key: value for key, value in asdict(file).items() if value is not None}


def states(runs: Sequence[ShownRun]) -> list[dict[str, Any]]:
    """Return how each run ended: the files of a failed one hold what it had fetched over what earlier ones left."""
    return [
        {
            "run": one.run,
            "connection": one.connection,
            "kind": one.kind,
            "state": one.state,
            "last_complete": one.last_complete,
        }
        for one in runs
    ]


def instant(moment: datetime) -> str:
    """Return a FHIR instant in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def retire_manifest(folder: Path) -> frozenset[str]:
    """Remove the old manifest, since the folder's files will no longer match it; return the names of the files that it listed.

    Includes the files of a manifest that a killed export had removed. A file that is not our manifest lists nothing.

    Raises:
        DestinationError: the folder has a dataset that others follow.
    """
    manifest, former = folder / MANIFEST_NAME, folder / _FORMER_NAME
    if _read(manifest).get("manifestType") == BULK_PUBLISH:
        raise DestinationError(f"{folder} has a published dataset, which others follow: export into another folder")
    listed = _listed_in(manifest) | _listed_in(former)
    with destination_errors(manifest), suppress(FileNotFoundError):
        manifest.replace(former)
    return listed


def described_before(folder: Path, name: str) -> bytes | None:
    """Return a file that the folder's last export placed beside its data; None if it listed none of that name.

    Raises:
        DestinationError: it listed the file, and it cannot be read.
    """
    if not any(name in _listed_in(folder / one) for one in (MANIFEST_NAME, _FORMER_NAME)):
        return None
    with destination_errors(folder / name, "read"):
        return (folder / name).read_bytes()


def _listed_in(manifest: Path) -> frozenset[str]:
    document = _read(manifest)
    try:
        listed = [*document["files"], *document.get("descriptions", ())] if "chartferry" in document else []
        names = [file["path"] for file in listed]
    except (KeyError, TypeError):
        return frozenset()
    return frozenset(name for name in names if isinstance(name, str) and _OWN_NAME.fullmatch(name))


def _read(manifest: Path) -> dict[str, Any]:
    """Return the document; an empty one for what is no JSON object."""
    try:
        document = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def clear_former(folder: Path, names: Collection[str]) -> None:
    """Delete files of the previous export, and its manifest."""
    for name in (*sorted(names), _FORMER_NAME):
        with destination_errors(folder / name):
            (folder / name).unlink(missing_ok=True)


def write_manifest(folder: Path, content: bytes) -> None:
    """Write the manifest, complete."""
    with AtomicFile(folder / MANIFEST_NAME, compress="no") as file:
        file.write(content)
        file.commit(kind="manifest", rows=0)
