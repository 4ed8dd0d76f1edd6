"""Rows of Cerner's checklist (vendor-facts 2.10; from 15 on what it rests on): a naive client fails, a careful one does not."""

from __future__ import annotations

import json
from urllib.parse import unquote

import httpx
import pytest

from tests.fix_ehr import ServedEhr, ServeEhr, _line, small_data
from tests.integration.mocks.naive_client import PREFER, NaiveClient, NaiveLogin
from tests.integration.mocks.raw_client import (
    ask_token,
    client,
    download,
    expire_tokens,
    export,
    get,
    next_link,
    pages,
    rows,
)

OBSERVATIONS = "Observation?patient=pat-1"  # 120 rows


def manifest(ehr: ServedEhr, http: httpx.Client, query: str = "_type=Patient") -> dict:
    return export(http, f"Group/{ehr.group_id}/$export?{query}")[0].json()


@pytest.mark.parametrize("habit", [NaiveLogin.with_a_wildcard, NaiveLogin.without_scope])
def test_cerner_01_scopes_are_listed_one_by_one(serve_ehr: ServeEhr, habit) -> None:
    ehr = serve_ehr("cerner")
    refused = habit(NaiveLogin(ehr))
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    with pytest.raises(KeyError, match="error_description"):
        NaiveLogin(ehr).reason(refused)
    assert unquote(refused.json()["error_uri"]).partition("/instances/")[0].endswith(":empty-scopes")
    assert ask_token(ehr, scope="system/Patient.read system/Observation.read").status_code == 200


def test_cerner_02_a_token_expires_within_the_run(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    assert ask_token(ehr).json()["expires_in"] == 570
    assert ask_token(serve_ehr("cerner", token_life_s=7)).json()["expires_in"] == 7
    with NaiveClient(ehr) as naive, client(ehr) as http:
        link = str(next_link(http.get(OBSERVATIONS).json()))
        expire_tokens(ehr)
        assert naive.by_links(OBSERVATIONS) == []
        assert http.get(link).status_code == 401
        http.headers["Authorization"] = f"Bearer {ask_token(ehr).json()['access_token']}"
        assert http.get(link).status_code == 200, "the same page, with a new token"


def test_cerner_03_xml_is_an_empty_406(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        with pytest.raises(json.JSONDecodeError):
            naive.for_any_structured_type(OBSERVATIONS)
        refused = http.get(OBSERVATIONS, headers={"Accept": "application/fhir+xml"})
        assert (refused.status_code, refused.content) == (406, b"")
        assert len(rows(http, OBSERVATIONS)) == 120


def test_cerner_04_patients_are_not_listed(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page("Patient?_count=20") == []
        refused = http.get("Patient?_count=20").json()["issue"][0]
        assert refused["code"] == "required"
        assert refused["details"]["text"].startswith("at least one of _id, identifier, name, family, given, birthdate,")
        assert sorted(rows(http, "Patient?_id=pat-1,pat-2,pat-3")) == ["pat-1", "pat-2", "pat-3"]


def test_cerner_05_pages_have_no_total(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        with pytest.raises(KeyError, match="total"):
            naive.until_total(OBSERVATIONS)
        assert [len(page["entry"]) for page in pages(http, OBSERVATIONS)] == [50, 51, 20]
        assert len(rows(http, OBSERVATIONS)) == 120


def test_cerner_05_page_links_are_followed_as_they_come(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len(naive.by_rebuilt_links(OBSERVATIONS)) == 50
        link = str(next_link(http.get(OBSERVATIONS).json()))
        assert "&-pageContext=%2B%2F%2B" in link
        assert link.endswith("&-pageDirection=NEXT")
        assert len({row["id"] for row in naive.by_own_offsets(OBSERVATIONS, 50, 120)}) == 50
        assert len(rows(http, OBSERVATIONS)) == 120


def test_cerner_05_a_row_is_repeated(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len(naive.by_links(OBSERVATIONS)) == 121
        assert len(rows(http, OBSERVATIONS)) == 120


def test_cerner_06_some_types_are_never_paged(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len(naive.by_own_offsets("Condition?patient=pat-1", 1, 2)) == 4, "each page was everything"
        assert len(naive.until_a_short_page("Condition?patient=pat-1", 1)) == 2
        assert len(rows(http, "Condition?patient=pat-1")) == 2


def test_cerner_07_a_poison_record_is_not_the_end(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", poison_patient="pat-1")
    paths = [f"Observation?patient=pat-{n}&_count=200" for n in (1, 2, 3)]
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.stopping_at_the_first_error(paths) == []
        refused = [http.get(paths[0]) for _ in range(3)]
        assert {answer.status_code for answer in refused} == {500}, "for good"
        issue = refused[0].json()["issue"][0]
        assert (issue["severity"], issue["code"], bool(issue["location"])) == ("fatal", "required", True)
        assert [len(rows(http, path)) for path in paths[1:]] == [120, 120]


def test_cerner_08_a_second_job_is_throttled_until_the_first_is_deleted(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    path = f"Group/{ehr.group_id}/$export"
    with NaiveClient(ehr) as naive, client(ehr) as http:
        forgotten = naive.export(path).headers["Content-Location"]
        assert naive.export_again_and_again(path) == [429] * 5
        refused = http.get(path, headers=PREFER)
        assert refused.json()["issue"][0]["code"] == "throttled"
        assert "retry-after" not in refused.headers
        assert http.delete(forgotten).status_code == 202
        assert export(http, path)[0].status_code == 200


def test_cerner_09_type_is_given_once(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.export(f"Group/{ehr.group_id}/$export?_type=Patient&_type=Condition").status_code == 400
        found = manifest(ehr, http, "_type=Patient,Condition")
    assert sorted(file["type"] for file in found["output"]) == ["Condition", "Patient"]


def test_cerner_10_progress_is_a_word_and_waits_can_be_absurd(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", retry_after_s=18_000, polls=3)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        url = naive.export(f"Group/{ehr.group_id}/$export").headers["Content-Location"]
        with pytest.raises(ValueError, match="in-progress"):
            naive.poll_by_percent(url)
        assert naive.poll_as_told(url) >= 36_000, "ten hours of waiting for a job that is done"
        assert http.get(url).status_code == 200


def test_cerner_11_files_lie_in_a_store_that_refuses_the_token(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        url = manifest(ehr, http)["output"][0]["url"]
        refused = naive.file_with_the_token_everywhere(url)
        assert (refused.status_code, b"InvalidArgument" in refused.content) == (400, True)
        hop = http.get(url)
        assert (hop.status_code, hop.headers["location"].startswith(ehr.store_origin)) == (307, True)
        assert get(hop.headers["Location"]).text.count("\n") == 3


def test_cerner_11_a_link_to_the_store_expires(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", link_life_s=-1)
    with client(ehr) as http:
        url = manifest(ehr, http)["output"][0]["url"]
        kept_for_later = http.get(url).headers["Location"]
        assert get(kept_for_later).status_code == 403
        fresh = http.get(url).headers["Location"]
    assert fresh != kept_for_later, "the file's own URL gives a new link"


def test_cerner_12_an_export_can_be_twenty_thousand_files(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", data=small_data(patients=2, observations=10_000), rows_per_file=1)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        files = [file["url"] for file in manifest(ehr, http, "_type=Observation")["output"]]
        assert len(set(files)) == 20_000
        assert 429 in naive.files_at_once(files[:40])
        ehr.ehr.leases.clear()
        lines = [line["id"] for url in files[:40] for line in download(http, url)]
    assert len(set(lines)) == 40


def test_cerner_13_a_deleted_job_is_gone(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        url = naive.export(f"Group/{ehr.group_id}/$export").headers["Content-Location"]
        assert http.delete(url).status_code == 202
        with pytest.raises(httpx.HTTPStatusError):  # a hurried engineer deletes at both ends, and checks the status
            naive.http.delete(url).raise_for_status()
        assert http.delete(url).status_code == 404, "already gone is what was wanted"
        assert naive.poll_without_pause(url) == [404]


def test_cerner_14_more_than_two_downloads_at_once_are_throttled(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        files = [file["url"] for file in manifest(ehr, http, "_type=Patient,Condition,Encounter,Procedure")["output"]]
        assert sorted(naive.files_at_once(files * 2)).count(429) == 6
        ehr.ehr.leases.clear()
        assert sum(len(download(http, url)) for url in files) == 15


# -- what the checklist rests on --------------------------------------------------------------------------------------


def test_cerner_15_id_excludes_every_other_parameter(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page("Condition?_id=con-1-0&patient=pat-1") == []
        assert http.get("Condition?_id=con-1-0&patient=pat-1").status_code == 400
        assert sorted(rows(http, "Condition?_id=con-1-0,con-1-1")) == ["con-1-0", "con-1-1"]


def test_cerner_16_observations_accept_one_kind_of_date(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        both = f"{OBSERVATIONS}&date=ge2020-01-01&_lastUpdated=ge2020-01-01T00:00:00Z"
        assert naive.first_page(both) == []
        assert http.get(both).status_code == 400
        assert len(rows(http, f"{OBSERVATIONS}&_lastUpdated=ge2020-01-01T00:00:00Z&_count=200")) == 120


def test_cerner_17_searches_are_not_posted(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.posted("Condition", "", patient="pat-1").status_code == 404
        assert len(rows(http, "Condition?patient=pat-1")) == 2


@pytest.mark.parametrize("path", ["Patient?_id=pat-1", "Device?patient=pat-1"])
def test_cerner_18_some_types_cannot_be_searched_for_changes(serve_ehr: ServeEhr, path: str) -> None:
    device = _line("Device", "dev-1", '"patient":{"reference":"Patient/pat-1"}')
    ehr = serve_ehr("cerner", data=[*small_data(), device])
    with NaiveClient(ehr, scope="system/Patient.read system/Device.read") as naive:
        assert naive.changed_since(path, "2020-01-01") == [], "passes for no change"
        assert naive.http.get(f"{path}&_lastUpdated=gt2020-01-01").status_code == 400
        assert len(naive.first_page(path)) == 1, "asked for everything"


def test_cerner_19_scopes_are_spelt_as_the_app_is_registered(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", scope_versions=("v2",))
    refused = ask_token(ehr, scope="system/Patient.read")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    assert ask_token(ehr, scope="system/Patient.rs").status_code == 200


def test_cerner_20_a_read_scope_does_not_permit_searching(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr, scope="system/Condition.r") as naive:
        assert naive.first_page("Condition?patient=pat-1") == []
        assert naive.http.get("Condition/con-1-0").status_code == 200
    with client(ehr, scope="system/Condition.rs") as http:
        assert len(rows(http, "Condition?patient=pat-1")) == 2


def test_cerner_21_a_type_can_be_forbidden_although_it_was_granted(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", forbidden_types=("Condition",))
    assert "system/Condition.read" in ask_token(ehr).json()["scope"]
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.trusting_200("Condition?patient=pat-1") == []
        refused = http.get("Condition?patient=pat-1")
        assert (refused.status_code, refused.json()["issue"][0]["details"]["text"]) == (403, "Forbidden resource")
        assert rows(http, "Encounter?patient=pat-1")


def test_cerner_22_the_manifest_counts_nothing(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        found = manifest(ehr, http)
        with pytest.raises(KeyError, match="count"):
            naive.rows_promised(found)
        assert len(download(http, found["output"][0]["url"])) == 3


@pytest.mark.parametrize(
    "query", ["_type=Organization", "_type=Claim", "_elements=id", "_typeFilter=Condition%3Fcategory%3Dx"]
)
def test_cerner_23_an_export_accepts_few_parameters(serve_ehr: ServeEhr, query: str) -> None:
    ehr = serve_ehr("cerner")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.export(f"Group/{ehr.group_id}/$export?{query}").status_code == 400
        assert {file["type"] for file in manifest(ehr, http, "_type=Organization,Patient")["output"]} == {
            "Organization",
            "Patient",
        }


def test_cerner_24_a_signed_link_is_not_encoded_again(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner")
    with client(ehr) as http:
        signed = http.get(manifest(ehr, http)["output"][0]["url"]).headers["Location"]
        assert get(unquote(signed)).status_code == 403
        assert get(signed).status_code == 200


def test_cerner_25_an_early_poll_can_be_refused(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", least_poll_gap_s=60, polls=2)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        url = naive.export(f"Group/{ehr.group_id}/$export").headers["Content-Location"]
        assert naive.poll_without_pause(url) == [202, 429]
        refused = http.get(url)
        assert refused.json()["resourceType"] == "OperationOutcome"
        assert int(refused.headers["retry-after"]) > 0
        for status in (202, 200):
            ehr.ehr.jobs[url.rpartition("/")[2]].polled_at = 0.0  # a minute passes
            assert http.get(url).status_code == status
