"""manifest.json: what an export wrote, from which runs, with counts and checksums.

The manifest is removed before the first file of a new export appears, and written after the last; so a manifest that exists is
true. Meanwhile the names of the former and the new files are kept beside it: these belong to exports and may be deleted.
The manifest contains nothing about the time or machine of the export, so equal requests on equal runs give equal bytes; only
`drift` also depends on what was in the folder before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from exports.delivery.destination import Destination, read_small
from exports.delivery.encryption import FORMAT, Recipients
from exports.delivery.files import DeliveredFile
from exports.errors import DestinationError
from exports.formats.file_formats import FORMATS
from exports.snapshot_port import ShownRun, Snapshot

MANIFEST_NAME = "manifest.json"
BULK_PUBLISH = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkPublishManifest"
_FORMER_NAME = ".manifest.json.chartferry-former"
# the names of an export's files: a path that somebody wrote into a manifest by hand must not lead elsewhere
_OWN_NAME = re.compile(
    r"(?:(?:[A-Za-z][A-Za-z0-9_]*/)?[A-Za-z][A-Za-z0-9_]*=[A-Za-z0-9_.%~-]+/)?"  # the folders of `partitions`
    rf"[A-Za-z][A-Za-z0-9_]*(?:\.[0-9]{{4,}})?\.(?:{'|'.join(FORMATS)})(?:\.gz|\.zst)?(?:\.age)?|datapackage\.json"
)


def manifest_content(
    *,
    version: str,
    snapshot: Snapshot,
    request: Mapping[str, Any],
    files: Sequence[DeliveredFile],
    descriptions: Sequence[DeliveredFile] = (),
    drift: Sequence[Mapping[str, Any]] = (),
    profile: Mapping[str, Any] | None = None,
    recipients: Recipients | None = None,
    masked: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the manifest as JSON with a fixed layout: which moment the files show, and which runs they have nothing of.

    `descriptions` hold no data, but say what the columns of the files are; `drift` is how they differ from the last export's.
    By `profile` the files were de-identified; for `recipients` those of `files` are encrypted. `masked`: what the reader was
    given in place of values that the store encrypts.
    """
    document: dict[str, Any] = {
        "chartferry": version,
        "as_of": instant(snapshot.as_of),
        "runs": [one.run for one in snapshot.shown],
        "states": states(snapshot.shown),
        "left_by": snapshot.left_by,  # what has changed since that run is what these files lack
        "not_included": [
            {"run": one.run, "connection": one.connection, "began": instant(one.began)} for one in snapshot.not_included
        ],
        "request": dict(request),
        "files": [_stated(file) for file in files],
    }
    if descriptions:
        document["descriptions"] = [_stated(file) for file in descriptions]
    if profile is not None:
        document["profile"] = dict(profile)
    if recipients is not None:
        document["encryption"] = {"format": FORMAT, "recipients": list(recipients.public_keys)}
    if masked is not None:
        document["masked"] = dict(masked)
    if drift:
        document["drift"] = list(drift)
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _stated(file: DeliveredFile) -> dict[str, Any]:
    return asdict(file, dict_factory=lambda pairs: {key: value for key, value in pairs if value is not None})


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


def listed_before(destination: Destination) -> frozenset[str]:
    """Return the names of the files that the destination's last export listed. A file that is not our manifest lists nothing.

    Includes what a killed export had begun to replace, and to place.

    Raises:
        DestinationError: it has a dataset that others follow, or it cannot be read.
    """
    manifest = read_small(destination, MANIFEST_NAME)
    if _document(manifest).get("manifestType") == BULK_PUBLISH:
        raise DestinationError(
            f"{destination} has a published dataset, which others follow: export into another folder"
        )
    return _listed_in(manifest) | _listed_in(read_small(destination, _FORMER_NAME))


def foreign_names(destination: Destination) -> frozenset[str]:
    """Return the names of the files that no export has written there, so that none may replace them.

    Raises:
        DestinationError: as `listed_before`.
    """
    own = listed_before(destination)
    manifest = _document(read_small(destination, MANIFEST_NAME))
    return destination.names() - own - ({MANIFEST_NAME} if "chartferry" in manifest else frozenset())


def retire_manifest(destination: Destination, names: Collection[str]) -> None:
    """Remove the old manifest, since the files that are there will no longer match it, and remember what may be cleared.

    `names` are those of the files that it listed, and of those about to be placed: so that the next export clears what this one
    leaves if it is killed.
    """
    remembered = {
        "chartferry": "an export has started to place files",
        "files": [{"path": name} for name in sorted(names)],
    }
    destination.put(_FORMER_NAME, json.dumps(remembered).encode())
    destination.remove(MANIFEST_NAME)


def described_before(destination: Destination, name: str) -> bytes | None:
    """Return a file that the destination's last export placed beside its data; None if it listed none of that name.

    Raises:
        DestinationError: it listed the file, and it cannot be read; or what `listed_before` says.
    """
    if name not in listed_before(destination):
        return None
    content = read_small(destination, name)
    if content is None:
        raise DestinationError(f"cannot read {name} in {destination}: its manifest lists the file, and it is not there")
    return content


def _listed_in(manifest: bytes | None) -> frozenset[str]:
    document = _document(manifest)
    try:
        listed = [*document["files"], *document.get("descriptions", ())] if "chartferry" in document else []
        names = [file["path"] for file in listed]
    except (KeyError, TypeError):
        return frozenset()
    return frozenset(name for name in names if isinstance(name, str) and _OWN_NAME.fullmatch(name))


def _document(manifest: bytes | None) -> dict[str, Any]:
    """Return the document; an empty one if it is not a JSON object."""
    try:
        document = json.loads(manifest or b"")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def clear_former(destination: Destination, names: Collection[str]) -> None:
    """Delete files of the previous export, and its manifest."""
    for name in (*sorted(names), _FORMER_NAME):
        destination.remove(name)
