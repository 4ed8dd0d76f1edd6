"""The mock is as strict as Epic (vendor-facts 1.12): what a naive client runs into, and what a careful one gets."""

from __future__ import annotations

import httpx
import pytest

from tests.fix_ehr import ServeEhr
from tests.integration.mocks.raw_client import JSON, ask_token, client, export, get, ids, next_link, pages

VITALS = "Observation?patient=pat-1&category=vital-signs"
LABS = "Observation?patient=pat-1&category=laboratory"


def number(answer: httpx.Response) -> str:
    return answer.json()["issue"][-1]["details"]["coding"][0]["code"]


def test_an_unknown_type_and_a_system_export_get_the_web_servers_html_404(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with client(ehr) as http:
        for path in ("Nonsense?patient=pat-1", "$export", "Patient/$export"):
            answer = http.get(path, headers={"Prefer": "respond-async"})
            assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
            assert b"File or directory not found" in answer.content


@pytest.mark.parametrize("accept", ["*/*", "text/plain"])
def test_a_client_that_does_not_ask_for_json_gets_xml(serve_ehr: ServeEhr, accept: str) -> None:
    ehr = serve_ehr("epic")
    with client(ehr) as http:
        answer = http.get(VITALS, headers={"Accept": accept})
    assert answer.content.startswith(b"<?xml")


def test_a_refused_token_gets_two_quotes_and_a_header(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    answer = get(f"{ehr.base_url}/{VITALS}", headers={"Accept": JSON, "Authorization": "Bearer old"})
    assert (answer.status_code, answer.content) == (401, b'""')
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_searches_without_what_epic_requires_are_refused_with_its_numbers(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with client(ehr) as http:
        without_category = http.get("Observation?patient=pat-1")
        without_patient = http.get("Condition")
        allergies = http.get("AllergyIntolerance")
        everyone = http.get("Patient?nickname=x")
        two = http.get("Condition?patient=pat-1,pat-2")
        broken = http.get("Observation?patient=pat-1&category=procedure")
        by_code = http.get("Observation?patient=pat-1&code=8867-4")
    assert (without_category.status_code, number(without_category)) == (400, "59108")
    assert (without_patient.status_code, number(without_patient)) == (400, "59108")
    assert (allergies.status_code, allergies.content) == (403, b"")
    assert (everyone.status_code, number(everyone)) == (400, "59159")
    assert everyone.json()["issue"][0]["diagnostics"].startswith("Unknown parameter: NICKNAME.")
    assert (two.status_code, number(two)) == (400, "4112")
    assert (broken.status_code, number(broken)) == (500, "59177")
    assert by_code.status_code == 200


def test_total_is_the_size_of_the_page_and_next_is_a_session_that_comes_first(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with client(ehr) as http:
        first = http.get(LABS + "&_count=40").json()
        again = [http.get(str(next_link(first))).json() for _ in range(2)]
    assert first["total"] == 40
    assert [link["relation"] for link in first["link"]] == ["next", "self"]
    assert "?sessionID=16-" in str(next_link(first))
    assert "patient" not in str(next_link(first))
    assert ids(again[:1]) == ids(again[1:]), "a page can be asked for again"


def test_an_expired_session_is_refused_with_4113(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", session_life_s=0)
    with client(ehr) as http:
        first = http.get(LABS + "&_count=40").json()
        answer = http.get(str(next_link(first)))
    assert (answer.status_code, number(answer)) == (400, "4113")


def test_a_page_can_be_empty_and_still_have_a_next_link(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", empty_pages=True)
    with client(ehr) as http:
        found = pages(http, LABS + "&_count=40")
    assert [page["total"] for page in found] == [40, 0, 40, 10]
    assert len(set(ids(found))) == 90


def test_outcomes_come_as_entries_of_a_successful_search(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", outcome_codes={"Condition": "4119"})
    with client(ehr) as http:
        nothing = http.get("Observation?patient=pat-1&category=exam").json()
        warned = http.get("Condition?patient=pat-1").json()
    assert (nothing["total"], nothing["entry"][0]["search"]["mode"]) == (0, "outcome")
    assert nothing["entry"][0]["resource"]["issue"][0]["details"]["coding"][0]["code"] == "4101"
    assert warned["entry"][-1]["resource"]["issue"][0]["details"]["coding"][0]["code"] == "4119"


def test_meta_can_be_removed_and_is_otherwise_unchanged(serve_ehr: ServeEhr) -> None:
    for strip in (True, False):
        with client(serve_ehr("epic", strip_meta=strip)) as http:
            assert ("meta" in http.get("Patient/pat-1").json()) is not strip


def test_a_group_is_exported_once_in_its_window_and_one_job_at_a_time(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", kickoff_refusal_status=429)
    with client(ehr) as http:
        path = f"Group/{ehr.group_id}/$export"
        begun = http.get(path, headers={"Prefer": "respond-async"})
        again = http.get(path, headers={"Prefer": "respond-async"})
        assert again.status_code == 429
        assert "too recently" in again.json()["issue"][0]["details"]["text"]
        http.delete(begun.headers["content-location"])  # before completion: does not count
        manifest, url = export(http, path)
        assert manifest.status_code == 200
        http.delete(url)
        assert http.get(path, headers={"Prefer": "respond-async"}).status_code == 429


def test_the_status_url_lies_outside_r4_and_the_manifest_says_true_as_a_string(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", error_file=True)
    with client(ehr) as http:
        begun = http.get(f"Group/{ehr.group_id}/$export", headers={"Prefer": "respond-async"})
        url = begun.headers["content-location"]
        waiting, manifest = http.get(url), http.get(url).json()
        error = http.get(manifest["error"][0]["url"])
    assert "/api/FHIR/BulkRequest/" in url
    assert "/R4/" not in url
    assert (waiting.status_code, waiting.content) == (202, b"")
    assert waiting.headers["x-progress"] == "Searched 1 of 3 patients"
    assert "retry-after" not in waiting.headers
    assert manifest["requiresAccessToken"] == "true"
    assert b"59205" in error.content


def test_epic_refuses_these_bulk_parameters(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with client(ehr) as http:
        for query in (
            "_type=Patient",
            "_since=2026-01-01T00:00:00Z",
            "_typeFilter=Observation%3Fcategory%3Dlaboratory",
        ):
            answer = http.get(f"Group/{ehr.group_id}/$export?{query}", headers={"Prefer": "respond-async"})
            assert answer.status_code == 400, query


def test_a_refused_login_says_nothing_more_and_scopes_follow_the_registration(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    refused = ask_token(ehr, jwt_text="x.y.z")
    granted = ask_token(ehr, scope=None).json()
    by_get = get(ehr.token_url)
    assert (refused.status_code, refused.json()) == (400, {"error": "invalid_client", "error_description": None})
    assert {"system/Patient.r", "system/Patient.s"} <= set(granted["scope"].split())
    assert granted["expires_in"] == 3600
    assert by_get.json()["error"] == "invalid_request"


def test_a_merged_patient_redirects_a_deleted_one_is_4103_and_documents_have_a_quota(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", merged={"old-1": "pat-1"}, daily_documents=1)
    ehr.dataset.delete("Condition", "con-1-0")
    with client(ehr) as http:
        merged = http.get("Patient/old-1")
        deleted = http.get("Condition/con-1-0")
        never = http.get("Condition/never")
        documents = [http.get("DocumentReference?patient=pat-1") for _ in range(2)]
    assert (merged.status_code, number(merged)) == (301, "4107")
    assert merged.headers["location"] == f"{ehr.base_url}/Patient/pat-1"
    assert (deleted.status_code, number(deleted)) == (404, "4103")
    assert (never.status_code, number(never)) == (404, "59008")
    assert [documents[0].status_code, number(documents[1])] == [200, "4135"]
