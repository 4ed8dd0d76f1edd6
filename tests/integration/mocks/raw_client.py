"""A plain client for judging mocks: httpx and joserfc, nothing of ours. Careful by default; every care can be left out."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import time
import uuid
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from tests.fix_ehr import ServedEhr

JSON = "application/fhir+json"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SCOPES = " ".join(
    f"system/{kind}.read"
    for kind in [
        "Patient",
        "Observation",
        "Condition",
        "Encounter",
        "AllergyIntolerance",
        "Immunization",
        "Procedure",
        "MedicationRequest",
        "DiagnosticReport",
        "DocumentReference",
        "Organization",
        "Practitioner",
        "Location",
        "Group",
    ]
)

# mocks speak no TLS, and to read the world's certificates costs a client 25 to 60 ms of computing
Http = functools.partial(httpx.Client, verify=False)
get = functools.partial(httpx.get, verify=False)
post = functools.partial(httpx.post, verify=False)


def assertion(
    ehr: ServedEhr, *, header: dict[str, Any] | None = None, key: dict[str, Any] | None = None, **claims: Any
) -> str:
    """Sign an assertion as the mock wants it; `header` and `claims` override parts (None takes one out)."""
    now = int(time.time())
    who = ehr.client_id
    merged = {
        "iss": who,
        "sub": who,
        "aud": ehr.audience,
        "exp": now + 240,
        "iat": now,
        "jti": str(uuid.uuid4()),
        **claims,
    }
    merged = {name: value for name, value in merged.items() if value is not None}
    head = {"alg": ehr.key.alg, "kid": ehr.key.kid, "typ": "JWT", **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    private = {name: value for name, value in (key or ehr.key.private).items() if name not in ("alg", "use", "key_ops")}
    signer: Any = ECKey.import_key(private) if private["kty"] == "EC" else RSAKey.import_key(private)
    return jwt.encode(head, merged, signer, algorithms=[head["alg"]])


def launch(patient: str) -> str:
    """VA's launch parameter."""
    return base64.b64encode(json.dumps({"patient": patient}).encode()).decode()


def ask_token(ehr: ServedEhr, *, jwt_text: str | None = None, **form: Any) -> httpx.Response:
    """POST to the token endpoint; `form` overrides fields (None takes one out); `patient` is the launch's."""
    patient = form.pop("patient", "pat-1")
    if ehr.vendor == "va":
        form = {"scope": f"launch {SCOPES}", "launch": launch(patient), **form}
    fields = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": jwt_text or assertion(ehr),
        "scope": SCOPES,
        **form,
    }
    return post(ehr.token_url, data={name: value for name, value in fields.items() if value is not None})


def client(ehr: ServedEhr, **form: Any) -> httpx.Client:
    """A logged-in client that asks for JSON; its URLs are relative to the base."""
    headers = {"Accept": JSON}
    if not ehr.ehr.config.open:
        answer = ask_token(ehr, **form)
        assert answer.status_code == 200, answer.text
        headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return Http(base_url=ehr.base_url + "/", headers=headers, timeout=None)


def next_link(bundle: dict[str, Any]) -> str | None:
    """The next link, as given."""
    return next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)


def pages(http: httpx.Client, path: str) -> list[dict[str, Any]]:
    """Follow a search to its end."""
    found = []
    url: str | None = path
    while url is not None:
        answer = http.get(url)
        assert answer.status_code == 200, (url, answer.status_code, answer.text)
        found.append(answer.json())
        url = next_link(found[-1])
    return found


def ids(bundles: list[dict[str, Any]]) -> list[str]:
    """The ids of the matches, page by page."""
    return [e["resource"]["id"] for b in bundles for e in b.get("entry", []) if e["search"]["mode"] == "match"]


def export(http: httpx.Client, path: str) -> tuple[httpx.Response, str]:
    """Kick off and poll until the manifest; gives it with the status URL."""
    begun = http.get(path, headers={"Prefer": "respond-async"})
    assert begun.status_code == 202, (begun.status_code, begun.text)
    url = begun.headers["Content-Location"]
    for _ in range(10):
        answer = http.get(url)
        if answer.status_code != 202:
            return answer, url
    raise AssertionError("the job did not end")


# -- what care adds: each helper is the answer to a habit of naive_client ----------------------------------------------


def rows(http: httpx.Client, path: str) -> dict[str, dict[str, Any]]:
    """Matches by id, over all pages: links followed as given, outcomes left out, repeats kept once."""
    return {
        entry["resource"]["id"]: entry["resource"]
        for bundle in pages(http, path)
        for entry in bundle.get("entry", [])
        if entry["search"]["mode"] == "match"
    }


def code(answer: httpx.Response) -> str:
    """Epic's number of an OperationOutcome's last issue."""
    return str(answer.json()["issue"][-1]["details"]["coding"][0]["code"])


def download(http: httpx.Client, url: str) -> list[dict[str, Any]]:
    """Lines of a file: the token goes to the EHR, and never on to where a redirect leads."""
    answer = http.get(url)
    if answer.status_code == 307:
        answer = get(answer.headers["Location"])
    assert answer.status_code == 200, (answer.status_code, answer.text)
    return [json.loads(line) for line in answer.text.splitlines()]


def expire_tokens(ehr: ServedEhr) -> None:
    """End every token now, as time would."""
    grants = ehr.ehr.grants
    grants.update({token: dataclasses.replace(grant, expires_at=0) for token, grant in grants.items()})
