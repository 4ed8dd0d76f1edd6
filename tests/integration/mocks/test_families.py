"""Families of plain servers (docs/mocks.md): what a naive client runs into at each, and what a careful one gets."""

from __future__ import annotations

import base64
from urllib.parse import unquote

from tests.fix_ehr import ServeEhr
from tests.integration.mocks.naive_client import NaiveClient
from tests.integration.mocks.raw_client import client, export, get, next_link, rows

OBSERVATIONS = "Observation?patient=pat-1"  # 120 rows
NDJSON = {"Accept": "application/fhir+ndjson"}


def test_hapi_pages_lie_at_the_base_and_not_at_the_type(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", family="hapi")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert len({row["id"] for row in naive.by_own_offsets(OBSERVATIONS, 50, 120)}) == 50
        link = str(next_link(http.get(OBSERVATIONS).json()))
        assert link.startswith(f"{ehr.base_url}?_getpages=")
        assert len(rows(http, OBSERVATIONS)) == 120
        ehr.ehr.sessions.clear()
        assert http.get(link).status_code == 410


def test_hapi_wraps_files_unless_ndjson_is_requested_and_deletes_finished_jobs_itself(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", family="hapi")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        manifest, url = export(http, "Patient/$export?_type=Patient")
        file = manifest.json()["output"][0]["url"]
        wrapped = naive.http.get(file).json()
        assert wrapped["resourceType"] == "Binary", "one line, of the wrong type"
        assert base64.b64decode(wrapped["data"]) == http.get(file, headers=NDJSON).content
        assert http.delete(url).status_code == 404


def test_azure_pages_by_tokens_longer_than_many_url_limits(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", family="azure")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        link = str(next_link(http.get(OBSERVATIONS).json()))
        assert len(link) > 4096
        assert len(naive.by_own_offsets(OBSERVATIONS, 50, 120)) == 150, "page 1 again and again"
        assert http.get(link[:4096]).status_code == 400
        assert len(rows(http, OBSERVATIONS)) == 120


def test_azure_puts_files_where_the_token_must_not_go(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", family="azure")
    with client(ehr) as http:
        manifest = export(http, "Patient/$export?_type=Patient")[0].json()
        (file,) = manifest["output"]
        assert (manifest["requiresAccessToken"], file["url"].startswith(ehr.store_origin)) == (False, True)
        assert http.get(file["url"]).status_code == 400, "the token went along"
        assert get(unquote(file["url"])).status_code == 403
        assert get(file["url"]).text.count("\n") == 3


def test_the_bulk_data_server_exports_and_searches_nothing(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", family="bulk-data-server")
    with NaiveClient(ehr) as naive, client(ehr) as http:
        assert naive.first_page("Patient") == []
        assert http.get("Patient").status_code == 400
        for path in ("$export", "Patient/$export", f"Group/{ehr.group_id}/$export"):
            manifest = export(http, path)[0].json()
            assert sum(file["count"] for file in manifest["output"] if file["type"] == "Observation") == 360, path
