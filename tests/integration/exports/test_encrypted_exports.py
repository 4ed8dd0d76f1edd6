"""Exports whose files are encrypted for somebody: what only they can read, and what everybody can."""

from __future__ import annotations

import json
from pathlib import Path

import pyrage
import pytest

from exports.delivery.destination import LocalFolder
from exports.delivery.encryption import recipients_of
from exports.plan import ExportRequest
from exports.run import export
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, patient

pytestmark = pytest.mark.anyio
QUILL = {"name": [{"family": "Quill"}], "birthDate": "1974-05-21", "gender": "female"}


async def test_files_of_every_format_decrypt_to_a_plain_export_and_nothing_else_names_a_patient(
    store: Store, tmp_path: Path
) -> None:
    await fill(store, [patient(f"zebra{at}", **QUILL) for at in range(3_000)])
    await fill(store, [{"resourceType": "Device", "id": "d1"}])
    identity = pyrage.x25519.Identity.generate()
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    for out, recipients in ((plain, None), (sealed, recipients_of([str(identity.to_public())]))):
        request = ExportRequest(
            out=LocalFolder(out),
            formats=("ndjson", "csv", "parquet"),
            views=("patient",),
            where=("Patient.birthDate = @1974-05-21",),
            patients=("zebra1",),
            part_size=10**5,
            recipients=recipients,
        )
        async with store.snapshot(Selection()) as snapshot:
            await export(request, snapshot)
    manifest = json.loads((sealed / "manifest.json").read_bytes())
    files = {file["path"]: file for file in manifest["files"]}
    assert len(files) > 4, "some are in parts"
    assert all(path.endswith(".age") for path in files)
    for path in files:
        content = (sealed / path).read_bytes()
        assert pyrage.decrypt(content, [identity]) == (plain / path.removesuffix(".age")).read_bytes()
    readable = {path.name for path in sealed.iterdir()} - files.keys()
    assert readable == {"manifest.json", "datapackage.json", "data_dictionary.csv"}
    beside = b"".join((sealed / name).read_bytes() for name in readable)
    assert not [word for word in (b"Quill", b"1974-", b"zebra") if word in beside]  # a checksum may have the digits
    assert manifest["encryption"] == {"format": "age-encryption.org/v1", "recipients": [str(identity.to_public())]}
    assert manifest["request"]["patients"] == {"count": 1}, "a few ids could be guessed by their checksum"
    package = json.loads((sealed / "datapackage.json").read_bytes())
    assert {path for one in package["resources"] for path in one["path"]} <= files.keys()
