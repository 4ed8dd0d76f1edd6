"""Cases that fell once, by the number of their folder in the shared ones; the servers are written here anew."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.changing_export import CONDITIONS, PATIENTS, Export
from tests.acceptance.small_server import bundle, lines, row, small_server, statement
from tests.fix_store import database
from tests.user_site import Site, mock, reachable

BOM = b"\xef\xbb\xbf"


def test_case_01_an_error_file_that_is_one_pretty_printed_outcome_deletes_nothing_and_is_a_hole(site: Site) -> None:
    issue = {"severity": "error", "code": "exception", "diagnostics": "one Condition could not be written"}
    with small_server() as small:
        export = Export(small)
        site.connect(small.served, types=["Patient", "Condition"])
        site.sync()
        export.files["Condition"] = lines(CONDITIONS[0])
        export.files["errors"] = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}, indent=2).encode()
        export.more = {"error": [{**export.listed("errors")[0], "count": 1}]}
        small.paths.clear()
        run = site.sync(code=3)["runs"][0]
        assert small.paths.count("/files/errors") == 1
        export.files["Condition"], export.more = lines(CONDITIONS[0]), {}
        healed = site.sync()["runs"][0]
    assert (run["status"], run["deleted"], run["quarantined"]) == ("partial", 0, 0)
    assert "1 error (exception)" in run["holes"][0]["reason"]
    assert (healed["status"], healed["deleted"]) == ("complete", 1)


def test_case_05_a_manifest_without_output_is_an_empty_export_and_makes_no_tombstone(site: Site) -> None:
    with small_server() as small:
        export = Export(small)
        site.connect(small.served)
        site.sync()
        for nothing in ("left out", None, [{"type": "Condition", "url": None, "count": 0}]):
            export.more = {"output": nothing}
            run = site.sync(code=4)["runs"][0]
            assert (run["status"], run["deleted"], run["holes"]) == ("nothing", 0, [])
            assert any("lists no file" in note for note in run["notes"])
    assert len(site.exported()) == 4


def test_case_08_a_byte_order_mark_before_manifest_token_and_resource_is_dropped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    with small_server() as small:
        export = Export(small)
        export.mark = BOM
        referring = row("Condition", "c1", "p1", asserter={"reference": "Practitioner/d1"})
        export.files = {"Patient": lines(*PATIENTS), "Condition": lines(referring)}

        def answer(path: str, query: dict[str, str]) -> Any:
            marked: dict[str, Any] = {
                "/.well-known/smart-configuration": {"token_endpoint": f"{small.base}/token"},
                "/token": {"access_token": "x", "token_type": "bearer", "expires_in": 300},
                "/Practitioner/d1": row("Practitioner", "d1"),
            }
            return BOM + json.dumps(marked[path]).encode() if path in marked else export.answer(path, query)

        small.answer = answer
        site.connect(small.served, client_id="c", client_secret="env:A_SECRET")
        run = site.sync()["runs"][0]
    assert (run["status"], run["holes"]) == ("complete", [])
    assert set(site.exported()) == {("Patient", "p1"), ("Patient", "p2"), ("Condition", "c1"), ("Practitioner", "d1")}


def test_case_09_the_minimum_date_of_dotnet_moves_no_watermark(site: Site) -> None:
    rows = {
        "Patient": [row("Patient", "p1")],
        "Observation": [row("Observation", "o1", "p1", meta={"lastUpdated": "0001-01-01T00:00:00Z"})],
    }

    def answer(path: str, query: dict[str, str]) -> Any:
        if path == "/metadata":
            return statement("Patient", "Observation", parameters=("_lastUpdated",))
        return bundle(*rows[path[1:]]) if path[1:] in rows else None

    with small_server() as small:
        small.answer = answer
        site.connect(small.served, profile={"changes.incremental": True})
        runs = [site.sync()["runs"][0] for _ in range(3)]
    assert [(run["status"], run["deleted"]) for run in runs] == [("complete", 0)] * 3
    assert [run["id"] for run in runs] == [1, 2, 3], "each night is a run of its own, and none resumes a broken one"


def test_case_15_a_next_link_in_capitals_or_as_uri_is_followed_and_an_unknown_one_proves_no_deletion(
    site: Site,
) -> None:
    spelt = {"next": "next"}

    def answer(path: str, query: dict[str, str]) -> Any:
        if path == "/metadata":
            return statement("Patient", "Condition")
        if path == "/Condition":
            return bundle(*(one for one in CONDITIONS if one["subject"]["reference"][8:] in query["patient"]))
        if path.startswith("/Patient/"):
            return next(one for one in PATIENTS if path.endswith(f"/{one['id']}"))
        if path == "/Patient" and "page" in query:
            return bundle(PATIENTS[1])
        if path == "/Patient":
            return bundle(PATIENTS[0], link=[{"relation": spelt["next"], "url": f"{small.base}/Patient?page=2"}])
        return None

    with small_server() as small:
        small.answer = answer
        site.connect(small.served)
        site.sync()
        for spelt["next"] in ("Next", "https://www.iana.org/assignments/relation/next"):
            run = site.sync()["runs"][0]
            assert (run["status"], run["unchanged"], run["deleted"]) == ("complete", 4, 0)
        spelt["next"] = "further"
        run = site.sync()["runs"][0]
    assert (run["status"], run["deleted"]) == ("complete", 0)
    assert len(site.exported()) == 4


def test_case_10_a_database_with_its_own_datestyle_syncs_and_exports(site: Site, store_url: str) -> None:
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {conn.info.dbname} SET datestyle = 'SQL, DMY'")  # type: ignore[call-overload]
    with mock("generic", patients=2) as served:
        site.connect(served)
        site.sync()
        expected = reachable(served)
    assert site.exported() == expected


def test_case_10_a_database_of_sql_ascii_is_refused_by_name(tmp_path: Path, store_server: str) -> None:
    how = "ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    with database(store_server, f"ascii_{secrets.token_hex(4)}", how) as url, mock("generic") as served:
        site = Site(tmp_path, url)
        site.connect(served)
        for words in (("sync",), ("export", "--out", "out")):
            done = site.run(*words)
            assert done.code == 5
            assert "encoding SQL_ASCII, which cannot hold FHIR" in done.stderr
