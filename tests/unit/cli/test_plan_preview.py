from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli.plan_preview import PreviewRuns
from cli.preview import Preview
from snapshots.beginning import utc_now
from snapshots.report import RunScope
from snapshots.unit import Unit


@pytest.mark.anyio
async def test_a_preview_whose_mode_was_to_be_chosen_says_which_one_was() -> None:
    preview = Preview(connection="site")
    scope = RunScope(connection="site", kind="sync", mode="auto", selection="all", types=())
    async with PreviewRuns(preview, datetime.now(UTC)).begin_run(scope, utc_now) as run:
        assert preview.mode == "auto"
        await run.plan([Unit(key="search:Condition:p1:", kind="search", resource_type="Condition", patient_id="p1")])
    assert (preview.mode, preview.patients) == ("crawl", 1)
