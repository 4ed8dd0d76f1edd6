"""A clinic whose store is encrypted: a stolen dump names nobody, and the clinic itself notices no difference."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from mocks.serving import Served
from tests.passing_postgres import PROGRAMS
from tests.user_site import Site, csv_rows, mock, reachable, source

KEY, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
ELEMENTS = ("name", "birthDate", "identifier", "address", "telecom", "photo", "contact")
KINDS = {"use", "system", "type", "period", "relationship", "contentType", "url", "country", "state", "city", "gender"}


def values(element: Any) -> Iterator[str]:
    """The texts in an element, but for kinds, and places that others live in too."""
    if isinstance(element, dict):
        for name, value in element.items():
            yield from values(value) if name not in KINDS else ()
    elif isinstance(element, list):
        for value in element:
            yield from values(value)
    elif isinstance(element, str):
        yield element


def words_about_people(served: Served) -> set[str]:
    people = [one for (kind, _), one in source(served, ["Patient", "RelatedPerson"]).items()]
    found = {text for person in people for element in ELEMENTS for text in values(person.get(element))}
    words = {text for text in found if len(text) > 5}  # a shorter number stands somewhere in any dump
    assert len(words) > 20
    return words


def dumped(store_url: str) -> str:
    return subprocess.run([PROGRAMS / "pg_dump", store_url], capture_output=True, check=True).stdout.decode()


def test_a_dump_after_a_sync_names_no_patient_and_an_export_equals_the_ehr(site: Site, store_url: str) -> None:
    site.encrypt(KEY)
    with mock("epic", documents=True, patients=3) as served:
        name = site.connect(served)
        site.sync()
        again = site.sync()
        dump, words = dumped(store_url), words_about_people(served)
        exported = site.exported("--format", "ndjson")
        chart = site.run("pull", name, served.patient_ids[0], "--stored", "--out", "-")
    assert [text for text in sorted(words) if text in dump] == []
    assert [(run["new"], run["changed"]) for run in again["runs"]] == [(0, 0)]
    assert exported == reachable(served)
    assert "~sealed:" not in chart.stdout


def test_encrypting_existing_charts_changes_nothing_else(site: Site, store_url: str) -> None:
    with mock("epic", documents=True, patients=3) as served:
        name = site.connect(served)
        site.sync()
        words = words_about_people(served)
        assert any(text in dumped(store_url) for text in words)
        site.encrypt(KEY)
        refused = site.run("sync")
        checked = [site.run("config", "check", "--connect")]
        done = site.run("keys", "rotate-store")
        checked.append(site.run("config", "check", "--connect"))
        dump = dumped(store_url)
        again = site.sync()
        proved = site.run("prove", name)
        exported = site.exported("--format", "ndjson")
    assert (refused.code, "`chartferry keys rotate-store`" in refused.stderr) == (5, True), refused.stderr
    assert [one.code for one in checked] == [5, 0]
    assert ["rotate-store` encrypts" in checked[0].stdout, "the keys fit" in checked[1].stdout] == [True, True]
    assert (done.code, "VACUUM FULL" in done.stdout) == (0, True), done.stdout
    assert [text for text in sorted(words) if text in dump] == []
    assert [(run["new"], run["changed"]) for run in again["runs"]] == [(0, 0)]
    assert proved.code == 0, proved.stderr
    assert exported == reachable(served)


def test_an_erasure_that_could_not_search_everything_says_so(site: Site, store_url: str) -> None:
    site.encrypt(KEY)
    with mock("generic", patients=2) as served:
        name = site.connect(served)
        site.sync()
        who, other = served.patient_ids
    with psycopg.connect(store_url) as conn:
        damaged = (
            """UPDATE tenant_default.resource_stored SET body = jsonb_set(body, '{name,0,family}', '"~sealed:1:k1:"')"""
        )
        conn.execute(f"{damaged} WHERE id = %s", [other])
    done = site.run("erase", name, who, "--yes")
    assert (done.code, "not shown to be complete: 1 value cannot" in done.stdout) == (3, True), done.stdout
    again = site.run("erase", name, who, "--yes", "--json")
    assert (again.code, again.json["status"], again.json["rows"]) == (3, "partial", {})
    assert again.json["unread"][0].endswith(", /name/0/family")


@pytest.mark.parametrize(("key", "message"), [(None, "no keys are configured"), (OTHER, "key k1 is not the one")])
def test_without_the_key_nothing_is_read_or_written(site: Site, key: str | None, message: str) -> None:
    site.encrypt(KEY)
    assert site.run("runs").code == 4
    site.encrypt(key)
    for words in (["runs"], ["export", "--out", "out"]):
        done = site.run(*words)
        assert (done.code, message in done.stderr) == (5, True), done.stderr
    assert not (site.folder / "out").exists()


def test_a_view_may_show_encrypted_elements_but_not_compute_with_them(site: Site) -> None:
    site.encrypt(KEY)
    with mock("generic", patients=1) as served:
        site.connect(served)
        site.sync()
        (person,) = source(served, ["Patient"]).values()
    done = site.run("export", "--out", "out", "--format", "csv", "--view", "omop_person")
    assert (done.code, "'birthDate' is encrypted in this store" in done.stderr) == (2, True)
    done = site.run("export", "--out", "out", "--format", "ndjson", "--where", "Patient.birthDate < @1950-01-01")
    assert (
        done.code,
        "'birthDate' is encrypted in this store, so SQL cannot read it at character 9" in done.stderr,
    ) == (2, True)
    assert "1950" not in done.stderr
    assert not (site.folder / "out").exists()
    assert site.run("export", "--out", "out", "--format", "csv").code == 0
    (row,) = csv_rows(site.folder / "out" / "patient.csv.gz")
    assert row["family_name"] == person["name"][0]["family"]
    assert row["birth_date"] == person["birthDate"]


def test_after_a_rotation_the_old_key_is_not_needed_and_nothing_has_changed(site: Site) -> None:
    site.encrypt(KEY)
    with mock("generic", patients=2) as served:
        site.connect(served)
        site.sync()
        assert site.run("export", "--out", "before", "--format", "ndjson").code == 0
        assert site.run("keys", "rotate-store").code == 4
        site.encrypt(OTHER, "k2", former={"k1": KEY})
        done = site.run("keys", "rotate-store", "--json")
        assert (done.code, done.json["status"], done.json["damaged"]) == (0, "complete", 0)
        site.encrypt(OTHER, "k2")
        assert sum(one["changed"] for one in site.sync()["runs"]) == 0
    assert site.run("export", "--out", "after", "--format", "ndjson").code == 0
    before, after = (site.folder / name / "Patient.ndjson.gz" for name in ("before", "after"))
    assert before.read_bytes() == after.read_bytes()
