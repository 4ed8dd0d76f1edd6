"""Answers that hold something else than they seem to: misspelt lists, and pages that the EHR itself did not write."""

from __future__ import annotations

from typing import Any

from tests.acceptance.small_server import bundle, lines, row, small_server, statement
from tests.acceptance.test_shared_cases import Export
from tests.user_site import Site

PATIENT = row("Patient", "p1")
GOALS = (row("Goal", "g1", "p1"), row("Goal", "g2", "p1"))


def renamed(listed: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if name == old else name: value for name, value in listed.items()}


def test_a_night_of_misspelt_or_doubled_entries_is_a_hole_and_buries_nobody(site: Site) -> None:
    nights: list[Any] = [
        bundle(*GOALS),
        renamed(bundle(*GOALS), "entry", "Entry"),
        renamed(bundle(*GOALS), "entry", "entries"),
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Goal","id":"g1"}}],"entry":[]}',
    ]

    def answer(path: str, query: dict[str, str]) -> Any:
        rows = {f"/Goal/{goal['id']}": goal for goal in GOALS} | {"/Patient": bundle(PATIENT), "/Patient/p1": PATIENT}
        if path == "/metadata":
            return statement("Patient", "Goal")
        return nights[0] if path == "/Goal" else rows.get(path)

    with small_server() as small:
        small.answer = answer
        site.connect(small.served)
        site.sync()
        while len(nights) > 1:
            nights.pop(0)
            run = site.sync(code=3)["runs"][0]
            assert (run["status"], run["deleted"], len(run["holes"])) == ("partial", 0, 1)
    assert len(site.exported()) == 3


def test_a_night_of_a_misspelt_output_fails_and_buries_nobody(site: Site) -> None:
    with small_server() as small:
        export = Export(small)
        site.connect(small.served)
        site.sync()
        export.more = {"output": "left out", "Output": export.listed("Patient", "Condition")}
        run = site.sync(code=5)["runs"][0]
        assert "no `output` list" in run["error"]
        export.more = {"Output": export.listed("Patient")}
        run = site.sync(code=3)["runs"][0]
        assert "under a name that a manifest does not have" in run["holes"][0]["reason"]
        export.more, export.files["Patient"] = (
            {},
            lines(row("Patient", "p1"), b'{"resourceType":"Patient","id":"p2","id":"p3"}'),
        )
        run = site.sync(code=3)["runs"][0]
    assert (run["quarantined"], run["deleted"]) == (1, 0)
    assert len(site.exported()) == 4
