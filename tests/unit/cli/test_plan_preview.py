from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli.plan_preview import PlanReachedError, PreviewRuns
from cli.preview import Preview
from snapshots.beginning import utc_now
from snapshots.report import RunScope
from snapshots.unit import Unit, UnitKind

SCOPE = RunScope(connection="site", kind="sync", mode="auto", selection="all", types=())
pytestmark = pytest.mark.anyio


async def test_a_preview_shows_the_mode_that_was_chosen() -> None:
    preview = Preview(connection="site")
    async with PreviewRuns(preview, datetime.now(UTC)).begin_run(SCOPE, utc_now) as run:
        assert preview.mode == "auto"
        await run.plan(
            [Unit(key="search:Condition:p1:", kind=UnitKind.SEARCH, resource_type="Condition", patient_id="p1")]
        )
    assert (preview.mode, preview.patients) == ("crawl", 1)


async def test_a_crawls_preview_stops_before_its_first_search_without_an_error() -> None:
    preview = Preview(connection="site")
    async with PreviewRuns(preview, datetime.now(UTC)).begin_run(SCOPE, utc_now) as run:
        assert await run.pending(kinds=(UnitKind.NO_FILE,)) == []
        with pytest.raises(PlanReachedError) as reached:
            await run.pending(kinds=(UnitKind.SEARCH, UnitKind.READ))
        await run.fail(reason=str(reached.value), notes=["listed in full"])
    assert (preview.error, preview.notes) == (None, ("listed in full",))


async def test_a_patient_missing_from_an_export_does_not_make_it_a_crawl() -> None:
    preview = Preview(connection="site")
    async with PreviewRuns(preview, datetime.now(UTC)).begin_run(SCOPE, utc_now) as run:
        await run.plan([Unit(key="u", kind=UnitKind.COHORT, resource_type="Patient", patient_id="p1")])
        assert await run.jobs.never_stored(["p1"]) == ["p1"]
    assert (preview.mode, preview.patients) == ("auto", 0)
