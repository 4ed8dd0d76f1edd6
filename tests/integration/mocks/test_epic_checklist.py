"""Rows of Epic's checklist (vendor-facts 1.12; from 17 on what it rests on): a naive client fails, a careful one does not."""

from __future__ import annotations

import json

import pytest

from tests.fix_ehr import ServeEhr, _line, key_pair, small_data
from tests.integration.mocks.naive_client import PREFER, NaiveClient, NaiveLogin
from tests.integration.mocks.raw_client import (
    JSON,
    ask_token,
    assertion,
    client,
    code,
    download,
    expire_tokens,
    export,
    get,
    next_link,
    rows,
)

LABS = "Observation?patient=pat-1&category=laboratory&_count=40"  # 90 rows
CATEGORIES = ("laboratory", "vital-signs", "social-history", "imaging", "survey", "exam")


def test_epic_01_an_unknown_path_is_a_web_page_not_json(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        for path in ("Nonsense?patient=pat-1", "$export"):
            with pytest.raises(json.JSONDecodeError):
                naive.first_page(path)
            answer = http.get(path, headers=PREFER)
            assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (404, "text/html"), path
        assert len(rows(http, "Condition?patient=pat-1")) == 2, "a careful client notes the type and goes on"


def test_epic_02_a_client_that_does_not_ask_for_json_gets_xml(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        for path in (LABS, "Patient/pat-1", "metadata"):
            with pytest.raises(json.JSONDecodeError):
                naive.without_accept(path)
            assert http.get(path).json()["resourceType"]


def test_epic_03_a_refused_token_has_a_body_of_two_quotes(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        expire_tokens(ehr)
        with pytest.raises(AttributeError):
            naive.first_page(LABS)
        refused = http.get(LABS)
        assert (refused.status_code, refused.content) == (401, b'""')
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        http.headers["Authorization"] = f"Bearer {ask_token(ehr).json()['access_token']}"
        assert len(rows(http, LABS)) == 90


def test_epic_04_observations_are_searched_by_category(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page("Observation?patient=pat-1") == []
        refused = http.get("Observation?patient=pat-1")
        assert (refused.status_code, code(refused)) == (400, "59108")
        found = [rows(http, f"Observation?patient=pat-1&category={category}") for category in CATEGORIES]
    assert len({id_ for one in found for id_ in one}) == 120


def test_epic_05_total_is_only_the_pages(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len(naive.until_total(LABS)) == 40
        assert len(rows(http, LABS)) == 90
        assert http.get(LABS + "&_summary=count").json()["total"] == 90


def test_epic_05_pages_are_sessions_and_made_up_offsets_are_ignored(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    path = LABS.removesuffix("&_count=40")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len({row["id"] for row in naive.by_own_offsets(path, 40, 90)}) == 40
        assert "?sessionID=16-" in str(next_link(http.get(LABS).json()))
        assert len(rows(http, LABS)) == 90


def test_epic_05_an_expired_session_is_4113_and_the_search_starts_again(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", session_life_s=-1)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len(naive.by_links(LABS)) == 40
        refused = http.get(str(next_link(http.get(LABS).json())))
        assert (refused.status_code, code(refused)) == (400, "4113")
        assert len(rows(http, LABS.replace("40", "999"))) == 90, "from page 1, in larger pages"


@pytest.mark.parametrize("number", ["4101", "4119", "59204"])
def test_epic_06_outcomes_among_the_entries_are_not_data(serve_ehr: ServeEhr, number: str) -> None:
    ehr = serve_ehr("epic", outcome_codes={"Condition": number} if number != "4101" else {})
    path = "Observation?patient=pat-1&category=exam" if number == "4101" else "Condition?patient=pat-1"
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert "OperationOutcome" in {row["resourceType"] for row in naive.by_links(path)}
        assert "OperationOutcome" not in {row["resourceType"] for row in rows(http, path).values()}
        outcome = http.get(path).json()["entry"][-1]["resource"]
    assert outcome["issue"][0]["details"]["coding"][0]["code"] == number


def test_epic_07_an_empty_page_is_not_the_last(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", empty_pages=True)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len(naive.until_an_empty_page(LABS)) == 40
        assert len(naive.until_a_short_page(LABS.removesuffix("&_count=40"), 40)) == 40
        assert len(rows(http, LABS)) == 90


def test_epic_08_nothing_has_meta(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", strip_meta=True)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        with pytest.raises(KeyError, match="meta"):
            naive.versions("Condition?patient=pat-1")
        before = rows(http, "Condition?patient=pat-1")
        assert before == rows(http, "Condition?patient=pat-1"), "what is compared is the content"


def test_epic_09_a_group_is_exported_once_a_day(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    path = f"Group/{ehr.group_id}/$export"
    with NaiveClient(ehr) as naive, client(ehr) as http:
        manifest, url = export(http, path)
        assert naive.export_again_and_again(path) == [400] * 5
        refused = http.get(path, headers=PREFER)
        assert "too recently" in refused.json()["issue"][0]["details"]["text"]
        assert http.get(url).json() == manifest.json(), "the job that is there still answers"


def test_epic_10_a_poll_has_no_body_and_its_progress_is_prose(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", polls=3)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        url = naive.export(f"Group/{ehr.group_id}/$export").headers["Content-Location"]
        with pytest.raises(json.JSONDecodeError):
            naive.poll_by_body(url)
        with pytest.raises(ValueError, match="Searched"):
            naive.poll_by_percent(url)
        waiting = http.get(url)
        assert (waiting.status_code, waiting.content) == (202, b"")
        assert waiting.headers["x-progress"] == "Searched 2 of 3 patients"
        assert http.get(url).json()["output"]


def test_epic_11_the_manifest_says_true_as_a_string(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        manifest = export(http, f"Group/{ehr.group_id}/$export")[0].json()
        assert naive.file_as_flagged(manifest).status_code == 401
        assert manifest["requiresAccessToken"] == "true"
        assert download(http, manifest["output"][0]["url"])


def test_epic_12_an_error_file_does_not_fail_the_job(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", error_file=True)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        manifest = export(http, f"Group/{ehr.group_id}/$export")[0].json()
        assert naive.failed(manifest), "and all its rows are lost"
        (outcome,) = download(http, manifest["error"][0]["url"])
        lines = [line for file in manifest["output"] for line in download(http, file["url"])]
    assert (outcome["issue"][0]["severity"], "59205" in str(outcome)) == ("warning", True)
    assert len([line for line in lines if line["resourceType"] == "Observation"]) == 360


def test_epic_13_files_are_for_the_client_of_the_job(serve_ehr: ServeEhr) -> None:
    """A hurried engineer uses one client id for exports and another for downloads."""
    other = key_pair("RS384")
    ehr = serve_ehr("epic", other_clients={"reader": other.jwks})
    signed = assertion(ehr, key=other.private, header={"alg": "RS384", "kid": other.kid}, iss="reader", sub="reader")
    with client(ehr) as http, client(ehr, jwt_text=signed) as reader:
        manifest, url = export(http, f"Group/{ehr.group_id}/$export?_type=Patient,Condition")
        file = manifest.json()["output"][0]["url"]
        refused = reader.get(file)
        assert (refused.status_code, code(refused)) == (403, "59007")
        assert reader.get(url).status_code == 404
        assert download(http, file)


def test_epic_14_an_assertion_is_short_lived_used_once_and_for_the_token_url(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    naive = NaiveLogin(ehr)
    once, again = naive.with_one_assertion()
    assert (once.status_code, again.status_code) == (200, 400)
    for refused in (again, naive.for_ten_minutes(), naive.for_the_base_url()):
        assert (refused.status_code, refused.json()) == (400, {"error": "invalid_client", "error_description": None})
        with pytest.raises(AttributeError):
            naive.reason(refused)
    without_kid = assertion(ehr, header={"kid": None})
    assert ask_token(ehr).status_code == 200
    assert ask_token(ehr, jwt_text=without_kid).status_code == 200, "kid is recommended, not required"


def test_epic_15_a_merged_patient_redirects_to_the_survivor(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", merged={"old-1": "pat-1"})
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.read("Patient/old-1") is None
        answer = http.get("Patient/old-1")
        assert (answer.status_code, code(answer)) == (301, "4107")
        assert http.get(answer.headers["Location"]).json()["id"] == "pat-1"


def test_epic_16_documents_have_a_daily_quota(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", daily_documents=1)
    paths = [f"{kind}?patient=pat-{n}" for n in (1, 2, 3) for kind in ("DocumentReference", "Encounter")]
    with NaiveClient(ehr) as naive, client(ehr) as http:
        got = [row["id"] for row in naive.stopping_at_the_first_error(paths)]
        assert got == ["doc-1", "enc-1"], "the rest of the night is lost"
        assert [naive.trusting_200(path) for path in paths if path.startswith("Doc")] == [[]] * 3, "passes for no data"
        answer = http.get(paths[0])
        assert (answer.status_code, code(answer)) == (400, "4135")
        assert sum(len(rows(http, path)) for path in paths if path.startswith("Enc")) == 3
        ehr.ehr.document_searches.clear()  # tomorrow
        assert list(rows(http, paths[2])) == ["doc-2"]


# -- what the checklist rests on --------------------------------------------------------------------------------------


def test_epic_17_allergies_without_a_patient_are_a_parameter_error_in_disguise(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.trusting_200("AllergyIntolerance") == []
        assert http.get("AllergyIntolerance").status_code == 403
        assert code(http.get("Condition")) == "59108", "other types say 400"
        assert list(rows(http, "AllergyIntolerance?patient=pat-1")) == ["all-1"]


def test_epic_18_a_birthdate_alone_finds_no_one(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert [row["resourceType"] for row in naive.by_links("Patient?birthdate=1980-01-01")] == ["OperationOutcome"]
        assert http.get("Patient?birthdate=1980-01-01").json()["total"] == 0
        assert list(rows(http, "Patient?birthdate=1980-01-01&family=Fam1")) == ["pat-1"]
        assert list(rows(http, "Patient?identifier=urn:oid:1.2.3|MRN1")) == ["pat-1"]


def test_epic_19_a_filter_that_is_not_known_is_ignored_and_echoed(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.changed_since("Condition?patient=pat-1", "2027-01-01") == ["con-1-0", "con-1-1"]
        bundle = http.get("Condition?patient=pat-1&_lastUpdated=gt2027-01-01").json()
        assert "_lastUpdated=gt2027-01-01" in bundle["link"][-1]["url"]
        found = [e["resource"] for e in bundle["entry"]]
        assert [row for row in found if row["meta"]["lastUpdated"] > "2027"] == [], "asked again of the rows"


def test_epic_20_the_query_of_a_posted_search_is_ignored(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.posted("Observation", "patient=pat-1", category="vital-signs").status_code == 400
        answer = http.post("Observation/_search", data={"patient": "pat-1", "category": "vital-signs"})
        assert answer.json()["total"] == 30
        form = {"patient": "pat-2", "category": "vital-signs"}
        both = http.post("Observation/_search?patient=pat-1&_format=json", data=form)
        assert both.json()["entry"][0]["resource"]["subject"]["reference"] == "Patient/pat-2"
        assert http.post("Observation/_search", json=form).status_code == 400


def test_epic_21_a_search_that_matches_more_than_a_hundred_people_finds_none(serve_ehr: ServeEhr) -> None:
    names = '"name":[{"family":"Fam%d"}],"birthDate":"1980-01-01"'
    ehr = serve_ehr("epic", data=[_line("Patient", f"pat-{n}", names % n) for n in range(1, 102)])
    path = "Patient?family=Fam&birthdate=1980-01-01"
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page(path) == [], "passes for no one"
        refused = http.get(path)
        assert (refused.status_code, code(refused)) == (400, "4127")
        assert list(rows(http, "Patient?family=Fam101&birthdate=1980-01-01")) == ["pat-101"]


def test_epic_22_a_search_names_one_patient(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page("Condition?patient=pat-1,pat-2") == []
        assert code(http.get("Condition?patient=pat-1,pat-2")) == "4112"
        assert sum(len(rows(http, f"Condition?patient=pat-{n}")) for n in (1, 2)) == 4


@pytest.mark.parametrize("category", ["procedure", "therapy", "activity"])
def test_epic_23_some_categories_are_server_errors(serve_ehr: ServeEhr, category: str) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page(f"Observation?patient=pat-1&category=vital-signs,{category}") == []
        assert http.get(f"Observation?patient=pat-1&category={category}").status_code == 500
        assert len(rows(http, "Observation?patient=pat-1&category=vital-signs")) == 30


def test_epic_24_an_unknown_id_is_59008_and_a_deleted_one_4103(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    ehr.dataset.delete("Condition", "con-1-0")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.read("Condition/con-1-0") == naive.read("Condition/never"), "the two look alike"
        gone, never = http.get("Condition/con-1-0"), http.get("Condition/never")
    assert [(answer.status_code, code(answer)) for answer in (gone, never)] == [(404, "4103"), (404, "59008")]


def test_epic_25_ids_from_elsewhere_are_refused(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page("Condition?_id=from-another-server") == [], "passes for no data"
        assert http.get("Condition?_id=from-another-server").status_code == 400
        assert list(rows(http, "Condition?_id=con-1-0")) == ["con-1-0"]


def test_epic_26_episodes_cannot_be_listed_and_are_read_one_by_one(serve_ehr: ServeEhr) -> None:
    episode = _line("EpisodeOfCare", "epi-1", '"status":"active","patient":{"reference":"Patient/pat-1"}')
    ehr = serve_ehr("epic", data=[*small_data(), episode])
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page("EpisodeOfCare?patient=pat-1") == []
        assert code(http.get("EpisodeOfCare?patient=pat-1")) == "59108"
        assert http.get("EpisodeOfCare/epi-1").json()["id"] == "epi-1"


def test_epic_27_an_api_missing_from_the_app_is_a_bare_403(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", forbidden_types=("Condition",))
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.trusting_200("Condition?patient=pat-1") == [], "passes for no data"
        refused = http.get("Condition?patient=pat-1")
        assert (refused.status_code, refused.content) == (403, b"")
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
        assert rows(http, "Encounter?patient=pat-1")


def test_epic_28_the_status_url_does_not_lie_under_the_base(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", polls=0)
    with NaiveClient(ehr) as naive, client(ehr) as http:
        url = naive.export(f"Group/{ehr.group_id}/$export").headers["Content-Location"]
        rebuilt = f"BulkRequest/{url.rpartition('/')[2]}"
        assert http.get(rebuilt).status_code == 404
        assert http.get(url).status_code == 200


@pytest.mark.parametrize("query", ["_type=Patient", "_since=2026-01-01T00:00:00Z"])
def test_epic_29_patients_alone_and_changes_are_not_exported(serve_ehr: ServeEhr, query: str) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.export(f"Group/{ehr.group_id}/$export?{query}").status_code == 400
        assert export(http, f"Group/{ehr.group_id}/$export?_type=Patient,Condition")[0].status_code == 200


def test_epic_30_a_login_is_refused_occasionally(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    ehr.faults.add({"match": {"purpose": "token"}, "nth": 1, "action": {"status": 400}})
    with pytest.raises(json.JSONDecodeError):
        NaiveClient(ehr)
    assert ask_token(ehr).status_code == 200, "asked a second time, with a new assertion"


def test_epic_31_some_sites_want_the_client_id_in_a_header(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic", client_id_header="Epic-Client-ID")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.trusting_200("Condition?patient=pat-1") == []
        assert http.get("Condition?patient=pat-1").status_code == 403
        http.headers["Epic-Client-ID"] = ehr.client_id
        assert len(rows(http, "Condition?patient=pat-1")) == 2


def test_epic_32_next_comes_before_self(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len({row["id"] for row in naive.by_the_last_link(LABS)}) == 40, "round and round on page 1"
        assert len(rows(http, LABS)) == 90


def test_epic_33_system_scopes_and_algorithms_are_not_advertised(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    configuration = get(f"{ehr.base_url}/.well-known/smart-configuration").json()
    assert not [scope for scope in configuration["scopes_supported"] if scope.startswith("system/")]
    with pytest.raises(KeyError):
        configuration["token_endpoint_auth_signing_alg_values_supported"]
    granted = ask_token(ehr, scope=None).json()["scope"].split()
    assert {"system/Patient.r", "system/Patient.s"} <= set(granted), "r and s are granted apart, whatever was asked"


def test_epic_34_another_page_of_a_search_needs_the_accept_header_too(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("epic")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        link = str(next_link(http.get(LABS).json()))
        with pytest.raises(json.JSONDecodeError):
            naive.without_accept(link)
        assert http.get(link, headers={"Accept": JSON}).json()["total"] == 40
