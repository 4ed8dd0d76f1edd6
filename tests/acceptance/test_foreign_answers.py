"""Answers that hold something else than they seem to: misspelt lists, and pages that the EHR itself did not write."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.fhir.not_found import NOBODYS_ID
from tests.acceptance.changing_export import Export
from tests.acceptance.small_server import bundle, lines, row, small_server, statement
from tests.user_site import Site

PATIENT = row("Patient", "p1")
GOALS = (row("Goal", "g1", "p1"), row("Goal", "g2", "p1"))


def renamed(listed: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if name == old else name: value for name, value in listed.items()}


def test_misspelt_or_duplicated_entries_are_a_hole_and_delete_nothing(site: Site) -> None:
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


def test_a_patient_that_the_store_refuses_is_a_hole_of_the_listing(site: Site) -> None:
    poison = row("Patient", "p2", name=[{"family": "a\x00b"}])

    def answer(path: str, query: dict[str, str]) -> Any:
        found = {"/metadata": statement("Patient", "Goal"), "/Patient": bundle(PATIENT, poison), "/Goal": bundle()}
        return found.get(path, PATIENT if path == "/Patient/p1" else None)

    with small_server() as small:
        small.answer = answer
        site.connect(small.served)
        run = site.sync(code=3)["runs"][0]
    assert (run["quarantined"], [hole["reason"] for hole in run["holes"]]) == (
        1,
        ["1 entry could not be read: see quarantine"],
    )
    assert [claim["type"] for claim in run["claims"]] == ["Goal"]


def test_an_answer_without_a_bundle_is_reported_with_its_codes_and_the_next_step(site: Site) -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "exception"}]}
    with small_server() as small:
        small.answer = lambda path, query: statement("Patient") if path == "/metadata" else outcome
        site.connect(small.served)
        run = site.sync(code=5)["runs"][0]
    assert "not a Bundle but OperationOutcome (issue codes exception); sync again" in run["error"]


def test_a_misspelt_output_fails_the_run_and_deletes_nothing(site: Site) -> None:
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


def test_rows_in_a_file_without_a_type_are_not_missed(site: Site) -> None:
    with small_server() as small:
        export = Export(small)
        site.connect(small.served)
        site.sync()
        files = export.listed("Patient", "Condition")
        export.more = {"output": [{"url": files[0]["url"]}, files[1]]}
        assert site.sync()["runs"][0]["notes"] == []
        export.more = {"output": [{"url": files[0]["url"]}]}
        assert "earlier exports had Condition, but" in str(site.sync()["runs"][0]["notes"])


PAGE = (404, b"<!DOCTYPE html><html><body>404 Not Found</body></html>", {"Content-Type": "text/html"})
FIREWALL = (403, b"<html><head><title>Request Rejected</title></head></html>", {"Content-Type": "text/html"})
GATEWAY = (404, {"message": "no Route matched with those values"}, {"Content-Type": "application/json"})
OUTCOME = (410, {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "deleted"}]}, {})
EMPTY = (404, None, {})


class Night:
    """A server of two Goals, of which it lists `listed`; what it does not list, and an id that nobody has, it reads as said."""

    def __init__(self, small: Any) -> None:
        self.listed: tuple[Any, ...] = GOALS
        self.unlisted: Any = None
        self.never: Any = EMPTY
        small.answer = self.answer

    def answer(self, path: str, query: dict[str, str]) -> Any:
        if path == "/metadata":
            return statement("Patient", "Goal")
        if path == "/Patient":
            return bundle(PATIENT)
        if path == "/Goal":
            return bundle(*self.listed)
        there = {f"/Goal/{goal['id']}": goal for goal in self.listed} | {"/Patient/p1": PATIENT}
        return there.get(path) or (self.never if NOBODYS_ID in path else self.unlisted)


def test_only_the_ehrs_own_answer_says_that_a_row_is_gone_or_withheld(site: Site) -> None:
    with small_server() as small:
        night = Night(small)
        name = site.connect(small.served)
        site.sync()
        night.listed = GOALS[:1]
        for answer, never in ((PAGE, PAGE), (FIREWALL, PAGE), (GATEWAY, EMPTY), (EMPTY, OUTCOME), (EMPTY, PAGE)):
            night.unlisted, night.never = answer, never
            run = site.sync(code=3)["runs"][0]
            assert (run["status"], run["deleted"], len(run["holes"])) == ("partial", 0, 1)
            proof = site.run("prove", name, "--all", "--json").json
            assert "no longer at the EHR" not in str(proof)
            assert "withheld" not in str(run["notes"])
        night.unlisted, night.never = EMPTY, EMPTY
        small.paths.clear()
        run = site.sync()["runs"][0]
        assert small.paths.count(f"/Goal/{NOBODYS_ID}") == 1
    assert (run["status"], run["deleted"]) == ("complete", 1)


def test_an_outcome_confirms_a_deletion_without_a_further_request(site: Site) -> None:
    with small_server() as small:
        night = Night(small)
        site.connect(small.served)
        site.sync()
        night.listed, night.unlisted = GOALS[:1], OUTCOME
        run = site.sync()["runs"][0]
        assert not any(NOBODYS_ID in path for path in small.paths)
    assert (run["status"], run["deleted"]) == ("complete", 1)


@pytest.mark.parametrize("page", [PAGE, FIREWALL], ids=["404", "403"])
def test_a_gateways_page_in_place_of_a_patient_a_reference_or_a_document_is_a_hole(site: Site, page: Any) -> None:
    goal = row("Goal", "g1", "p1", expressedBy={"reference": "Practitioner/d1"})
    paper = row(
        "DocumentReference", "r1", "p1", content=[{"attachment": {"url": "Binary/b1", "contentType": "text/plain"}}]
    )

    def answer(path: str, query: dict[str, str]) -> Any:
        lists = {"/Goal": bundle(goal), "/DocumentReference": bundle(paper)}
        if path == "/metadata":
            return statement("Patient", "Goal", "DocumentReference", "Practitioner")
        return lists.get(path) or {"/Patient/p1": PATIENT}.get(path) or page

    with small_server() as small:
        small.answer = answer
        (site.folder / "cohort.csv").write_text("p1\np2\n")
        name = site.connect(small.served, cohort="file:cohort.csv")
        run = site.sync(code=3)["runs"][0]
        pulled = site.run("pull", name, "p2", "--out", "chart.ndjson")
    assert {hole["type"] for hole in run["holes"]} == {"DocumentReference", "Patient", "Practitioner"}
    assert run["deleted"] == 0
    assert pulled.code not in (0, 4)
    assert "does not know this patient" not in pulled.stdout + pulled.stderr
    assert "nothing about this patient; see the holes above" in pulled.stdout + pulled.stderr


def test_a_gateways_page_at_the_status_url_keeps_the_job_for_the_next_sync(site: Site) -> None:
    with small_server() as small:
        export = Export(small)
        away = [True]

        def answer(path: str, query: dict[str, str]) -> Any:
            return PAGE if path == "/status" and away[0] else export.answer(path, query)

        small.answer = answer
        site.connect(small.served)
        run = site.sync(code=5)["runs"][0]
        away.clear(), away.append(False)
        healed = site.sync()["runs"][0]
    assert "runs discard" in run["error"]
    assert small.paths.count("/Patient/$export") == 1
    assert (healed["id"], healed["status"]) == (run["id"], "complete")
