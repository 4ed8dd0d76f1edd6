"""The plain server and its options: listing, paging, levels of export, no bulk, bulk only, groups, changing data."""

from __future__ import annotations

import orjson
import pytest

from tests.fix_ehr import ServeEhr, small_data
from tests.integration.mocks.raw_client import JSON, ask_token, client, export, get, ids, pages

PREFER = {"Prefer": "respond-async"}


@pytest.mark.quick
def test_everyone_is_listed_in_pages_by_offset(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("generic")) as http:
        found = pages(http, "Patient?_count=2")
        organizations = pages(http, "Organization")
    assert ids(found) == ["pat-1", "pat-2", "pat-3"]
    assert ids(organizations) == ["org-1"]
    assert [link["relation"] for link in found[1]["link"]] == ["self", "previous"]


def test_searches_are_narrowed_by_their_parameters(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("generic")) as http:

        def total(query: str) -> int:
            return int(http.get(query).json()["total"])

        assert total("Observation?patient=Patient/pat-1&category=vital-signs") == 30
        assert total("Observation?subject=pat-1&category=vital-signs,laboratory") == 120
        assert total("Observation?patient=pat-1&code=http://loinc.org%7C8867-4") == 120
        assert total("Observation?patient=pat-1&code=http://other%7C8867-4") == 0
        assert total("Condition?_id=con-1-0,con-2-1,none") == 2
        assert total("Condition?_lastUpdated=gt2026-02-01T00:00:00Z") == 2
        assert total("Condition?_lastUpdated=ge2026-02-01&_lastUpdated=lt2026-03-01") == 2
        assert total("Patient?identifier=urn:oid:1.2.3%7CMRN2") == 1
        assert total("Patient?family=fam3") == 1
        assert http.get("Condition?_lastUpdated=yesterday").status_code == 400


def test_a_search_can_be_posted(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("generic")) as http:
        answer = http.post("Condition/_search", data={"patient": "pat-1"})
    assert answer.json()["total"] == 2


def test_export_levels_types_since_and_filters(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic")
    with client(ehr) as http:
        system, _ = export(http, "$export")
        patient, _ = export(http, "Patient/$export")
        since, _ = export(http, "$export?_since=2026-02-15T00:00:00Z&_type=Condition,Organization")
        filtered, _ = export(http, "$export?_type=Observation&_typeFilter=Observation%3Fcategory%3Dvital-signs")
        refused = http.get("$export?_type=Nonsense", headers=PREFER)
    count = {one["type"]: one["count"] for one in system.json()["output"]}
    assert (count["Organization"], count["Observation"]) == (1, 360)
    assert "Organization" not in {one["type"] for one in patient.json()["output"]}
    assert {one["type"]: one["count"] for one in since.json()["output"]} == {"Condition": 2}
    assert filtered.json()["output"][0]["count"] == 90
    assert refused.status_code == 400


def test_a_kickoff_can_be_posted_for_some_patients(serve_ehr: ServeEhr) -> None:
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "_type", "valueString": "Patient"},
            {"name": "patient", "valueReference": {"reference": "Patient/pat-2"}},
        ],
    }
    ehr = serve_ehr("generic")
    with client(ehr) as http:
        begun = http.post("Patient/$export", json=parameters, headers=PREFER)
        http.get(begun.headers["content-location"])
        manifest = http.get(begun.headers["content-location"]).json()
    assert manifest["output"][0]["count"] == 1


def test_a_kickoff_must_request_an_asynchronous_answer(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("generic")) as http:
        assert http.get("$export").status_code == 400
        assert http.get("$export", headers={**PREFER, "Accept": "text/html"}).status_code == 406


def test_resources_without_last_updated_are_exported_for_any_since(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", data=[{"resourceType": "Patient", "id": "p"}], open=True)
    with client(ehr) as http:
        manifest, _ = export(http, "$export?_since=2030-01-01T00:00:00Z")
    assert manifest.json()["output"][0]["count"] == 1
    assert manifest.json()["requiresAccessToken"] is False


def test_a_server_can_declare_and_offer_no_bulk_at_all(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", bulk_levels=())
    assert "export" not in get(f"{ehr.base_url}/metadata").text
    with client(ehr) as http:
        assert http.get("$export", headers=PREFER).status_code == 404


def test_a_server_can_offer_bulk_only(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", search=False, bulk_levels=("group",))
    rest = get(f"{ehr.base_url}/metadata").json()["rest"][0]
    assert "search-type" not in orjson.dumps(rest).decode()
    assert "operation" not in rest
    with client(ehr) as http:
        assert http.get("Patient?_count=1").status_code == 400
        assert export(http, f"Group/{ehr.group_id}/$export")[0].status_code == 200


def test_groups_in_the_data_have_only_their_members(serve_ehr: ServeEhr) -> None:
    group = b'{"resourceType":"Group","id":"g2","member":[{"entity":{"reference":"Patient/pat-2"}}]}'
    ehr = serve_ehr("generic", data=[*small_data(), group])
    with client(ehr) as http:
        assert http.get("Group/g2").content == group
        manifest, _ = export(http, "Group/g2/$export?_type=Patient,Condition")
        unknown = http.get("Group/other/$export", headers=PREFER)
    assert ehr.group_ids == ["g2"]
    assert {one["type"]: one["count"] for one in manifest.json()["output"]} == {"Condition": 2, "Patient": 1}
    assert unknown.status_code == 404


def test_changes_and_deletions_show_at_once_but_not_in_a_job_under_way(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", polls=0)
    with client(ehr) as http:
        before, _ = export(http, "$export?_type=Condition")
        ehr.dataset.replace(
            b'{"resourceType":"Condition","id":"con-1-0","subject":{"reference":"Patient/pat-1"},"n":1.0}'
        )
        ehr.dataset.delete("Condition", "con-1-1")
        after, _ = export(http, "$export?_type=Condition")
        old = http.get(before.json()["output"][0]["url"]).content
        new = http.get(after.json()["output"][0]["url"]).content
        searched = http.get("Condition?patient=pat-1").content
        assert http.get("Condition/con-1-1").status_code == 404
    assert (old.count(b"\n"), new.count(b"\n")) == (6, 5)
    assert b'"n":1.0' in new
    assert b'"n":1.0' not in old
    assert b'"n":1.0' in searched


def test_the_log_records_purposes_headers_and_concurrency(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic")
    with client(ehr) as http:
        http.get("Condition?patient=pat-1")
        http.get("Patient/pat-1")
        export(http, f"Group/{ehr.group_id}/$export?_type=Patient")
    assert [entry.purpose for entry in ehr.log] == ["token", "search", "read", "kickoff", "status", "status"]
    (search,) = ehr.log.of("search", "Condition")
    assert (search.template, search.target) == ("/Condition", "/fhir/Condition?patient=pat-1")
    assert search.headers["accept"] == JSON
    assert search.had_authorization
    assert search.status == 200
    assert ehr.log.max_concurrency == 1


def test_the_servers_clock_can_be_off_and_its_date_header_shows_it(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", clock_skew_s=-3600)
    answer = get(f"{ehr.base_url}/metadata")
    assert len(answer.headers.get_list("date")) == 1
    assert ask_token(ehr).status_code == 401, "our exp is an hour ahead of the server's clock"
