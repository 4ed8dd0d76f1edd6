"""Two contents of one version: that come together, that one way gives otherwise than another, and both at once."""

from __future__ import annotations

import itertools

import pytest

from snapshots.record import Batch, Record
from snapshots.store import Store
from snapshots.witness import Way, WayScope
from tests.integration.snapshots.stored import file, record, rows, scope, search, weighed

pytestmark = pytest.mark.anyio
P1 = search(patient="p1")
SYSTEM = Way("export system", WayScope.EVERYTHING)
STORED, RIVAL = record("a", "stored", version="1"), record("a", "rival", version="1")
NOW = "SELECT body ->> 'value' FROM resource"


@pytest.mark.parametrize("batch", [[STORED, RIVAL], [RIVAL, STORED]], ids=["in order", "turned round"])
async def test_while_both_contents_of_a_version_arrive_nothing_is_written(
    store: Store, store_url: str, batch: list[Record]
):
    await weighed(store, [RIVAL, STORED], [P1])
    report = await weighed(store, batch, [P1])
    assert (rows(store_url, NOW), report.changed, report.unchanged) == ([("stored",)], 0, 1)
    assert rows(store_url, "SELECT count(*) FROM resource_history") == [(0,)]


async def test_if_only_the_other_content_arrives_it_replaces_the_stored_one(store: Store, store_url: str):
    await weighed(store, [RIVAL, STORED], [P1])
    report = await weighed(store, [RIVAL], [P1])
    assert (rows(store_url, NOW), report.changed, report.unchanged) == ([("rival",)], 1, 0)
    both = await weighed(store, [RIVAL, STORED], [P1])
    assert (rows(store_url, NOW), both.changed) == ([("rival",)], 0)


async def test_contents_of_one_version_in_two_batches_are_rivals_too(store: Store, store_url: str):
    async with await store.begin_run(scope()) as run:
        await run.write(Batch(records=[STORED]))
        await run.write(Batch(records=[RIVAL]))
        report = await run.finish(watermark=None)
    assert (rows(store_url, NOW), report.new, report.changed) == ([("stored",)], 1, 0)
    assert rows(store_url, "SELECT count(*) FROM rival") == [(2,)]


async def test_a_new_version_forgets_its_rivals(store: Store, store_url: str):
    await weighed(store, [RIVAL, STORED], [P1])
    report = await weighed(store, [record("a", "next", version="2")], [P1])
    assert (rows(store_url, NOW), report.changed) == ([("next",)], 1)
    assert rows(store_url, "SELECT count(*) FROM rival") == [(0,)]


async def in_turns(store: Store, *contents: str, version: str | None = "1") -> list[int]:
    """A search returns the first content, an export the second, and so on; how much each changed."""
    changed = []
    for turn, content in enumerate(contents):
        if turn % 2:
            one = record("a", content, version=version, way=SYSTEM)
            report = await weighed(store, [one], [file(way=SYSTEM)], requested=scope(mode="bulk"))
        else:
            report = await weighed(store, [record("a", content, version=version)], [P1])
        changed.append(report.changed)
    return changed


async def test_two_contents_of_a_version_are_written_until_each_is_known_and_then_no_more(store: Store, store_url: str):
    assert await in_turns(store, *["searched", "exported"] * 3) == [0, 1, 1, 0, 0, 0]
    assert rows(store_url, NOW) == [("searched",)]


async def test_a_way_that_changes_the_content_of_a_version_is_believed(store: Store, store_url: str):
    changed = await in_turns(store, *["searched", "exported"] * 2, "searched", "corrected", "searched", "exported")
    assert (changed[4:], rows(store_url, NOW)) == ([0, 1, 0, 1], [("exported",)])


async def test_a_new_version_is_written_whatever_contents_the_former_one_had(store: Store, store_url: str):
    await in_turns(store, *["searched", "exported"] * 2)
    assert await in_turns(store, "exported", "searched", version="2") == [1, 1]
    assert rows(store_url, "SELECT count(*) FROM version_by_way") == [(1,)]


async def test_contents_without_a_version_are_compared_only_with_the_stored_one(store: Store, store_url: str):
    assert await in_turns(store, *["searched", "exported"] * 2, version=None) == [0, 1, 1, 1]
    assert rows(store_url, "SELECT count(*) FROM version_by_way") == [(0,)]


async def test_a_way_that_alternates_between_contents_is_believed_each_time(store: Store, store_url: str):
    await in_turns(store, *["searched", "exported"] * 2)
    assert await in_turns(store, "searched", "searched", "searched", "exported") == [0, 0, 0, 1]
    assert rows(store_url, NOW) == [("exported",)]


# --- a way that gives several contents, and another that gives one --------------------------------------------------------------


async def nights(
    store: Store, *nights: str, version: str | None = "1", ids: str = "a", together: bool = True
) -> list[int]:
    """Each night is a way and the contents that it returns of each row, one letter each: "export AB", "search C"; how much each
    changed.

    An asterisk means the row's own id. `together`: in one batch; otherwise each content in a separate batch.
    """
    changed = []
    for night in nights:
        by, contents = night.split()
        way, unit, mode = (SYSTEM, file(way=SYSTEM), "bulk") if by == "export" else (P1.way, P1, "crawl")
        given = [(one, content.replace("*", one)) for content in contents for one in ids]
        brought = [record(one, content, version=version, way=way) for one, content in given]
        async with await store.begin_run(scope(mode=mode)) as run:
            await run.plan([unit])
            for batch in [brought] if together else [[one] for one in brought]:
                await run.write(Batch(records=batch))
            changed.append((await run.finish(watermark=None)).changed)
    return changed


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "batch by batch"])
@pytest.mark.parametrize("order", ["eess", "eses", "sees", "sese", "ssee"])
async def test_once_each_way_has_sent_its_content_nothing_is_written(
    store: Store, store_url: str, order: str, together: bool
):
    given = {"e": itertools.cycle(("export AB", "export BA")), "s": itertools.repeat("search *")}
    length = len(order)
    played = [next(given[one]) for one in order * 3]
    # the search gives one of the export's contents, the other, and a third
    first = await nights(store, *played[: length + 1], ids="ABC", together=together)
    # one for a content that is new for its way, one more for the content that came when nobody gave another
    assert sum(first) <= 2 * 3
    assert set(await nights(store, *played[length + 1 :], ids="ABC", together=together)) == {0}
    assert rows(store_url, "SELECT count(*) FROM resource_history") == [(sum(first),)]


async def test_a_new_version_with_two_contents_is_written_once_per_way(store: Store, store_url: str):
    await nights(store, "export AB", "search C", "export AB", "search C")
    assert await nights(store, "export DE", "export ED", "export DE", version="2") == [1, 0, 0]
    assert await nights(store, "search F", "export DE", "search F", "export ED", version="2") == [1, 0, 0, 0]


async def test_a_content_that_no_longer_arrives_leaves_the_other_one_stored(store: Store, store_url: str):
    await nights(store, "export AB", "search A", "export AB")
    assert (await nights(store, "export B", "export B"), rows(store_url, NOW)) == ([1, 0], [("B",)])
    assert (await nights(store, "search A", "export B", "search A"), rows(store_url, NOW)) == ([0, 0, 0], [("B",)])


async def test_a_content_that_no_longer_arrives_does_not_affect_another_ways_content(store: Store, store_url: str):
    await nights(store, "export AB", "search C")
    assert (await nights(store, "export A", "search C", "export A"), rows(store_url, NOW)) == ([0, 0, 0], [("C",)])


async def test_a_content_that_a_way_sends_again_after_a_pause_is_a_change(store: Store, store_url: str):
    await nights(store, "export AB", "search C", "export A")
    assert (await nights(store, "export B", "search C"), rows(store_url, NOW)) == ([1, 0], [("B",)])


async def test_a_third_content_of_a_version_is_believed_and_the_former_two_are_forgotten(store: Store, store_url: str):
    await nights(store, "export AB", "search C")
    assert (await nights(store, "export D", "export AD", "export DA"), rows(store_url, NOW)) == ([1, 0, 0], [("D",)])
    assert await nights(store, "export AB", "search C", "export BA") == [1, 0, 0]


async def test_contents_from_two_ways_in_one_run_belong_to_their_ways(store: Store, store_url: str):
    async def night() -> int:
        async with await store.begin_run(scope()) as run:
            await run.plan([P1])
            for content, way in (("A", P1.way), ("B", SYSTEM)):
                await run.write(Batch(records=[record("a", content, version="1", way=way)]))
            return (await run.finish(watermark=None)).changed

    assert [await night() for _ in range(3)] == [0, 0, 0]
    assert await nights(store, "export B", "search A", "export B", "search A") == [0, 0, 0, 0]


async def test_unversioned_contents_that_arrive_together_write_nothing_if_another_way_sends_one(
    store: Store, store_url: str
):
    assert await nights(store, "export AB", "search A", "export BA", "search A", version=None) == [0, 1, 0, 0]
    assert await nights(store, "search C", "export AB", version=None) == [1, 1]
