"""An EHR that rewrites what says nothing makes no versions, where the site says what that is; all else is a version."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest

from snapshots.patient_terms import name_term
from snapshots.record import Batch, Record
from snapshots.referred import Attached
from snapshots.report import RunReport
from snapshots.sealed_values import Keyring
from snapshots.store import Store
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import FOOTPRINT, PATIENTS, execute, full_run, read, record, rows, scope, search

pytestmark = pytest.mark.anyio

KEYS = Keyring(current="k1", keys={"k1": b"1" * 32})
UNITS = [search(), search("DocumentReference"), read("p1")]
NOTHING: tuple[str, ...] = ()
META, BOTH = ("meta",), ("meta", "narrative")


def written(
    night: int, value: str = "1.0", *, status: str = "generated", words: str = "", kind: str = "Observation"
) -> Record:
    """A resource from an EHR that changes its meta each night."""
    meta = f'"meta":{{"versionId":"{night}","lastUpdated":"2024-01-0{night}T00:00:00Z","profile":["x"]}}'
    text = f'"text":{{"status":"{status}","div":"<div>{words}</div>"}}'
    named = '"name":[{"family":"Zappa"}],"birthDate":"1940-12-21",' if kind == "Patient" else ""
    identity = "p1" if kind == "Patient" else kind[:1].lower()
    body = f'{{"resourceType":"{kind}","id":"{identity}",{meta},{text},{named}"value":{value}}}'.encode()
    found = record(identity, body, kind=kind, version=str(night), updated=f"2024-01-0{night}T00:00:00Z", others=("p2",))
    return found._replace(way=PATIENTS, others=()) if kind == "Patient" else found


async def night(store: Store, *records: Record, ignored: tuple[str, ...] = META) -> RunReport:
    return await full_run(await store.begin_run(scope(ignored=ignored)), list(records), UNITS)


@pytest.fixture(params=[None, KEYS], ids=["plain", "encrypted"])
async def any_store(store_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with opened_store(store_url, keyring=request.param) as store:
        yield store


async def test_a_resource_with_only_rewritten_meta_is_unchanged_but_gets_the_new_version(
    any_store: Store, store_url: str
) -> None:
    await night(any_store, written(1))
    before = rows(store_url, "SELECT first_run, last_changed_run, body::text FROM resource")
    second = await night(any_store, written(2))
    assert (second.new, second.changed, second.unchanged) == (0, 0, 1)
    assert rows(store_url, "SELECT first_run, last_changed_run, body::text FROM resource") == before
    assert rows(store_url, "SELECT version_id, last_updated FROM resource") == [("2", "2024-01-02T00:00:00Z")]
    for table in ("resource_history", "member_history", "version_by_way", "rival"):
        assert rows(store_url, f"SELECT count(*) FROM {table}") == [(0,)]
    footprint = rows(store_url, FOOTPRINT)
    assert (await night(any_store, written(2))).unchanged == 1
    assert rows(store_url, FOOTPRINT) == footprint


@pytest.mark.parametrize("ignored", [NOTHING, ("narrative",)], ids=["nothing", "narrative"])
async def test_rewritten_meta_is_a_version_unless_it_is_ignored(store: Store, ignored: tuple[str, ...]) -> None:
    await night(store, written(1), ignored=ignored)
    assert (await night(store, written(2), ignored=ignored)).changed == 1


@pytest.mark.parametrize(
    "change",
    [{"value": "1.00"}, {"words": "x"}, {"status": "additional", "words": "x"}, {"status": "additional"}],
    ids=["written form", "narrative", "written narrative", "status"],
)
async def test_a_change_beside_ignored_elements_is_a_version_with_all_content(
    store: Store, store_url: str, change: dict[str, str]
) -> None:
    await night(store, written(1))
    new = written(2, **change)
    assert (await night(store, new)).changed == 1
    assert [orjson.loads(body) for (body,) in rows(store_url, "SELECT body::text FROM resource")] == [
        orjson.loads(new.body)
    ]
    assert rows(store_url, "SELECT body #>> '{meta,versionId}' FROM resource_history") == [("1",)]


async def test_a_generated_narrative_may_be_ignored_and_a_written_one_may_not(store: Store) -> None:
    await night(store, written(1))
    assert (await night(store, written(2, words="x"), ignored=BOTH)).changed == 0
    assert (await night(store, written(3, words="y", status="additional"), ignored=BOTH)).changed == 1
    assert (await night(store, written(4, words="z", status="additional"), ignored=BOTH)).changed == 1


async def test_an_unchanged_row_from_two_searches_is_counted_once_and_is_no_rival(store: Store, store_url: str) -> None:
    await night(store, written(1))
    async with await store.begin_run(scope(ignored=META)) as run:
        for _ in range(2):
            await run.write(Batch(records=[written(2)]))
        report = await run.finish(watermark=None)
    assert (report.changed, report.unchanged) == (0, 1)
    assert rows(store_url, "SELECT count(*) FROM rival") == [(0,)]


async def test_a_tombstone_that_returns_under_a_new_version_is_a_change(store: Store, store_url: str) -> None:
    await night(store, written(1))
    execute(store_url, "UPDATE resource SET deleted_at = now(), deleted_run = 1")
    assert (await night(store, written(2))).changed == 1


async def test_ignored_changes_fetch_no_documents_again_and_keep_the_patient_findable(
    any_store: Store, store_url: str
) -> None:
    attached = (Attached(place=0, content_type="text/plain", url="Binary/1", inline=False, size=None, hash=None),)
    first, second = (written(n, kind="DocumentReference")._replace(attached=attached) for n in (1, 2))
    await night(any_store, first, written(1, kind="Patient"))
    execute(store_url, "UPDATE attachment_use SET state = 'stored'")
    report = await night(any_store, second, written(2, kind="Patient"))
    assert (report.changed, report.unchanged) == (0, 2)
    assert rows(store_url, "SELECT state, version FROM attachment_use") == [("stored", 1)]
    assert await any_store.find("mercy", name_term("Zappa", None, "1940-12-21")) == ["p1"]
