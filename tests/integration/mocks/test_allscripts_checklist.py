"""Rows of Veradigm's checklist (vendor-facts 3.5; from 10 on what it rests on): a naive client fails, a careful one does not."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from tests.fix_ehr import ServedEhr, ServeEhr, _line, small_data
from tests.integration.mocks.naive_client import NaiveClient
from tests.integration.mocks.raw_client import ask_token, client, download, export, get, next_link, rows

OBSERVATIONS = "Observation?patient=pat-1"  # 120 rows


def smart(ehr: ServedEhr) -> dict:
    return get(f"{ehr.base_url}/.well-known/smart-configuration").json()


def test_allscripts_01_the_key_of_login_methods_is_misspelt_and_lists_too_few(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    with pytest.raises(KeyError):
        smart(ehr)["token_endpoint_auth_methods_supported"]
    assert "private_key_jwt" not in smart(ehr)["token_endpoint_auth_methods"]
    assert ask_token(ehr).status_code == 200, "an assertion opens all the same"


def test_allscripts_02_the_issuer_is_another_host(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    configuration = smart(ehr)
    assert urlsplit(configuration["issuer"]).hostname != urlsplit(ehr.base_url).hostname
    assert configuration["token_endpoint"] == ehr.token_url


def test_allscripts_03_the_content_type_is_an_old_one(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    with client(ehr) as http:
        answer = http.get(OBSERVATIONS)
        assert not answer.headers["content-type"].startswith(("application/fhir+json", "application/json;"))
        assert answer.headers["content-type"] == "application/json+fhir; charset=utf-8"
        assert len(rows(http, OBSERVATIONS)) == 120


def test_allscripts_04_too_many_rows_are_413_and_narrower_searches_succeed(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts", max_rows=100)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page(OBSERVATIONS) == [], "passes for no data"
        assert http.get(OBSERVATIONS).status_code == 413
        halves = [rows(http, f"{OBSERVATIONS}&category={category}") for category in ("laboratory", "vital-signs")]
    assert [len(half) for half in halves] == [90, 30]


def test_allscripts_05_a_hidden_record_is_a_placeholder(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts", redact_every=10)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        with pytest.raises(KeyError):
            [row["valueQuantity"] for row in naive.by_links(OBSERVATIONS)]
        found = rows(http, OBSERVATIONS)
    redacted = [row for row in found.values() if "REDACTED" in json.dumps(row.get("meta"))]
    assert (len(found), len(redacted), redacted[0].get("valueQuantity")) == (120, 12, None)


def test_allscripts_06_an_unknown_path_is_a_page_with_200(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    url = f"{ehr.base_url.rpartition('/')[0]}/elsewhere/Condition?patient=pat-1"
    with NaiveClient(ehr) as naive, client(ehr) as http:
        with pytest.raises(json.JSONDecodeError):
            naive.trusting_200(url)
        answer = http.get(url)
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/html")
        assert len(rows(http, "Condition?patient=pat-1")) == 2


def test_allscripts_07_pages_lead_backwards_too(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        found = naive.by_the_last_link(OBSERVATIONS)
        assert (len(found) > 120, len({row["id"] for row in found})) == (True, 100), "to and fro, and never on page 3"
        second = http.get(str(next_link(http.get(OBSERVATIONS).json()))).json()
        assert [link["relation"] for link in second["link"]] == ["self", "next", "previous"]
        assert (second["total"], len(rows(http, OBSERVATIONS))) == (120, 120)


def test_allscripts_08_progress_is_a_percentage_in_words(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts", polls=2)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        url = naive.export(f"Group/{ehr.group_id}/$export").headers["Content-Location"]
        with pytest.raises(ValueError, match="complete"):
            naive.poll_by_percent(url)
        waiting = http.get(url)
        assert (waiting.status_code, waiting.headers["x-progress"]) == (202, "66.7% complete")
        assert http.get(url).status_code == 200


def test_allscripts_09_documents_come_as_binary_in_the_export(serve_ehr: ServeEhr) -> None:
    binary = _line("Binary", "bin-1", '"contentType":"text/plain","data":"aGVsbG8="')
    ehr = serve_ehr("allscripts", data=[*small_data(), binary])
    scope = "system/*.read"
    with NaiveClient(ehr, scope=scope) as naive, client(ehr, scope=scope) as http:
        clinical = naive.export(f"Group/{ehr.group_id}/$export?_type=Patient,DocumentReference")
        assert "Binary" not in {f["type"] for f in naive.manifest(clinical.headers["Content-Location"])["output"]}
        found = export(http, f"Group/{ehr.group_id}/$export")[0].json()
        (url,) = [file["url"] for file in found["output"] if file["type"] == "Binary"]
        assert download(http, url)[0]["data"] == "aGVsbG8="


# -- what the checklist rests on --------------------------------------------------------------------------------------


def test_allscripts_10_a_kickoff_has_a_body_and_the_way_on_is_a_header(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        begun = naive.export(f"Group/{ehr.group_id}/$export")
        assert http.get(str(begun.json()["ExportRequestID"])).status_code != 202, "the id alone leads nowhere"
        assert http.get(begun.headers["Content-Location"]).status_code == 202


def test_allscripts_11_provenance_is_exported_only_if_named(serve_ehr: ServeEhr) -> None:
    provenance = _line("Provenance", "prov-1", '"target":[{"reference":"Patient/pat-1"}]')
    ehr = serve_ehr("allscripts", data=[*small_data(), provenance])
    with NaiveClient(ehr, scope="system/*.read") as naive:
        everything = naive.export(f"Group/{ehr.group_id}/$export").headers["Content-Location"]
        named = naive.export(f"Group/{ehr.group_id}/$export?_type=Patient,Provenance").headers["Content-Location"]
        assert "Provenance" not in {file["type"] for file in naive.manifest(everything)["output"]}
        assert "Provenance" in {file["type"] for file in naive.manifest(named)["output"]}


def test_allscripts_12_a_refused_login_is_one_word(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    with NaiveClient(ehr) as naive:
        refused = naive.login.for_ten_minutes()
        with pytest.raises(KeyError, match="error_description"):
            naive.login.reason(refused)
    assert (refused.status_code, refused.json()) == (400, {"error": "invalid_client"})


def test_allscripts_13_changes_can_be_searched_for_although_undeclared(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    with client(ehr) as http:
        (declared,) = [
            [param["name"] for param in one["searchParam"]]
            for one in http.get("metadata").json()["rest"][0]["resource"]
            if one["type"] == "Condition"
        ]
        assert "_lastUpdated" not in declared
        assert rows(http, "Condition?patient=pat-1&_lastUpdated=ge2027-01-01") == {}


def test_allscripts_14_searches_must_name_a_patient(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page("Condition") == []
        assert http.get("Condition").status_code == 400
        assert http.get("Patient").status_code == 400
        assert len(rows(http, "Condition?patient=pat-1")) == 2
