"""A plain client for judging mocks: httpx and joserfc, nothing of ours. Careful by default; every care can be left out."""

from __future__ import annotations

import base64
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


def assertion(
    ehr: ServedEhr, *, header: dict[str, Any] | None = None, key: dict[str, Any] | None = None, **claims: Any
) -> str:
    """Sign an assertion as the mock wants it; `header` and `claims` override parts (None takes a claim out)."""
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
    return httpx.post(ehr.token_url, data={name: value for name, value in fields.items() if value is not None})


def client(ehr: ServedEhr, **form: Any) -> httpx.Client:
    """A logged-in client that asks for JSON; its URLs are relative to the base."""
    headers = {"Accept": JSON}
    if not ehr.ehr.config.open:
        answer = ask_token(ehr, **form)
        assert answer.status_code == 200, answer.text
        headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return httpx.Client(base_url=ehr.base_url + "/", headers=headers, timeout=10)


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
