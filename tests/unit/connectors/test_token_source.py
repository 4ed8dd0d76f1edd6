"""Keeping logged in, against a token endpoint that holds state and verifies what it is sent; its clock is ours to turn."""

from __future__ import annotations

import base64
import random
from email.utils import formatdate
from urllib.parse import parse_qs

import anyio
import httpx
import orjson
import pytest
from joserfc import jwk, jwt

from connectors.core.errors import AuthError, LoginRefusedError, PlanError
from connectors.fhir.auth.credentials import Credentials
from connectors.fhir.auth.discovery import Discovery
from connectors.fhir.auth.token_source import MAX_LAUNCHES, StaticBearer, TokenSource
from connectors.fhir.auth.token_table import judge_token
from connectors.fhir.errors import ScopesRefusedError, TransientFetchError
from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.call import Reply
from tests.profiles import grouped

pytestmark = pytest.mark.anyio

KEY = jwk.ECKey.generate_key("P-384", {"kid": "k1"})
TOKEN_URL = "https://ehr.example/token"
SMART = Credentials(auth="smart", client_id="c1", key=orjson.dumps(KEY.as_dict(private=True)).decode())
SECRET = Credentials(auth="secret", client_id="c 1", client_secret="s:3 cret")


class TokenEndpoint:
    """Grants tokens; `script` holds answers to give first. Its clock is `skew_s` ahead of the client's."""

    def __init__(self):
        self.now = 1_800_000_000.0
        self.skew_s = 0.0
        self.script = []
        self.forms = []
        self.headers = []
        self.waits = []
        self.jtis = set()
        self.granted = {"token_type": "Bearer", "expires_in": 300}
        self.post_only = False

    def clock(self):
        return self.now

    async def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()

    async def send(self, call):
        await anyio.lowlevel.checkpoint()
        assert (call.method, call.url, call.purpose, call.auth) == ("POST", TOKEN_URL, "token", False)
        self.forms.append({key: values[0] for key, values in parse_qs(call.body.decode()).items()})
        self.headers.append(dict(call.headers))
        if self.script:
            status, body, *more = self.script.pop(0)
            if status is None:
                raise TransientFetchError("POST token endpoint: no connection could be made")
            return self.reply(status, body, *more)
        if problem := self.problem_with(self.forms[-1], call.headers):
            return self.reply(400, {"error": problem, "error_description": "for Jane Doe"})
        return self.reply(200, {"access_token": f"token-{len(self.forms)}", **self.granted})

    def problem_with(self, form, headers):
        if "client_assertion" not in form:
            basic = "Basic " + base64.b64encode(b"c%201:s%3A3%20cret").decode()
            if headers.get("Authorization") == basic and not self.post_only:
                return None
            posted = (form.get("client_id"), form.get("client_secret")) == ("c 1", "s:3 cret")
            return None if posted and self.post_only else "invalid_client"
        claims = jwt.decode(form["client_assertion"], KEY, algorithms=["ES384"]).claims
        here = self.now + self.skew_s
        fresh = claims["jti"] not in self.jtis and claims["iat"] <= here + 1 and here < claims["exp"] <= here + 300
        self.jtis.add(claims["jti"])
        return None if fresh and claims["aud"] in (TOKEN_URL, "https://okta.example/aud") else "invalid_client"

    def reply(self, status, body, headers=None):
        date = {"date": formatdate(self.now + self.skew_s, usegmt=True)}
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return Reply(status, httpx.Headers(date | (headers or {})), raw, TOKEN_URL)


@pytest.fixture
def endpoint():
    return TokenEndpoint()


def source(endpoint, credentials=SMART, types=("Patient",), discovery=None, **changes):
    profile = VendorProfile(name="x", label="X", **grouped(changes))
    return TokenSource(
        credentials,
        profile,
        discovery or Discovery(TOKEN_URL),
        types,
        send=endpoint.send,
        clock=endpoint.clock,
        sleep=endpoint.sleep,
        rng=random.Random(1),
    )


async def test_a_login_sends_what_the_specification_requires(endpoint):
    token = await source(endpoint).token()
    assert token.value == "token-1"
    form = endpoint.forms[0]
    assert form["grant_type"] == "client_credentials"
    assert form["scope"] == "system/Patient.read"
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert set(form) == {"grant_type", "scope", "client_assertion_type", "client_assertion"}
    assert endpoint.headers[0] == {"Content-Type": "application/x-www-form-urlencoded"}


async def test_a_valid_token_is_reused_and_renewed_before_it_expires(endpoint):
    tokens = source(endpoint)
    assert (await tokens.token()).value == "token-1"
    endpoint.now += 269
    assert (await tokens.token()).value == "token-1"
    endpoint.now += 2
    assert (await tokens.token()).value == "token-2"


@pytest.mark.parametrize(
    ("expires_in", "good_for_s"),
    [(570, 513), (3600, 3240), ("570", 513), (None, 270), ("soon", 270), (-1, 270), (float("1e999"), 270), (20, 10)],
)
async def test_the_margin_before_expiry_is_30_s_or_a_tenth(endpoint, expires_in, good_for_s):
    endpoint.script = [(200, {"access_token": "t", "token_type": "bearer", "expires_in": expires_in})]
    token = await source(endpoint).token()
    assert token.refresh_at - endpoint.now == pytest.approx(good_for_s)


async def test_twenty_tasks_share_one_login(endpoint):
    tokens = source(endpoint)
    got = []
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(_collect, tokens, got)
    assert {token.value for token in got} == {"token-1"}
    assert len(endpoint.forms) == 1


async def _collect(tokens, got):
    try:
        got.append(await tokens.token())
    except (AuthError, TransientFetchError) as error:
        got.append(error)


async def test_twenty_tasks_share_one_failed_login_and_a_refusal_is_final(endpoint):
    endpoint.script = [(400, {"error": "unauthorized_client"})]
    tokens = source(endpoint)
    got = []
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(_collect, tokens, got)
    assert [error.code for error in got] == ["unauthorized_client"] * 20
    with pytest.raises(AuthError):
        await tokens.token()
    assert len(endpoint.forms) == 1


async def test_an_outage_fails_those_who_waited_and_is_retried_by_later_callers(endpoint):
    endpoint.script = [(503, b"")] * 2
    tokens = source(endpoint, retry__max_tries=2)
    got = []
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(_collect, tokens, got)
    assert all(isinstance(error, TransientFetchError) for error in got)
    assert len(endpoint.forms) == 2
    assert (await tokens.token()).value == "token-3"


async def test_only_the_refused_token_is_forgotten(endpoint):
    tokens = source(endpoint)
    old = await tokens.token()
    tokens.invalidate(old)
    new = await tokens.token()
    tokens.invalidate(old)
    assert await tokens.token() is new


async def test_invalid_client_is_retried_three_times_with_a_new_jti(endpoint):
    endpoint.script = [(401, {"error": "invalid_client"})] * 4
    with pytest.raises(AuthError) as raised:
        await source(endpoint).token()
    assert endpoint.waits == [1.0, 5.0, 30.0]
    assert len({form["client_assertion"] for form in endpoint.forms}) == 4
    assert raised.value.code == "invalid_client"
    assert str(raised.value) == (
        "logging in: the token endpoint refused us with invalid_client after 4 tries; check client_id (for this environment?), "
        "that the EHR knows the public key of this kid, profile.login.audience, and this machine's clock "
        "(sent: kid k1, alg ES384, aud https://ehr.example/token)"
    )


async def test_a_refusal_mentions_that_no_kid_was_sent(endpoint):
    key = jwk.ECKey.generate_key("P-384")
    smart = Credentials(auth="smart", client_id="c1", key=key.as_pem(private=True).decode())
    endpoint.script = [(401, {"error": "invalid_client"})] * 4
    with pytest.raises(AuthError, match=r"sent: no kid, alg ES384, aud https://aud\.example"):
        await source(endpoint, smart, login__audience="https://aud.example").token()


async def test_an_intermittent_refusal_is_survived(endpoint):
    endpoint.script = [(400, {"error": "invalid_client", "error_description": None})] * 2
    assert (await source(endpoint).token()).value == "token-3"


@pytest.mark.parametrize(
    "answer",
    [
        (400, b""),
        (500, b"<html>"),
        (503, {"error": "x"}),
        (429, b""),
        (200, b"<html>Request Rejected</html>"),
        (400, {"error": "temporarily_unavailable"}),
        (400, {"error": "server_error"}),
        (None, b""),
    ],
)
async def test_an_outage_of_the_token_endpoint_is_waited_out(endpoint, answer):
    endpoint.script = [answer] * 3
    assert (await source(endpoint, retry__base_s=2).token()).value == "token-4"
    assert len(endpoint.waits) == 3
    assert all(wait <= 2 * 2**n for n, wait in enumerate(endpoint.waits))


async def test_retry_after_is_honoured_up_to_its_cap(endpoint):
    endpoint.script = [(429, b"", {"retry-after": "40"}), (429, b"", {"retry-after": "99999"})]
    await source(endpoint, retry__after_cap_s=60, retry__base_s=0.5).token()
    assert 40 <= endpoint.waits[0] <= 40.5
    assert 60 <= endpoint.waits[1] <= 61


async def test_an_outage_that_does_not_end_is_transient(endpoint):
    endpoint.script = [(503, b"")] * 9
    with pytest.raises(TransientFetchError, match=r"status 503.*after 3 tries"):
        await source(endpoint, retry__max_tries=3).token()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": "unauthorized_client"}, "unauthorized_client"),
        ({"error": "unsupported_grant_type"}, "unsupported_grant_type"),
        ({"error": "invalid_request", "error_description": "Jane Doe"}, "invalid_request"),
    ],
)
async def test_set_up_errors_stop_at_once_and_quote_no_description(endpoint, body, code):
    endpoint.script = [(400, body)]
    with pytest.raises(AuthError) as raised:
        await source(endpoint).token()
    assert (raised.value.code, endpoint.waits) == (code, [])
    assert "Jane" not in str(raised.value)


CERNER_URN = "urn%3Acerner%3Aerror%3Aauthorization-server%3Aoauth2%3Atoken%3Aempty-scopes"


@pytest.mark.parametrize(
    "body",
    [
        {"error": "invalid_scope"},
        {"error_uri": f"https://authorization.example/errors/{CERNER_URN}/instances/1?client=c&tenant=t"},
    ],
)
async def test_refused_scopes_are_retried_once_in_the_other_syntax_which_is_then_kept(endpoint, body):
    endpoint.script = [(400, body)]
    tokens = source(endpoint)
    tokens.invalidate(await tokens.token())
    await tokens.token()
    assert [form["scope"] for form in endpoint.forms] == ["system/Patient.read", *["system/Patient.rs"] * 2]


async def test_scopes_refused_in_both_syntaxes_stop_the_login(endpoint):
    endpoint.script = [(400, {"error": "invalid_scope"})] * 2
    with pytest.raises(ScopesRefusedError, match="set the connection's scopes"):
        await source(endpoint).token()


async def test_configured_scopes_are_sent_as_they_are(endpoint):
    endpoint.script = [(400, {"error": "invalid_scope"})]
    with pytest.raises(AuthError):
        await source(endpoint, Credentials(**{**vars(SMART), "scopes": ("a", "b")})).token()
    assert [form["scope"] for form in endpoint.forms] == ["a b"]


async def test_a_profile_that_needs_no_scope_sends_none(endpoint):
    await source(endpoint, login__scope_required=False).token()
    assert "scope" not in endpoint.forms[0]


@pytest.mark.parametrize("skew_s", [600, -600])
async def test_a_clock_that_is_off_is_corrected_by_the_servers_date(endpoint, skew_s):
    endpoint.skew_s = skew_s
    tokens = source(endpoint)
    assert (await tokens.token()).value == "token-2"
    assert tokens.skew_s == pytest.approx(skew_s, abs=2)


@pytest.mark.parametrize("code", ["invalid_client", "invalid_grant", "invalid_request"])
async def test_a_login_refused_for_its_times_is_sent_again_at_once_with_the_servers_whatever_the_error(endpoint, code):
    endpoint.skew_s = -600
    verified = endpoint.problem_with
    endpoint.problem_with = lambda form, headers: verified(form, headers) and code
    assert (await source(endpoint, login__refused_waits_s=()).token()).value == "token-2"
    assert endpoint.waits == [0]


@pytest.mark.parametrize(
    ("location", "origin"),
    [("https://login.example/SECRET?SECRET", "https://login.example"), ("/SECRET", "https://ehr.example")],
)
async def test_a_redirect_of_the_login_is_reported_with_its_origin_and_not_followed(endpoint, location, origin):
    endpoint.script = [(302, b"", {"location": location})]
    with pytest.raises(AuthError, match=rf"status 302\) to {origin}, .*set profile.login.token_url") as raised:
        await source(endpoint).token()
    assert "SECRET" not in str(raised.value)
    assert len(endpoint.forms) == 1


@pytest.mark.parametrize(
    "answer",
    [(401, b"", {"www-authenticate": 'DPoP algs="ES256"'}), (400, {"error": "use_dpop_nonce"})],
    ids=["header", "code"],
)
async def test_a_server_that_wants_dpop_proofs_is_reported_as_such(endpoint, answer):
    endpoint.script = [answer]
    with pytest.raises(AuthError, match="wants DPoP proofs"):
        await source(endpoint).token()
    assert endpoint.waits == []


async def test_a_secret_is_sent_by_basic_authentication_or_else_in_the_form(endpoint):
    assert (await source(endpoint, SECRET).token()).value == "token-1"
    endpoint.post_only = True
    tokens = source(endpoint, SECRET)
    tokens.invalidate(await tokens.token())
    await tokens.token()
    assert ["Authorization" in headers for headers in endpoint.headers] == [True, True, False, False]


async def test_a_secret_is_sent_where_the_server_expects_it(endpoint):
    endpoint.post_only = True
    discovery = Discovery(TOKEN_URL, auth_methods=("client_secret_post",))
    await source(endpoint, SECRET, discovery=discovery).token()
    assert len(endpoint.forms) == 1


async def test_a_configured_audience_is_signed_in_place_of_the_token_url(endpoint):
    await source(endpoint, login__audience="https://okta.example/aud").token()
    claims = jwt.decode(endpoint.forms[0]["client_assertion"], KEY, algorithms=["ES384"]).claims
    assert claims["aud"] == "https://okta.example/aud"


async def test_each_patient_has_a_token_where_the_profile_says_so(endpoint):
    tokens = source(endpoint, login__token_per_patient=True, login__extra_scopes=("launch",))
    first, second = await tokens.token("1012V3"), await tokens.token("1013V4")
    assert first.value != second.value
    assert await tokens.token("1012V3") is first
    assert orjson.loads(base64.b64decode(endpoint.forms[0]["launch"])) == {"patient": "1012V3"}
    assert endpoint.forms[0]["scope"] == "launch system/Patient.read"


async def test_no_launch_is_sent_where_tokens_are_not_bound_to_patients(endpoint):
    tokens = source(endpoint)
    assert await tokens.token("1012V3") is await tokens.token(None)
    assert "launch" not in endpoint.forms[0]


async def test_the_number_of_kept_patient_tokens_is_bounded(endpoint):
    tokens = source(endpoint, SECRET, login__token_per_patient=True)
    for number in range(MAX_LAUNCHES + 1):
        await tokens.token(str(number))
    await tokens.token(str(MAX_LAUNCHES))
    assert len(endpoint.forms) == MAX_LAUNCHES + 1
    await tokens.token("0")
    assert len(endpoint.forms) == MAX_LAUNCHES + 2


async def test_stated_grants_are_known_and_unstated_ones_unknown(endpoint):
    tokens = source(endpoint)
    await tokens.token()
    assert tokens.granted() is None
    endpoint.granted["scope"] = "Patient.read system/Condition.r"
    tokens.invalidate(await tokens.token())
    await tokens.token()
    assert tokens.granted().readable == {"Patient", "Condition"}


@pytest.mark.parametrize("kind", ["bearer", "BEARER", "BearerToken", " Bearer "])
@pytest.mark.parametrize("status", [200, 201])
async def test_a_bearer_token_is_used_in_any_spelling_and_with_any_success_status(endpoint, kind, status):
    endpoint.script = [(status, {"access_token": "t", "token_type": kind, "expires_in": 300})]
    assert (await source(endpoint).token()).authorization == "Bearer t"


@pytest.mark.parametrize(
    ("scope", "readable"),
    [
        (["system/Patient.read", "system/Goal.read"], {"Patient", "Goal"}),
        (["system/Patient.read", None, 7], {"Patient"}),
        ("", None),
        (" ", None),
        ([], None),
        (7, None),
        ("launch", set()),
    ],
)
async def test_an_empty_scope_says_nothing_and_a_list_is_read_as_scopes(endpoint, scope, readable):
    endpoint.granted["scope"] = scope
    tokens = source(endpoint)
    await tokens.token()
    granted = tokens.granted()
    assert (granted and granted.readable) == readable


@pytest.mark.parametrize("members", [{}, {"token_type": None}, {"token_type": ""}])
async def test_a_token_without_a_type_is_a_bearer_token(endpoint, members):
    endpoint.script = [(200, {"access_token": "t", "expires_in": 300, **members})]
    assert (await source(endpoint).token()).authorization == "Bearer t"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"access_token": "a b\r\nX: y"}, "characters that a header must not have"),
        ({"access_token": "t", "token_type": "mac"}, "not a bearer token"),
        ({"access_token": ""}, "sent no access token, with status 200"),
        ({}, "sent no access token, with status 200"),
    ],
)
async def test_an_answer_without_a_usable_token_is_refused(endpoint, answer, message):
    endpoint.script = [(200, answer)]
    with pytest.raises(LoginRefusedError, match=message):
        await source(endpoint).token()


async def test_no_secret_has_a_repr(endpoint):
    token = await source(endpoint).token()
    assert "token-1" not in repr(token)
    assert "s:3 cret" not in repr(SECRET)
    assert KEY.as_dict(private=True)["d"] not in repr(SMART)


async def test_a_connection_that_cannot_name_its_scopes_fails_before_any_request(endpoint):
    with pytest.raises(PlanError):
        source(endpoint, types=(), login__scope_wildcards=False)


async def test_a_configured_bearer_token_outlives_a_refusal():
    tokens = StaticBearer("fixed")
    token = await tokens.token()
    assert token.authorization == "Bearer fixed"
    tokens.invalidate(token)
    assert await tokens.token() == token


ABOUT = [
    ("Unknown client_id", "client_id"),
    ("Invalid client_id: abc", "client_id"),
    ("Invalid value for 'client_id' parameter.", "client_id"),
    ("Unknown or invalid client_id", "client_id"),
    ("AADSTS700016: Application with identifier 'x' was not found in the directory 'y'.", "client_id"),
    ("Client abc is not registered", "client_id"),
    ("The client_assertion signature is invalid.", "key"),
    ("AADSTS700027: Client assertion contains an invalid signature. [Reason - The key was not found.]", "key"),
    ('No public keys found in the JWKS with "kid" equal to "x"', "key"),
    ("Unable to verify the token with any of the public keys", "key"),
    ("Signature on JWT token failed validation", "key"),
    ("The audience claim for client_assertion must be the endpoint invoked for the request.", "audience"),
    ("The client_assertion token has an expired expiration.", "clock"),
    ("Invalid client or Invalid client credentials", None),
    ("", None),
    (None, None),
    (7, None),
]


@pytest.mark.parametrize(("description", "blame"), ABOUT)
@pytest.mark.parametrize("status", [400, 401])
def test_a_wrong_client_id_and_a_wrong_key_are_distinguished_where_the_server_does(status, description, blame):
    body = orjson.dumps({"error": "invalid_client", "error_description": description})
    assert judge_token(Reply(status, {}, body, "https://x/token"), now=0).blame == blame


async def test_a_refusal_gets_advice_and_is_not_quoted(endpoint):
    endpoint.script = [(401, {"error": "invalid_client", "error_description": "Signature of SECRET is invalid"})] * 4
    with pytest.raises(AuthError, match="says that the key is wrong") as raised:
        await source(endpoint).token()
    assert "SECRET" not in str(raised.value)
    endpoint.script = [(400, {"error": "unauthorized_client", "error_description": "unknown client SECRET"})]
    with pytest.raises(AuthError, match="does not know this client_id") as raised:
        await source(endpoint).token()
    assert "SECRET" not in str(raised.value)


async def test_an_error_that_repeats_our_secret_is_not_shown(endpoint):
    endpoint.script = [(400, {"error": "bad:0a1b2c"})]
    with pytest.raises(AuthError, match="refused us with status 400") as raised:
        await source(endpoint, Credentials(auth="secret", client_id="c1", client_secret="0a1b2c")).token()
    assert (raised.value.code, "0a1b2c" in str(raised.value)) == (None, False)


async def test_an_oauth_error_with_status_200_means_the_same_as_with_400(endpoint):
    endpoint.script = [(200, {"error": "invalid_client", "error_description": "unknown client_id"})] * 4
    with pytest.raises(
        AuthError, match=r"refused us with invalid_client after 4 tries; the server says that it does not know"
    ):
        await source(endpoint).token()


async def test_a_line_end_after_a_token_is_dropped_and_one_within_it_is_reported(endpoint):
    endpoint.script = [(200, {"access_token": "abc\r\n"}), (200, {"access_token": "a\nSECRET"})]
    tokens = source(endpoint)
    token = await tokens.token()
    assert token.value == "abc"
    tokens.invalidate(token)
    with pytest.raises(AuthError, match="characters that a header must not have") as raised:
        await tokens.token()
    assert "SECRET" not in str(raised.value)


async def test_a_refused_secret_is_reported_as_a_secret_and_not_as_a_key(endpoint):
    endpoint.script = [(401, {"error": "invalid_client"})] * 9
    with pytest.raises(AuthError, match="check client_id and client_secret") as raised:
        await source(endpoint, SECRET).token()
    assert "kid" not in str(raised.value)
