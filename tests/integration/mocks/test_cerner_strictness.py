"""The mock is as strict as Oracle Health Millennium (vendor-facts 2.10)."""

from __future__ import annotations

from urllib.parse import unquote

import httpx
import pytest

from tests.fix_ehr import ServedEhr, ServeEhr
from tests.integration.mocks.raw_client import ask_token, client, export, get, ids, next_link, pages

PREFER = {"Prefer": "respond-async"}
OBSERVATIONS = "Observation?patient=pat-1"


@pytest.mark.parametrize("scope", [None, "system/*.read", "nonsense"])
def test_scopes_must_be_listed_and_the_reason_is_in_the_error_uri(serve_ehr: ServeEhr, scope: str | None) -> None:
    answer = ask_token(serve_ehr("cerner"), scope=scope)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
    assert "error_description" not in answer.json()
    assert ":empty-scopes/" in unquote(answer.json()["error_uri"])
    assert answer.headers["cerner-correlation-id"]


def test_a_v1_scope_for_a_v2_app_is_refused(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", scope_versions=("v2",))
    assert ask_token(ehr, scope="system/Patient.read").json()["error"] == "invalid_scope"
    assert ask_token(ehr, scope="system/Patient.rs").json()["expires_in"] == 570


def test_a_read_scope_does_not_permit_searching(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("cerner"), scope="system/Patient.r system/Observation.rs") as http:
        assert http.get("Patient/pat-1").status_code == 200
        assert http.get("Patient?_id=pat-1").status_code == 403
        assert http.get("Condition?patient=pat-1").json()["issue"][0]["details"]["text"] == "Forbidden resource"


def test_a_client_that_asks_for_xml_gets_an_empty_406(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("cerner")) as http:
        answer = http.get(OBSERVATIONS, headers={"Accept": "application/fhir+xml"})
    assert (answer.status_code, answer.content) == (406, b"")


def test_searches_without_what_cerner_requires_are_refused(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("cerner")) as http:
        patients = http.get("Patient?_count=50")
        assert patients.json()["issue"][0]["details"]["text"].startswith("at least one of _id, identifier, name,")
        for path in ("Condition", "Condition?_id=con-1-0&patient=pat-1", "Patient?_id=pat-1&_lastUpdated=gt2026"):
            assert http.get(path).status_code == 400, path
        assert http.get("Nonsense?patient=pat-1").json()["issue"][0]["code"] == "not-found"
        assert http.get("Group/x").status_code == 404


def test_pages_have_no_total_and_repeat_one_entry(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("cerner")) as http:
        found = pages(http, OBSERVATIONS)
    assert [len(page["entry"]) for page in found] == [50, 51, 20]
    assert len(set(ids(found))) == 120
    assert not any("total" in page for page in found)


def test_a_page_link_must_be_requested_unchanged(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("cerner")) as http:
        link = str(next_link(http.get(OBSERVATIONS).json()))
        assert "%2B" in link
        assert http.get(link).status_code == 200
        assert http.get(link.replace("%2B", "+")).status_code == 400
        assert http.get(link.replace("%2F", "/")).status_code == 400


def test_conditions_are_never_paged(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("cerner")) as http:
        assert len(http.get("Condition?patient=pat-1&_count=1").json()["entry"]) == 2


def test_a_poison_record_fails_its_patients_observations_for_good(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("cerner", poison_patient="pat-1")) as http:
        answer = http.get(OBSERVATIONS)
        assert http.get("Observation?patient=pat-2").status_code == 200
    assert answer.status_code == 500
    assert (answer.json()["issue"][0]["severity"], answer.json()["issue"][0]["code"]) == ("fatal", "required")


def test_a_second_kickoff_while_one_runs_is_throttled_until_it_is_deleted(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with client(ehr) as http:
        path = f"Group/{ehr.group_id}/$export"
        begun = http.get(path, headers=PREFER)
        again = http.get(path, headers=PREFER)
        assert (again.status_code, again.json()["issue"][0]["code"]) == (429, "throttled")
        assert "retry-after" not in again.headers
        assert http.delete(begun.headers["content-location"]).status_code == 202
        assert http.delete(begun.headers["content-location"]).status_code == 404
        assert http.get(path, headers=PREFER).status_code == 202


def test_cerner_refuses_these_kickoff_parameters(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    bad = (
        "_type=Patient&_type=Observation",
        "_type=Claim",
        "_type=Organization",
        "_elements=id",
        "patient=Patient/pat-1",
    )
    with client(ehr) as http:
        for query in bad:
            assert http.get(f"Group/{ehr.group_id}/$export?{query}", headers=PREFER).status_code == 400, query
        lenient = {"Prefer": "respond-async, handling=lenient"}
        assert http.get(f"Group/{ehr.group_id}/$export?_elements=id", headers=lenient).status_code == 202
        assert http.get("$export", headers=PREFER).status_code == 404


def test_the_export_follows_the_scopes_and_polls_carry_retry_after(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", retry_after_s=7)
    with client(ehr, scope="system/Patient.read system/Location.read") as http:
        path = f"Group/{ehr.group_id}/$export"
        assert http.get(f"{path}?_type=Patient,Condition", headers=PREFER).status_code == 403
        begun = http.get(path, headers=PREFER)
        waiting = http.get(begun.headers["content-location"])
        manifest = http.get(begun.headers["content-location"]).json()
    assert (waiting.headers["x-progress"], waiting.headers["retry-after"]) == ("in-progress", "7")
    assert {one["type"] for one in manifest["output"]} == {"Patient", "Location"}
    assert not any("count" in one for one in manifest["output"])


def file_link(ehr: ServedEhr, http: httpx.Client) -> str:
    manifest, _ = export(http, f"Group/{ehr.group_id}/$export?_type=Patient")
    return str(manifest.json()["output"][0]["url"])


def test_files_lie_in_an_object_store_that_refuses_the_token(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with client(ehr) as http:
        hop = http.get(file_link(ehr, http))
        signed = hop.headers["location"]
        assert hop.status_code == 307
        assert signed.startswith(ehr.store_origin)
        assert not signed.startswith(ehr.base_url.split("/r4")[0])
        assert http.get(signed).status_code == 400, "the client sent its Authorization header along"
        assert get(signed.replace("%2B", "+")).status_code == 403, "the signature was re-encoded"
        assert get(signed).content.count(b"\n") == 3


def test_a_signed_link_expires_and_the_file_url_gives_a_new_one(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", link_life_s=-1)
    with client(ehr) as http:
        link = file_link(ehr, http)
        assert get(http.get(link).headers["location"]).status_code == 403
        assert http.get(link).status_code == 307


def test_more_than_two_parallel_downloads_are_throttled(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with client(ehr) as http:
        link = file_link(ehr, http)
        hops = [http.get(link).status_code for _ in range(3)]
    assert hops == [307, 307, 429]
