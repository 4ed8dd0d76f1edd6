"""manifest.json: what an export wrote, of which runs, with counts and checksums.

Removed before the first file is touched and written after the last: where there is one, it is true. It holds nothing of the
moment or machine of the export, so equal requests on equal runs give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exports.delivery.files import AtomicFile, DeliveredFile, destination_errors
from exports.snapshot_port import OpenRun

MANIFEST_NAME = "manifest.json"


def manifest_content(
    *,
    version: str,
    as_of: datetime,
    runs: Sequence[int],
    not_included: Sequence[OpenRun],
    request: Mapping[str, Any],
    files: Sequence[DeliveredFile],
) -> bytes:
    """The manifest as JSON with a fixed layout. `runs` have ended; nothing of those `not_included` is in the files."""
    document = {
        "chartferry": version,
        "as_of": instant(as_of),
        "runs": list(runs),
        "not_included": [
            {"run": one.run, "connection": one.connection, "began": instant(one.began)} for one in not_included
        ],
        "request": dict(request),
        "files": [{key: value for key, value in asdict(file).items() if value is not None} for file in files],
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def instant(moment: datetime) -> str:
    """A FHIR instant in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def remove_manifest(folder: Path) -> None:
    """Take the old manifest away: from now on the folder's files are not what it says."""
    with destination_errors(folder):
        (folder / MANIFEST_NAME).unlink(missing_ok=True)


def write_manifest(folder: Path, content: bytes) -> None:
    """Put the manifest in its place, whole."""
    with AtomicFile(folder / MANIFEST_NAME, compress="no") as file:
        file.write(content)
        file.commit(kind="manifest", rows=0)
