"""The mock is as odd as Allscripts and as strict as VA Lighthouse (vendor-facts 3.5, 4.4)."""

from __future__ import annotations

from tests.fix_ehr import ServeEhr
from tests.integration.mocks.raw_client import JSON, SCOPES, ask_token, assertion, client, get, ids, pages

OBSERVATIONS = "Observation?patient=pat-1"


def test_allscripts_misspells_a_discovery_key_and_names_a_foreign_issuer(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    smart = get(f"{ehr.base_url}/.well-known/smart-configuration").json()
    assert "token_endpoint_auth_methods_supported" not in smart
    assert "private_key_jwt" not in smart["token_endpoint_auth_methods"]
    assert not smart["issuer"].startswith(ehr.base_url)
    assert smart["token_endpoint"] == ehr.token_url


def test_allscripts_sends_an_old_content_type_and_a_web_page_for_unknown_paths(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    with client(ehr) as http:
        assert http.get(OBSERVATIONS).headers["content-type"] == "application/json+fhir; charset=utf-8"
        soft = http.get("$export", headers={"Prefer": "respond-async"})
    assert (soft.status_code, soft.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_allscripts_pages_have_a_total_and_a_previous_link(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("allscripts")) as http:
        found = pages(http, OBSERVATIONS)
    assert [page["total"] for page in found] == [120, 120, 120]
    assert [link["relation"] for link in found[1]["link"]] == ["self", "next", "previous"]


def test_allscripts_refuses_what_is_too_large_and_narrowing_helps(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("allscripts", max_rows=100)) as http:
        assert http.get(OBSERVATIONS).status_code == 413
        assert http.get(OBSERVATIONS + "&category=laboratory").status_code == 200


def test_allscripts_can_redact_records_instead_of_leaving_them_out(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("allscripts", redact_every=10)) as http:
        entries = http.get(OBSERVATIONS).json()["entry"]
    redacted = [entry for entry in entries if "security" in entry["resource"]["meta"]]
    assert len(redacted) == 5
    assert set(redacted[0]["resource"]) == {"resourceType", "id", "meta"}


def test_allscripts_exports_with_a_kickoff_body_and_percent_progress(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("allscripts")
    with client(ehr) as http:
        begun = http.get(f"Group/{ehr.group_id}/$export", headers={"Prefer": "respond-async"})
        waiting = http.get(begun.headers["content-location"])
        manifest = http.get(begun.headers["content-location"]).json()
    assert "ExportRequestID" in begun.json()
    assert waiting.headers["x-progress"] == "50.0% complete"
    assert {"Organization", "Observation"} <= {one["type"] for one in manifest["output"]}


def test_va_requires_its_own_audience_and_rs256(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    assert ehr.audience != ehr.token_url
    refused = ask_token(ehr, jwt_text=assertion(ehr, aud=ehr.token_url))
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert ask_token(ehr).status_code == 200


def test_va_requires_the_launch_scope_and_its_patient(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    assert ask_token(ehr, scope=SCOPES).json()["error"] == "invalid_scope"
    assert ask_token(ehr, scope="launch system/*.read").json()["error"] == "invalid_scope"
    assert ask_token(ehr, launch="not base64").json()["error"] == "invalid_request"
    assert ask_token(ehr, launch=None).json()["error"] == "invalid_request"


def test_va_restricts_a_token_to_its_patient(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("va"), patient="pat-2") as http:
        other = [http.get(path) for path in (OBSERVATIONS, "Patient/pat-1", "Patient?_id=pat-1", "Condition/con-1-0")]
        nobody = http.get("Condition")
        by_name = http.get("Patient?name=Fam")
        assert http.get("Patient/pat-2").status_code == 200
        assert http.get("Organization/org-1").status_code == 200
    for answer in other:
        assert answer.status_code == 403
        assert answer.json()["issue"][0]["details"]["text"] == "Token not allowed access to this patient."
    assert nobody.json()["issue"][0]["details"]["text"] == "Patient identifier not supplied."
    assert by_name.json()["issue"][0]["details"]["text"] == "Patient searching disabled."


def test_va_compares_scopes_literally(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("va"), scope="launch system/Patient.read") as http:
        answer = http.get(OBSERVATIONS)
    assert (answer.status_code, answer.json()["id"]) == (403, "exception")
    assert answer.json()["issue"][0]["details"]["text"] == "Token not granted requested scope."


def test_va_pages_by_number_and_clamps_the_count(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("va")) as http:
        default = pages(http, OBSERVATIONS + "&unknown=1")
        greatest = http.get(OBSERVATIONS + "&_count=5000").json()
        counted = http.get(OBSERVATIONS + "&_count=0").json()
        assert http.get(OBSERVATIONS + "&_count=-1").status_code == 400
    assert [len(page["entry"]) for page in default] == [30, 30, 30, 30]
    assert len(set(ids(default))) == 120
    assert [link["relation"] for link in default[1]["link"]] == ["first", "self", "prev", "next", "last"]
    assert "unknown" not in default[0]["link"][0]["url"]
    assert len(greatest["entry"]) == 100
    assert (counted["total"], "entry" in counted) == (120, False)


def test_va_ignores_unknown_categories_silently(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("va")) as http:
        answer = http.get(OBSERVATIONS + "&category=nonsense")
        assert http.get("Condition?patient=pat-1&_id=con-1-0").status_code == 400
    assert (answer.status_code, answer.json()["total"]) == (200, 0)


def test_va_offers_no_export(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va")
    with client(ehr) as http:
        assert http.get(f"Group/{ehr.group_id}/$export", headers={"Prefer": "respond-async"}).status_code == 404
    text = get(f"{ehr.base_url}/metadata", headers={"Accept": JSON}).text
    assert "export" not in text
