"""What SMART Backend Services asks of a client, as it shows on the wire. docs/conformance.md says which rule each test holds."""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

import pytest
from joserfc import jwk, jwt

from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import Answer, bearer, export_server, manifest, outcome
from tests.integration.connectors.wire import Seen
from tests.user_site import key_pair

pytestmark = pytest.mark.anyio

PUBLIC = jwk.import_key(key_pair("generic").jwks["keys"][0])


def form_of(login: Seen) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(login.body.decode(), strict_parsing=True).items()}


def assertion_of(login: Seen) -> Any:
    return jwt.decode(form_of(login)["client_assertion"], PUBLIC, algorithms=["ES384"])


async def test_discovery_is_requested_once_as_json_below_the_base_url_without_a_token(store: KeptRows) -> None:
    async with export_server() as server:
        await server.sync(store)
        requests = server.sent("/fhir/.well-known/smart-configuration")
    assert [(one.method, one.headers["accept"]) for one in requests] == [("GET", "application/json")]
    assert bearer(requests[0]) is None


async def test_a_relative_token_endpoint_resolves_against_the_base_url(store: KeptRows) -> None:
    async with export_server(smart={"token_endpoint": "../token"}) as server:
        assert (await server.sync(store)).status == "complete"
        assert len(server.sent("/token")) == 1


@pytest.mark.parametrize(
    "smart",
    [
        {"capabilities": []},
        {"capabilities": None, "scopes_supported": ["launch"]},
        {"token_endpoint_auth_methods": ["client_secret_basic"], "grant_types_supported": []},
        {"token_endpoint_auth_methods_supported": ["client_secret_post"], "issuer": "https://elsewhere.example"},
        {"token_endpoint_auth_signing_alg_values_supported": ["RS384"]},
    ],
)
async def test_missing_advertisements_never_stop_a_login(store: KeptRows, smart: dict) -> None:
    async with export_server(smart=smart) as server:
        assert (await server.sync(store)).status == "complete"


async def test_a_login_is_one_form_post_with_the_four_fields_and_nothing_else(store: KeptRows) -> None:
    async with export_server() as server:
        await server.sync(store)
        (login,) = server.sent("/token")
    assert (login.method, login.target) == ("POST", "/token")
    assert login.headers["content-type"] == "application/x-www-form-urlencoded"
    assert login.headers["accept"] == "application/json"
    assert "authorization" not in login.headers
    form = form_of(login)
    assert set(form) == {"grant_type", "scope", "client_assertion_type", "client_assertion"}
    assert form["grant_type"] == "client_credentials"
    assert form["scope"] == "system/*.read"
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def test_an_assertion_has_the_claims_of_the_guide_and_no_others(store: KeptRows) -> None:
    async with export_server() as server:
        began = server.clock.moment.timestamp()
        await server.sync(store)
        (login,) = server.sent("/token")
        audience = f"{server.main.origin}/token"  # type: ignore[union-attr]
    token = assertion_of(login)
    assert token.header == {"alg": "ES384", "typ": "JWT", "kid": key_pair("generic").private["kid"]}
    assert set(token.claims) == {"iss", "sub", "aud", "exp", "iat", "jti"}
    assert token.claims["iss"] == token.claims["sub"] == "client-1"
    assert token.claims["aud"] == audience
    assert 0 < token.claims["exp"] - began <= 300
    assert isinstance(token.claims["jti"], str)


async def test_every_attempt_to_log_in_has_a_new_signature(store: KeptRows) -> None:
    refusals = [Answer(503, ""), Answer(400, {"error": "invalid_client"}, content_type="application/json")]
    async with export_server(tokens=refusals) as server:
        assert (await server.sync(store)).status == "complete"
        logins = server.sent("/token")
    assert len(logins) == 3
    assert len({assertion_of(login).claims["jti"] for login in logins}) == 3


async def test_a_token_endpoint_that_redirects_is_not_followed_elsewhere(store: KeptRows) -> None:
    async with export_server(tokens=[Answer(307, "", {"Location": "{elsewhere}/token"})] * 9) as server:
        report = await server.sync(store)
        assert server.elsewhere is not None
        assert server.elsewhere.seen == []
    assert report.status == "failed"


@pytest.mark.parametrize(
    "granted", [{"token_type": "BEARER"}, {"expires_in": "300"}, {"expires_in": None}, {"scope": "system/Patient.rs"}]
)
async def test_a_grant_that_is_narrower_or_spelt_differently_is_accepted(store: KeptRows, granted: dict) -> None:
    body = {"access_token": "t" * 5000, "token_type": "bearer", "expires_in": 300, **granted}
    grant = Answer(200, {k: v for k, v in body.items() if v is not None}, content_type="application/json")
    async with export_server(tokens=[grant]) as server:
        report = await server.sync(store, types=("Patient", "Observation"))
        (kickoff,) = server.kicked_off
    assert report.status == "complete"
    assert bearer(kickoff) == "t" * 5000


async def test_no_refresh_token_is_ever_used(store: KeptRows) -> None:
    body = {"access_token": "one", "token_type": "bearer", "expires_in": 300, "refresh_token": "r"}
    async with export_server(
        tokens=[Answer(200, body, content_type="application/json")], polls=[outcome(401, "login"), manifest("Patient")]
    ) as server:
        await server.sync(store)
        logins = server.sent("/token")
    assert len(logins) == 2
    assert {form_of(login)["grant_type"] for login in logins} == {"client_credentials"}


@pytest.mark.parametrize("error", ["invalid_request", "unsupported_grant_type", "unauthorized_client"])
async def test_a_refusal_that_needs_an_operator_is_not_repeated(store: KeptRows, error: str) -> None:
    refusal = Answer(400, {"error": error, "error_description": "for Jane Doe"}, content_type="application/json")
    async with export_server(tokens=[refusal] * 9) as server:
        report = await server.sync(store)
        assert len(server.sent("/token")) == 1
    assert report.status == "failed"
    assert error in (report.error or "")
    assert "Jane" not in json.dumps(report.notes) + (report.error or "")


async def test_a_run_logs_in_once_and_uses_that_token_for_everything(store: KeptRows) -> None:
    async with export_server() as server:
        await server.sync(store)
        assert server.main is not None
        requests = [seen for seen in server.main.seen if "token" not in seen.target and "well-known" not in seen.target]
        assert len(server.sent("/token")) == 1
    assert {bearer(seen) for seen in requests if not seen.target.endswith("/metadata")} == {"token-1"}


async def test_a_token_about_to_expire_is_renewed_before_it_is_used_again(store: KeptRows) -> None:
    async with export_server(
        polls=[*[Answer(202, "", {"Retry-After": "290"})] * 2, manifest("Patient", "Observation")]
    ) as server:
        await server.sync(store)
        tokens = [bearer(poll) for poll in server.sent("/jobs/1", "GET")]
    assert tokens == ["token-1", "token-1", "token-2"]  # the second poll is early, for small exports


async def test_a_second_401_in_a_row_is_final(store: KeptRows) -> None:
    async with export_server(kickoffs=[outcome(401, "login")]) as server:
        report = await server.sync(store)
        assert [bearer(kickoff) for kickoff in server.kicked_off] == ["token-1", "token-2"]
    assert report.status == "failed"


async def test_a_wrong_clock_is_corrected_by_the_servers_date(store: KeptRows) -> None:
    async with export_server() as server:
        here = server.clock.moment.timestamp()
        date = {"Date": formatdate(here - 900, usegmt=True)}
        server.tokens = [Answer(400, {"error": "invalid_client"}, date, "application/json")]
        assert (await server.sync(store)).status == "complete"
        first, second = server.sent("/token")
    assert assertion_of(first).claims["iat"] == pytest.approx(here, abs=5)
    assert assertion_of(second).claims["iat"] == pytest.approx(here - 900, abs=10)


async def test_no_token_or_assertion_is_stored_or_shown(store: KeptRows, store_url: str) -> None:
    import psycopg

    async with export_server(kickoffs=[outcome(403, "forbidden")]) as server:
        report = await server.sync(store)
        (login,) = server.sent("/token")
    secret = form_of(login)["client_assertion"]
    with psycopg.connect(store_url) as conn:
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'tenant_default'").fetchall()
        for (table,) in tables:
            rows = conn.execute(f"SELECT t::text FROM tenant_default.{table} t").fetchall()
            assert not any("token-1" in row[0] or secret in row[0] for row in rows)
    assert "token-1" not in str(report)
