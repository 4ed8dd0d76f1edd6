"""What all manners do in the same way, on a real socket."""

from __future__ import annotations

import gzip
from urllib.parse import quote

import orjson
import pytest

from mocks.keys import make_key_pair
from mocks.manners import MANNERS
from tests.fix_ehr import ServeEhr, small_data
from tests.integration.mocks.raw_client import ask_token, assertion, client, export, get, ids, pages, post

VENDORS = sorted(MANNERS)


def lab(who: str) -> str:
    return f"Observation?patient={who}&category=laboratory"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_careful_client_pages_through_all_observations_of_a_patient(serve_ehr: ServeEhr, vendor: str) -> None:
    ehr = serve_ehr(vendor)
    with client(ehr, patient="pat-2") as http:
        found = pages(http, lab("pat-2") + ("&_count=40" if vendor == "epic" else ""))
    expected = {f"obs-2-{o}" for o in range(120) if o % 4}
    assert set(ids(found)) == expected
    assert len(found) > 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_some_vendors_answer_a_summary_count_with_pages(serve_ehr: ServeEhr, vendor: str) -> None:
    ehr = serve_ehr(vendor)
    with client(ehr, patient="pat-1") as http:
        counted = http.get(lab("pat-1") + "&_summary=count").json()
    if vendor in {"epic", "generic"}:
        assert (counted["total"], counted.get("entry")) == (90, None)
    else:
        assert counted["entry"]


@pytest.mark.parametrize("vendor", VENDORS)
def test_search_read_and_files_give_the_source_bytes_untouched(serve_ehr: ServeEhr, vendor: str) -> None:
    ehr = serve_ehr(vendor)
    source = {orjson.loads(line)["id"]: line for line in small_data()}
    with client(ehr) as http:
        page = http.get(lab("pat-1"))
        read = http.get("Observation/obs-1-2")
    assert b'"resource":' + source["obs-1-1"] + b"," in page.content
    assert read.content == source["obs-1-2"]


@pytest.mark.parametrize("vendor", [name for name in VENDORS if MANNERS[name].bulk_levels])
def test_a_group_export_gives_every_row_of_its_types_as_source_bytes(serve_ehr: ServeEhr, vendor: str) -> None:
    ehr = serve_ehr(vendor, rows_per_file=50, max_parallel_files=None)
    with client(ehr) as http:
        manifest, status_url = export(http, f"Group/{ehr.group_id}/$export?_type=Patient,Observation")
        lines = []
        for file in manifest.json()["output"]:
            answer = http.get(file["url"], headers={"Accept": "application/fhir+ndjson"})
            if answer.status_code == 307:
                answer = get(answer.headers["location"], headers={"Accept-Encoding": "gzip"})
            assert answer.headers["content-encoding"] == "gzip"
            lines += answer.content.splitlines()
        wanted = [line for line in small_data() if orjson.loads(line)["resourceType"] in ("Patient", "Observation")]
        assert sorted(lines) == sorted(wanted)
        assert http.delete(status_url).status_code == 202
        assert http.get(status_url).status_code == 404


def test_a_file_is_plain_ndjson_for_clients_that_do_not_accept_gzip(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", open=True)
    with client(ehr) as http:
        manifest, _ = export(http, "$export?_type=Location")
        (file,) = manifest.json()["output"]
        answer = http.get(file["url"], headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in answer.headers
    assert answer.content == next(line for line in small_data() if b'"Location"' in line) + b"\n"


def test_large_answers_are_gzip_encoded_on_request(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic")
    with client(ehr) as http, http.stream("GET", lab("pat-1"), headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert orjson.loads(gzip.decompress(raw))["total"] == 90


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("flaw", "why"),
    [
        ({"aud": "https://elsewhere.example.org/token"}, "aud"),
        ({"exp": 4_000_000_000}, "300 s ahead"),
        ({"exp": 1_000_000_000}, "past"),
        ({"iss": "someone-else"}, "iss and sub"),
        ({"header": {"kid": "unknown"}}, "0 registered keys"),
    ],
)
def test_a_flawed_assertion_is_refused(serve_ehr: ServeEhr, vendor: str, flaw: dict, why: str) -> None:
    ehr = serve_ehr(vendor)
    answer = ask_token(ehr, jwt_text=assertion(ehr, **flaw))
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] == "invalid_client"
    assert why in ehr.log.of("token")[-1].note


@pytest.mark.parametrize("vendor", sorted(set(VENDORS) - {"va"}))
def test_an_assertion_without_jti_is_refused(serve_ehr: ServeEhr, vendor: str) -> None:
    ehr = serve_ehr(vendor)
    assert ask_token(ehr, jwt_text=assertion(ehr, jti=None)).json()["error"] == "invalid_client"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_jti_is_accepted_only_once(serve_ehr: ServeEhr, vendor: str) -> None:
    ehr = serve_ehr(vendor)
    text = assertion(ehr)
    assert ask_token(ehr, jwt_text=text).status_code == 200
    assert ask_token(ehr, jwt_text=text).status_code in (400, 401)


def test_an_assertion_of_another_key_is_refused(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic")
    answer = ask_token(ehr, jwt_text=assertion(ehr, key=make_key_pair("ES384").private))
    assert answer.status_code == 401
    assert ehr.log.of("token")[-1].note == "the signature does not verify"


@pytest.mark.parametrize("alg", ["ES384", "RS384"])
def test_both_smart_algorithms_are_accepted(serve_ehr: ServeEhr, alg: str) -> None:
    assert ask_token(serve_ehr("generic", alg=alg)).status_code == 200


def test_a_client_secret_is_accepted_by_basic_and_by_post(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", client_secret="s3cret/+")
    form = {"grant_type": "client_credentials", "scope": "system/*.read"}
    basic = post(ehr.token_url, data=form, auth=(ehr.client_id, quote("s3cret/+", safe="")))
    in_form = post(ehr.token_url, data={**form, "client_id": ehr.client_id, "client_secret": "s3cret/+"})
    wrong = post(ehr.token_url, data={**form, "client_id": ehr.client_id, "client_secret": "other"})
    assert [basic.status_code, in_form.status_code, wrong.status_code] == [200, 200, 401]


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_token_and_an_expired_token_are_refused(serve_ehr: ServeEhr, vendor: str) -> None:
    ehr = serve_ehr(vendor, token_life_s=60)
    with client(ehr) as http:
        assert http.get(lab("pat-1")).status_code == 200
        for token, grant in list(ehr.ehr.grants.items()):
            ehr.ehr.grants[token] = type(grant)(grant.client_id, grant.scopes, grant.literal, 0, grant.patient)
        expired = http.get(lab("pat-1"))
        naked = get(f"{ehr.base_url}/{lab('pat-1')}", headers={"Accept": "application/fhir+json"})
    assert (expired.status_code, naked.status_code) == (401, 401)
    assert expired.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_capability_statement_names_what_the_server_does(serve_ehr: ServeEhr, vendor: str) -> None:
    ehr = serve_ehr(vendor)
    answer = get(f"{ehr.base_url}/metadata", headers={"Accept": "application/fhir+json"})
    rest = answer.json()["rest"][0]
    resources = {one["type"]: one for one in rest["resource"]}
    with client(ehr) as http:
        for kind, declared in resources.items():
            if "search-type" not in {one["code"] for one in declared["interaction"]}:
                continue
            if "patient" in {one["name"] for one in declared["searchParam"]}:
                url = f"{kind}?patient=pat-1" + ("&category=laboratory" if kind == "Observation" else "")
                assert http.get(url).json()["entry"], kind
    assert any("operation" in one for one in rest["resource"]) == bool(MANNERS[vendor].bulk_levels)


def test_an_open_server_requires_no_login(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", open=True)
    assert get(f"{ehr.base_url}/Patient?_count=2").json()["total"] == 3
    assert get(f"{ehr.base_url}/.well-known/smart-configuration").status_code == 404
    assert "security" not in get(f"{ehr.base_url}/metadata").json()["rest"][0]
