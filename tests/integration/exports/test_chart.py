from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest

from exports.chart import deliver_chart
from exports.errors import PlanError
from snapshots.selection import Selection
from snapshots.store import Store
from tests.integration.exports.charts import fill, patient

pytestmark = pytest.mark.anyio

CHART = [
    {"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/a"}, "note": [{"text": "line\none"}]},
    patient("a"),
    {"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/a"}, "valueInteger": 1},
]
OTHER = [patient("b")]


async def test_a_chart_is_one_gzip_bundle_with_the_patient_first(store: Store, tmp_path: Path) -> None:
    await fill(store, [*CHART, *OTHER])
    async with store.snapshot(Selection(patients=("a",))) as snapshot:
        delivered = await deliver_chart(snapshot, tmp_path / "chart.json.gz", "bundle")
    bundle = json.loads(gzip.decompress((tmp_path / "chart.json.gz").read_bytes()))
    assert [entry["resource"] for entry in bundle["entry"]] == [CHART[1], CHART[0], CHART[2]]
    assert delivered.rows == 3
    assert (tmp_path / "chart.json.gz").stat().st_mode & 0o777 == 0o600


async def test_a_chart_on_a_stream_is_plain_ndjson(store: Store) -> None:
    await fill(store, [*CHART, *OTHER])
    stream = io.BytesIO()
    async with store.snapshot(Selection(patients=("a",))) as snapshot:
        delivered = await deliver_chart(snapshot, stream, "ndjson")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines == [CHART[1], CHART[0], CHART[2]]
    assert (delivered.rows, delivered.bytes) == (3, len(stream.getvalue()))


async def test_the_chart_of_an_unknown_patient_is_an_empty_bundle(store: Store) -> None:
    await fill(store, OTHER)
    stream = io.BytesIO()
    async with store.snapshot(Selection(patients=("nobody",))) as snapshot:
        await deliver_chart(snapshot, stream, "bundle")
    assert json.loads(stream.getvalue())["entry"] == []


async def test_a_chart_in_an_unknown_format_is_refused(store: Store) -> None:
    async with store.snapshot(Selection()) as snapshot:
        with pytest.raises(PlanError, match="allowed: ndjson, bundle"):
            await deliver_chart(snapshot, io.BytesIO(), "pdf")
