"""Rows of VA's checklist (vendor-facts 4.4; from 09 on what it rests on): a naive client fails, a careful one does not."""

from __future__ import annotations

import json

import pytest

from tests.fix_ehr import ServeEhr
from tests.integration.mocks.naive_client import NaiveClient, NaiveLogin
from tests.integration.mocks.raw_client import ask_token, client, next_link, pages, rows

OBSERVATIONS = "Observation?patient=pat-1"  # 120 rows


def text(answer) -> str:
    return answer.json()["issue"][0]["details"]["text"]


def test_va_01_the_audience_is_not_the_token_url(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    assert ehr.audience != ehr.token_url
    refused = NaiveLogin(ehr).for_the_token_url()
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert ask_token(ehr).status_code == 200


def test_va_02_launch_names_the_patient_in_base64(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    naive = NaiveLogin(ehr)
    assert naive.without_launch().json()["error"] == "invalid_scope"
    assert naive.with_a_bare_launch("pat-1").json()["error"] == "invalid_request"
    assert ask_token(ehr, scope="launch system/Patient.read", launch=None).status_code == 400
    assert ask_token(ehr, patient="pat-1").status_code == 200


def test_va_03_a_token_is_for_one_patient(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive:
        found = [naive.trusting_200(f"Condition?patient=pat-{n}") for n in (1, 2)]
        assert [len(one) for one in found] == [2, 0], "the others pass for no data"
        refused = naive.http.get("Condition?patient=pat-2")
        assert (refused.status_code, text(refused)) == (403, "Token not allowed access to this patient.")
        assert text(naive.http.get("Condition/con-2-0")) == text(refused), "reads too: the answer is replaced"
    with client(ehr, patient="pat-2") as http:
        assert len(rows(http, "Condition?patient=pat-2")) == 2


def test_va_04_pages_are_numbers_and_shift_with_the_data(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len({row["id"] for row in naive.by_own_offsets(OBSERVATIONS, 40, 120)}) == 40, "_offset is dropped"
        assert len(naive.by_the_last_link(OBSERVATIONS)) != 120, "`last` is not `next`"
        first = http.get(f"{OBSERVATIONS}&_count=100").json()
        ehr.dataset.delete("Observation", "obs-1-0")
        second = http.get(str(next_link(first))).json()
        seen = {entry["resource"]["id"] for page in (first, second) for entry in page["entry"]}
        assert "obs-1-100" not in seen, "a row slipped through between two pages"
        assert (first["total"], second["total"]) == (120, 119), "the total tells: the search is asked again"
        assert "obs-1-100" in rows(http, OBSERVATIONS)


def test_va_05_a_firewall_page_has_status_200(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    ehr.faults.add({"match": {"purpose": "search"}, "nth": 1, "action": {"wrong_content": True}})
    ehr.faults.add({"match": {"purpose": "search"}, "nth": 2, "action": {"wrong_content": True}})
    with NaiveClient(ehr) as naive, client(ehr) as http:
        with pytest.raises(json.JSONDecodeError):
            naive.trusting_200(OBSERVATIONS)
        answer = http.get(OBSERVATIONS)
        assert (answer.status_code, b"Request Rejected" in answer.content) == (200, True)
        assert len(rows(http, OBSERVATIONS)) == 120, "asked again"


def test_va_06_a_slow_search_is_504_and_smaller_pages_are_quick(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va", row_cost_s=0.002, gateway_timeout_s=0.1)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        large = f"{OBSERVATIONS}&_count=100"
        assert [naive.trusting_200(large) for _ in range(2)] == [[], []], "the same again is the same again"
        assert http.get(large).status_code == 504
        assert len(rows(http, f"{OBSERVATIONS}&_count=30")) == 120


def test_va_07_an_unknown_category_finds_nothing_silently(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        answer = http.get(f"{OBSERVATIONS}&category=labs")
        assert (answer.status_code, answer.json()["total"]) == (200, 0)
        assert naive.trusting_200(f"{OBSERVATIONS}&category=laboratory") != []
        assert len(rows(http, OBSERVATIONS)) == 120, "without a category nothing depends on its spelling"


def test_va_08_the_gateway_throttles(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va", max_requests_per_s=0.0001)
    with NaiveClient(ehr) as naive:  # its login took the one request that is allowed at once
        refused = naive.http.get("Condition?patient=pat-1")
        assert (refused.status_code, text(refused)) == (429, "Too many requests.")
        assert [naive.trusting_200(f"Condition?patient=pat-1&_count={n}") for n in (10, 20, 30)] == [[], [], []]


# -- what the checklist rests on --------------------------------------------------------------------------------------


def test_va_09_scopes_are_compared_literally(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    assert NaiveLogin(ehr).with_a_wildcard().json()["error"] == "invalid_scope"
    with NaiveClient(ehr, scope="launch system/Patient.read") as naive:
        refused = naive.http.get("Condition?patient=pat-1")
        assert (refused.status_code, text(refused)) == (403, "Token not granted requested scope.")
    with client(ehr, scope="launch system/Condition.read") as http:
        assert len(rows(http, "Condition?patient=pat-1")) == 2


@pytest.mark.parametrize(
    "query", ["patient=pat-1&_id=con-1-0", "_id=con-1-0&identifier=x", "patient=pat-1&identifier=x"]
)
def test_va_10_patient_id_and_identifier_exclude_each_other(serve_ehr: ServeEhr, query: str) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.trusting_200(f"Condition?{query}") == []
        assert http.get(f"Condition?{query}").status_code in (400, 403)
        assert len(rows(http, "Condition?patient=pat-1")) == 2


def test_va_11_a_page_has_at_most_a_hundred_rows(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len(naive.until_a_short_page(OBSERVATIONS, 1000)) == 100
        assert [len(page["entry"]) for page in pages(http, f"{OBSERVATIONS}&_count=1000")] == [100, 20]


def test_va_12_assertions_are_rs256(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va", alg="RS384")
    assert ask_token(ehr).json()["error"] == "invalid_client"
    assert ask_token(serve_ehr("va")).status_code == 200


def test_va_13_a_posted_search_is_its_query_and_its_body(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        twice = naive.posted("Condition", "patient=pat-1", _id="con-1-0")
        assert twice.status_code == 400, "each alone would do, together they exclude each other"
        assert http.post("Condition/_search", data={"patient": "pat-1"}).json()["total"] == 2


@pytest.mark.parametrize("count", ["-1", "all"])
def test_va_14_a_count_must_be_a_number_and_zero_is_one(serve_ehr: ServeEhr, count: str) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.trusting_200(f"{OBSERVATIONS}&_count={count}") == []
        assert http.get(f"{OBSERVATIONS}&_count={count}").status_code == 400
        assert http.get(f"{OBSERVATIONS}&_count=0").json()["total"] == 120


@pytest.mark.parametrize("query", ["date=ge2020-01-01&patient=pat-1", "category=laboratory"])
def test_va_15_observation_filters_depend_on_each_other(serve_ehr: ServeEhr, query: str) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.trusting_200(f"Observation?{query}") == []
        assert http.get(f"Observation?{query}").status_code in (400, 403)
        assert len(rows(http, f"{OBSERVATIONS}&category=laboratory&date=ge2020-01-01")) == 90


def test_va_16_every_search_must_name_the_patient(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive:
        assert naive.trusting_200("Condition") == []
        assert text(naive.http.get("Condition")) == "Patient identifier not supplied."
        assert text(naive.http.get("Patient?name=Fam1")) == "Patient searching disabled."
        assert len(naive.first_page("Patient?_id=pat-1")) == 1


def test_va_17_there_is_no_export(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive:
        assert [naive.export(path).status_code for path in ("$export", "Patient/$export", "Group/x/$export")] == [
            404
        ] * 3


def test_va_18_unknown_parameters_are_missing_from_the_links(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        path = f"{OBSERVATIONS}&recorded-date=gt2027-01-01"
        assert len(naive.first_page(path)) == 30, "none of which is of 2027"
        assert "recorded-date" not in str(http.get(path).json()["link"])


def test_va_19_changes_can_be_searched_for_few_types(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.changed_since("Condition?patient=pat-1", "2027-01-01") == ["con-1-0", "con-1-1"]
        assert rows(http, f"{OBSERVATIONS}&_lastUpdated=gt2027-01-01") == {}


def test_va_20_an_answer_without_rows_has_no_entry(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    path = "Condition?patient=pat-1&category=unheard-of"
    with NaiveClient(ehr) as naive, client(ehr) as http:
        with pytest.raises(KeyError, match="entry"):
            naive.trusting_200(path)
        assert rows(http, path) == {}
