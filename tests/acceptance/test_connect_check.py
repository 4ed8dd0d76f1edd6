"""Somebody asks before the night whether store and EHRs let him in: each step ok, warn or fail, with what to do."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from mocks.receiver import serve_receiver
from tests.acceptance.small_server import small_server, statement
from tests.user_site import Site, key_pair, mock


def check(site: Site, code: int) -> dict[tuple[str, str], dict[str, Any]]:
    done = site.run("config", "check", "--connect", "--json")
    assert done.code == code, f"exit {done.code}\n{done.stdout}\n{done.stderr}"
    return {(one["where"], one["step"]): one for one in done.json["steps"]}


def test_a_check_of_every_vendors_ehr_and_the_store_succeeds(site: Site, vendor: str) -> None:
    with mock(vendor) as served:
        name = site.connect(served)
        steps = check(site, 0)
        assert not [*served.log.of("kickoff"), *served.log.of("file")]
        exports = vendor in {"cerner", "allscripts"}
        assert len(served.log.of("search")) + len(served.log.of("read")) == (0 if exports else 1)
        shown = site.run("config", "check", "--connect")
    assert {one["verdict"] for one in steps.values()} == {"ok"}, steps
    assert {step for where, step in steps if where == "store"} == {"login", "server", "log", "rights", "walls"}
    assert {step for where, step in steps if where == name} >= {"dns", "tcp", "metadata", "token", "scopes", "search"}
    assert shown.code == 0
    assert "all is well" in shown.stdout
    assert not any(patient in shown.stdout for patient in served.patient_ids)
    assert site.run("runs", "--json").json["runs"] == []


def test_an_ehr_without_a_login_is_not_said_to_have_granted_anything(site: Site) -> None:
    with mock("generic", open=True) as served:
        name = site.connect(served)
        steps = check(site, 0)
    assert steps[name, "token"]["found"] == "no login is configured"
    assert (name, "scopes") not in steps


def test_an_unreachable_ehr_fails_its_check_and_the_others_are_still_checked(site: Site) -> None:
    with mock("generic") as served:
        good = site.connect(served, "good")
        site.connect(served, "nobody", base_url="http://127.0.0.1:9/fhir")
        site.connect(served, "nameless", base_url="https://ehr.invalid/fhir")
        site.connect(served, "elsewhere", base_url=f"{served.base_url}/nothing-here")
        steps = check(site, 5)
    assert steps[good, "search"]["verdict"] == "ok"
    assert (steps["nobody", "tcp"]["verdict"], "firewall" in steps["nobody", "tcp"]["advice"]) == ("fail", True)
    assert "(Connection refused)" in steps["nobody", "tcp"]["found"]
    assert steps["nameless", "dns"]["verdict"] == "fail"
    assert "base_url" in steps["elsewhere", "metadata"]["advice"]
    assert ("nobody", "metadata") not in steps


@pytest.mark.parametrize("hello", [0, 1], ids=["at once", "after our ClientHello"])
def test_a_port_that_closes_during_the_handshake_fails_its_check(site: Site, hello: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def close() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken, _ = listening.accept()
                    taken.recv(hello)
                    taken.close()

        threading.Thread(target=close, daemon=True).start()
        port = listening.getsockname()[1]
        with mock("generic") as served:
            name = site.connect(served, base_url=f"https://127.0.0.1:{port}/fhir")
            steps = check(site, 5)
        listening.shutdown(socket.SHUT_RDWR)
    assert steps[name, "tls"]["verdict"] == "fail"
    assert "during the handshake" in steps[name, "tls"]["found"]
    assert "https (or only http)" in steps[name, "tls"]["advice"]


def test_a_refused_login_fails_the_check_and_says_what_was_sent(site: Site) -> None:
    with mock("epic") as served:
        name = site.connect(served, client_id="someone-else")
        steps = check(site, 5)
    assert steps[name, "key"]["verdict"] == "ok"
    assert steps[name, "token"]["verdict"] == "fail"
    assert "invalid_client" in steps[name, "token"]["found"]
    assert (name, "search") not in steps


def test_an_ehr_that_requires_a_login_fails_the_check_if_none_is_configured(site: Site) -> None:
    refusal = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "login"}]}
    with small_server() as small:
        small.answer = lambda path, query: statement("Patient") if path == "/metadata" else (401, refusal, {})
        name = site.connect(small.served)
        steps = check(site, 5)
    assert steps[name, "search"]["verdict"] == "fail"
    assert "set its auth, client_id and key" in steps[name, "search"]["found"]


def test_ungranted_types_are_a_warning_with_their_names(site: Site) -> None:
    with mock("epic", forbidden_types=("Condition",)) as served:
        name = site.connect(served)
        steps = check(site, 0)
        shown = site.run("config", "check", "--connect").stdout
    assert f"no step failed, but read the warnings above ({name})" in shown
    assert "all is well" not in shown
    assert (steps[name, "scopes"]["verdict"], "Condition" in steps[name, "scopes"]["found"]) == ("warn", True)


def test_an_unset_variable_of_one_connection_does_not_stop_the_check_of_others(site: Site) -> None:
    with mock("generic") as served:
        site.connect(served, "good")
        site.connect(served, "unset", key="env:NOBODY_HAS_SET_THIS")
        done = site.run("config", "check", "--connect")
    assert done.code == 2
    assert "ok    good" in done.stdout
    assert "search" in done.stdout
    assert "fail  unset" in done.stdout
    assert "export NOBODY_HAS_SET_THIS" in done.stderr


@contextmanager
def _role(url: str, *grants: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE ROLE weak LOGIN PASSWORD 'x'")
        for grant in grants:
            conn.execute(grant)
        try:
            yield
        finally:
            conn.execute("DROP OWNED BY weak")
            conn.execute("DROP ROLE weak")


@pytest.mark.parametrize("tenant", ["default", "mercy"])
def test_missing_rights_in_the_store_are_reported_with_the_grant_to_make(
    site: Site, store_url: str, tenant: str
) -> None:
    weak = Site(site.folder, store_url.replace(f"//{urlsplit(store_url).username}@", "//weak@"))
    with _role(store_url), mock("generic") as served:
        weak.connect(served, tenant=tenant)
        rights = check(weak, 5)["store", "rights"]
    assert rights["verdict"] == "fail"
    assert ("GRANT cf_r_default_" if tenant == "default" else "GRANT CREATE ON DATABASE") in rights["advice"]


def test_an_unreachable_store_fails_its_check_and_the_ehrs_are_still_checked(site: Site) -> None:
    away = Site(site.folder, "postgresql://nobody@127.0.0.1:9/charts")
    with mock("generic") as served:
        name = away.connect(served)
        steps = check(away, 5)
    assert steps["store", "login"]["verdict"] == "fail"
    assert steps[name, "search"]["verdict"] == "ok"


def test_a_receivers_login_is_checked_without_sending_data(site: Site) -> None:
    (site.folder / "registry.jwk.json").write_text(json.dumps(key_pair("generic").private))
    submitter = ("urn:oid:1.2", "1")
    table = '[receivers.{}]\nbase_url = "{}"\nsubmitter = "urn:oid:1.2|1"\nclient_id = "{}"\nkey = "file:registry.jwk.json"\n'
    with serve_receiver(jwks=key_pair("generic").jwks, submitter=submitter) as receiver:
        site.add(table.format("registry", receiver.base_url, "chartferry"))
        steps = check(site, 0)
        assert {step: one["verdict"] for (where, step), one in steps.items() if where == "receivers.registry"} == {
            "key": "ok", "dns": "ok", "tcp": "ok", "token": "ok",
        }  # fmt: skip
        assert not receiver.requests["submit"] + receiver.requests["status"]
        site.add(table.format("stranger", receiver.base_url, "someone-else"))
        site.add(table.format("nobody", "http://127.0.0.1:9/fhir", "chartferry"))
        steps = check(site, 5)
    assert steps["receivers.stranger", "token"]["verdict"] == steps["receivers.nobody", "tcp"]["verdict"] == "fail"
    assert steps["receivers.registry", "token"]["verdict"] == "ok"
