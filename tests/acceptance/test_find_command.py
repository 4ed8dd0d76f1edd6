"""Somebody knows who a patient is, and not the id."""

from __future__ import annotations

import base64

import pytest

from tests.user_site import Site, mock, source

KEY = base64.b64encode(bytes([1]) * 32).decode()


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_a_patient_is_found_by_search_terms_and_stdout_has_only_the_id(site: Site, key: str | None) -> None:
    site.encrypt(key)
    with mock("generic", patients=3) as served:
        name = site.connect(served)
        early = site.run("find", name, "--ssn", "-", stdin="000-00-0000")
        assert (early.code, early.stdout, f"{name} was never synced" in early.stderr) == (4, "", True)
        site.sync()
        who, person = next(iter(source(served, ["Patient"]).items()))
    mrn, family, born = person["identifier"][0], person["name"][0]["family"], person["birthDate"]
    term = f"{mrn['system']}|{mrn['value']}"
    found = site.run("find", name, "--mrn", "-", stdin=term)
    assert (found.code, found.stdout) == (0, f"{who[1]}\n")
    named = site.run("find", name, "--name", "-", "--birth-date", "-", "--json", stdin=f"{family.upper()}\n{born}\n")
    assert named.json == {"status": "complete", "count": 1, "patients": [who[1]]}
    nobody = site.run("find", name, "--ssn", "-", stdin="000-00-0000")
    assert (nobody.code, nobody.stdout) == (4, "")
    assert not [value for value in (mrn["value"], family, born) if value in found.stderr + named.stderr + nobody.stderr]
    (event, _) = site.run("audit", "--patient", who[1], "--json").json["reads"]
    assert (event["action"], event["types"]) == ("find", ["Patient"])


def test_an_invalid_search_term_is_refused_without_being_quoted(site: Site) -> None:
    for words, message in (
        (("--ssn", "12-secret"), "9 digits"),
        (("--mrn", "secret"), "SYSTEM|VALUE"),
        (("--name", "secret", "--birth-date", "3.2.1950"), "YYYY-MM-DD"),
        (("--name", "secret"), "must be given together"),
        (("--mrn", "urn:x|secret\udcff"), "the identifier is not UTF-8"),
        ((), "exactly one of"),
    ):
        refused = site.run("find", "mercy", *words)
        assert (refused.code, message in refused.stderr, "secret" in refused.stderr) == (2, True, False)
