"""The bulk servers that a knob makes of a mock: what each refuses to a naive client, and what it gives to a careful one."""

from __future__ import annotations

import orjson
import pytest

from tests.fix_ehr import ServeEhr
from tests.integration.mocks.raw_client import client, export

PREFER = {"Prefer": "respond-async"}
LIST = {"resourceType": "Parameters", "parameter": [{"name": "_type", "valueString": "Patient,Condition"}]}
REPEATED = {
    "resourceType": "Parameters",
    "parameter": [{"name": "_type", "valueString": kind} for kind in ("Patient", "Condition")],
}


def test_a_stu4_server_accepts_no_get_and_no_comma_lists(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("generic", bulk_version=4)) as http:
        assert http.get("$export", headers=PREFER).status_code == 405
        assert http.post("$export", headers=PREFER, json=LIST).status_code == 400
        assert http.post("$export", headers=PREFER, json=REPEATED).status_code == 202


def test_cerner_exports_patients_by_post_with_a_list_only(serve_ehr: ServeEhr) -> None:
    patient = {"name": "patient", "valueReference": {"reference": "Patient/pat-1"}}
    with client(serve_ehr("cerner")) as http:
        assert http.get("Patient/$export", headers=PREFER).status_code == 400
        assert http.post("Patient/$export", headers=PREFER, json=LIST).status_code == 400
        parameters = {"resourceType": "Parameters", "parameter": [patient]}
        assert http.post("Patient/$export", headers=PREFER, json=parameters).status_code == 202


def test_soarian_refuses_the_same_export_until_the_old_one_is_deleted(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("cerner", soarian=True)
    path = f"Group/{ehr.group_id}/$export?_type=Patient"
    with client(ehr) as http:
        answer, url = export(http, path)
        assert answer.status_code == 200
        assert http.get(path, headers=PREFER).status_code == 409
        gone = http.delete(url)
        assert (gone.status_code, gone.json()["resourceType"]) == (202, "OperationOutcome")
        again = http.get(path, headers=PREFER)
    assert (again.status_code, again.json()["resourceType"]) == (202, "OperationOutcome")


def test_an_unfinished_manifest_grows_by_pages_only_on_request(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", partial_manifests=True, files_per_manifest=1, polls=4)
    with client(ehr) as http:
        begun = http.get("$export?allowPartialManifests=true", headers=PREFER)
        url = begun.headers["Content-Location"]
        first, second = http.get(url), http.get(url)
        plain = http.get(http.get("$export", headers=PREFER).headers["Content-Location"])
    assert (first.status_code, first.content) == (202, b"")
    assert (second.status_code, len(second.json()["output"])) == (202, 1)
    assert (plain.status_code, plain.content) == (202, b"")


@pytest.mark.parametrize("tag", ['"another"', None])
def test_a_range_is_honoured_for_the_same_file_only(serve_ehr: ServeEhr, tag: str | None) -> None:
    with client(serve_ehr("generic", ranges=True, plain_files=True)) as http:
        manifest, _ = export(http, "$export?_type=Observation")
        url = manifest.json()["output"][0]["url"]
        whole = http.get(url)
        headers = {"Range": "bytes=100-", "If-Range": tag or whole.headers["ETag"]}
        rest = http.get(url, headers=headers)
        beyond = http.get(url, headers={"Range": f"bytes={len(whole.content)}-"})
    if tag is None:
        assert (rest.status_code, rest.content) == (206, whole.content[100:])
    else:
        assert (rest.status_code, rest.content) == (200, whole.content)
    assert beyond.status_code == 416


def test_links_in_a_manifest_expire_and_a_new_manifest_renews_them(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", manifest_life_s=60)
    with client(ehr) as http:
        manifest, status = export(http, "$export?_type=Patient")
        old = manifest.json()["output"][0]["url"]
        assert http.get(old).status_code == 200
        ehr.ehr.links.clear()
        assert http.get(old).status_code == 403
        assert http.get(http.get(status).json()["output"][0]["url"]).status_code == 200


def test_blocks_begin_with_a_header_and_name_their_continuation(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("generic", rows_per_file=50)) as http:
        manifest, _ = export(http, "$export?organizeOutputBy=Patient")
        output = manifest.json()["output"]
        first = [orjson.loads(http.get(entry["url"]).content.splitlines()[0]) for entry in output]
    assert manifest.json()["outputOrganizedBy"] == "Patient"
    assert all("type" not in entry for entry in output)
    assert {line["resourceType"] for line in first} == {"Parameters"}
    assert output[0]["continuesInFile"] == output[1]["url"]


def test_partial_resources_are_tagged_and_deleted_ones_are_bundles(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", deleted_file=True)
    ehr.dataset.delete("Condition", "con-1-0")
    with client(ehr) as http:
        manifest, _ = export(http, "$export?_type=Patient&_elements=birthDate&_since=2000-01-01T00:00:00Z")
        lines = http.get(manifest.json()["output"][0]["url"]).content.splitlines()
        bundle = orjson.loads(http.get(manifest.json()["deleted"][0]["url"]).content)
    assert {key for line in lines for key in orjson.loads(line)} == {"resourceType", "id", "meta", "birthDate"}
    assert all(orjson.loads(line)["meta"]["tag"][0]["code"] == "SUBSETTED" for line in lines)
    assert bundle["entry"] == [{"request": {"method": "DELETE", "url": "Condition/con-1-0"}}]


def test_a_separate_job_status_is_200_with_the_real_status_in_a_header(serve_ehr: ServeEhr) -> None:
    with client(serve_ehr("generic", separate_status=True)) as http:
        begun = http.get("$export", headers={"Prefer": "respond-async, separate-export-status"})
        first = http.get(begun.headers["Content-Location"])
        second = http.get(begun.headers["Content-Location"])
    assert "separate-export-status" in begun.headers["Preference-Applied"]
    assert (first.status_code, first.headers["X-Export-Status"]) == (200, "202 Accepted")
    assert (second.status_code, second.headers["X-Export-Status"]) == (200, "200 OK")
