"""A mock receiver of datasets: Bulk Submit (Bulk Data Access STU 4) behind a SMART backend login, strict in both.

It verifies the assertion, requires exactly the operation's scope, refuses what a submission must not say, fetches the manifest
and its files as a consumer would, and reads every line. Its outcomes name what it did not accept; `received` holds what it did.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import secrets
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urljoin

import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mocks.answers import Refused, empty_answer, issue, json_answer, outcome
from mocks.web_server import in_thread, listen, origin_of, web_server

SCOPE = "system/bulk-submit"
_PUBLISHED = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkPublishManifest"
_STATUSES = frozenset({"in-progress", "completed", "stopped"})
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TYPES = {
    "submitter": "valueIdentifier",
    "submissionId": "valueString",
    "submissionStatus": "valueCode",
    "manifestUrl": "valueUrl",
    "fhirBaseUrl": "valueUrl",
    "oauthMetadataUrl": "valueUrl",
}
_NDJSON = "application/fhir+ndjson"
# the issue code with which it refuses a resource; None: it takes it
Refusal = Callable[[Mapping[str, Any]], str | None]


@dataclass
class Job:
    """One submission. `lines` are its outcomes, one OperationOutcome each."""

    manifest_url: str
    headers: dict[str, str]
    base: dict[str, Any]  # what it was submitted with
    lines: list[bytes] = field(default_factory=list)
    done: bool = False
    polls: int = 0


@dataclass
class Receiver:
    """A running mock receiver. `requests` counts them by operation; `jobs` are the submissions, by their id."""

    client_id: str
    jwks: Mapping[str, Any]
    submitter: tuple[str, str]
    refuses: Refusal
    polls: int  # how often it says "in progress"
    origin: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)
    received: dict[tuple[str, str], Any] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    lose_answers: int = 0  # of how many submissions the connection answers 500 after it took them
    tokens: set[str] = field(default_factory=set)
    used_jtis: set[str] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        """Its FHIR base URL."""
        return f"{self.origin}/fhir"

    @property
    def token_url(self) -> str:
        """Its token endpoint."""
        return f"{self.origin}/token"

    def take(self, job: Job) -> None:
        """Fetch the manifest, its pages and their files; note what is not taken."""
        url, first = job.manifest_url, True
        while True:
            try:
                page = _page(_fetched(url, job.headers))
            except (urllib.error.URLError, ValueError, KeyError, TypeError):
                job.lines.append(_line("exception" if first else "incomplete"))
                return
            for entry in page["output"]:
                self._take_file(job, urljoin(url, entry["url"]), entry)
            for entry in page["deleted"]:
                for bundle in _fetched(urljoin(url, entry["url"]), job.headers).splitlines():
                    for one in orjson.loads(bundle)["entry"]:
                        kind, _, id_ = one["request"]["url"].partition("/")
                        self.received.pop((kind, id_), None)
            following = [link["url"] for link in page["link"] if link["relation"] == "next"]
            if not following or following[0] in {"#pending", "#closed"}:
                return
            url, first = urljoin(url, following[0]), False

    def _take_file(self, job: Job, url: str, entry: Mapping[str, Any]) -> None:
        lines = _fetched(url, job.headers).splitlines()
        if len(lines) != entry["count"]:
            job.lines.append(_line("incomplete"))
        for line in lines:
            resource = orjson.loads(line)
            code = "invalid" if resource.get("resourceType") != entry["type"] else self.refuses(resource)
            if code is None:
                self.received[resource["resourceType"], resource["id"]] = resource
            else:
                where = f"{resource['resourceType']}/{resource.get('id')}"
                job.lines.append(orjson.dumps(outcome(issue("error", code, where, expression=[where]))))


def _page(content: bytes) -> dict[str, Any]:
    page: dict[str, Any] = orjson.loads(content)
    if page["manifestType"] != _PUBLISHED or not isinstance(page["transactionTime"], str):
        raise ValueError("no page of a Bulk Publish manifest")
    return page


def _line(code: str) -> bytes:
    return orjson.dumps(outcome(issue("error", code)))


def _fetched(url: str, headers: Mapping[str, str]) -> bytes:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip", **headers})  # noqa: S310 - a mock
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        body: bytes = answer.read()
        return gzip.decompress(body) if answer.headers.get("Content-Encoding") == "gzip" else body


def _receiver(request: Request) -> Receiver:
    found: Receiver = request.app.state.receiver
    return found


def _refusal(status: int, code: str, why: str) -> Refused:
    return Refused(json_answer(outcome(issue("error", code, why)), status), why)


async def _smart_configuration(request: Request) -> Response:
    receiver = _receiver(request)
    body = {
        "token_endpoint": receiver.token_url,
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES384", "RS384"],
        "scopes_supported": [SCOPE],
        "capabilities": ["client-confidential-asymmetric", "permission-v2"],
    }
    return json_answer(body, media_type="application/json")


async def _token(request: Request) -> Response:
    receiver = _receiver(request)
    form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
    if form.get("grant_type") != "client_credentials" or form.get("client_assertion_type") != _ASSERTION_TYPE:
        return json_answer({"error": "invalid_request"}, 400, media_type="application/json")
    if form.get("scope") != SCOPE:
        return json_answer({"error": "invalid_scope"}, 400, media_type="application/json")
    try:
        keys = KeySet.import_key_set(dict(receiver.jwks))  # type: ignore[arg-type]
        claims = jwt.decode(form.get("client_assertion", ""), keys, algorithms=["ES384", "RS384"]).claims
    except (JoseError, ValueError):
        return json_answer({"error": "invalid_client"}, 400, media_type="application/json")
    now, jti = time.time(), claims.get("jti")
    named = claims.get("iss") == claims.get("sub") == receiver.client_id and claims.get("aud") == receiver.token_url
    if not named or not jti or jti in receiver.used_jtis or not now < claims.get("exp", 0) <= now + 300:
        return json_answer({"error": "invalid_client"}, 400, media_type="application/json")
    receiver.used_jtis.add(jti)
    token = secrets.token_urlsafe(32)
    receiver.tokens.add(token)
    body = {"access_token": token, "token_type": "bearer", "expires_in": 300, "scope": SCOPE}
    return json_answer(body, media_type="application/json")


def _authorize(request: Request) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer" or token not in _receiver(request).tokens:
        raise _refusal(401, "login", "no token of this server")


async def _parameters(request: Request) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the parameters by name, and the headers for our requests; strict about names, types and number."""
    _authorize(request)
    if request.headers.get("content-type", "").partition(";")[0] != "application/fhir+json":
        raise _refusal(415, "invalid", "the body is not FHIR JSON")
    try:
        document = orjson.loads(await request.body())
    except ValueError:
        raise _refusal(400, "invalid", "the body is not JSON") from None
    if document.get("resourceType") != "Parameters":
        raise _refusal(400, "invalid", "the body is no Parameters")
    found: dict[str, Any] = {}
    headers: dict[str, str] = {}
    for one in document["parameter"]:
        name = one["name"]
        if name == "fileRequestHeader":
            parts = {part["name"]: part["valueString"] for part in one["part"]}
            headers[parts["headerName"]] = parts["headerValue"]
        elif name not in _TYPES or _TYPES[name] not in one or len(one) != 2:
            raise _refusal(400, "invalid", f"{name} is unknown, or of another type")
        elif name in found:
            raise _refusal(400, "invalid", f"{name} is repeated")
        else:
            found[name] = one[_TYPES[name]]
    submitter = found.get("submitter", {})
    if (submitter.get("system"), submitter.get("value")) != _receiver(request).submitter:
        raise _refusal(403, "forbidden", "this client may not submit for this submitter")
    if not found.get("submissionId"):
        raise _refusal(400, "required", "submissionId is required")
    return found, headers


async def _submit(request: Request) -> Response:
    receiver = _receiver(request)
    receiver.requests["submit"] += 1
    found, headers = await _parameters(request)
    if not {"submissionStatus", "manifestUrl"} & found.keys():
        raise _refusal(400, "required", "submissionStatus or manifestUrl is required")
    if found.get("submissionStatus", "in-progress") not in _STATUSES:
        raise _refusal(400, "code-invalid", "no such submissionStatus")
    if ("manifestUrl" in found) != ("fhirBaseUrl" in found):
        raise _refusal(400, "required", "manifestUrl and fhirBaseUrl belong together")
    if found["submissionId"] in receiver.jobs:
        raise _refusal(409, "duplicate", "the submission was completed before")
    if any(not job.done for job in receiver.jobs.values()):
        raise Refused(json_answer(outcome(issue("error", "throttled")), 429, {"Retry-After": "0"}), "one at a time")
    job = receiver.jobs[found["submissionId"]] = Job(found["manifestUrl"], headers, found)
    await asyncio.to_thread(receiver.take, job)
    if receiver.lose_answers:
        receiver.lose_answers -= 1
        return empty_answer(502)
    return empty_answer(200)


async def _kick_off_status(request: Request) -> Response:
    receiver = _receiver(request)
    receiver.requests["status"] += 1
    found, _ = await _parameters(request)
    if request.headers.get("prefer") != "respond-async":
        raise _refusal(400, "invalid", "Prefer: respond-async is required")
    if set(found) != {"submitter", "submissionId"}:
        raise _refusal(400, "invalid", "a parameter that has no place here")
    if found["submissionId"] not in receiver.jobs:
        raise _refusal(404, "not-found", "no such submission")
    where = f"{receiver.base_url}/submissions/{found['submissionId']}"
    return empty_answer(202, {"Content-Location": where})


async def _status(request: Request) -> Response:
    receiver = _receiver(request)
    _authorize(request)
    job = receiver.jobs.get(request.path_params["id"])
    if job is None:
        raise _refusal(404, "not-found", "no such submission")
    job.polls += 1
    if job.polls <= receiver.polls:
        return empty_answer(202, {"X-Progress": f"{job.polls * 10}%", "Retry-After": "0"})
    job.done = True
    id_ = request.path_params["id"]
    files = [{"type": "OperationOutcome", "url": f"{receiver.base_url}/outcomes/{id_}", "count": len(job.lines)}]
    body = {
        "transactionTime": "2026-01-01T00:00:00Z",
        "requiresAccessToken": True,
        "submissionId": id_,
        "output": [],
        "outcome": [{**one, "manifestUrl": job.manifest_url} for one in files] if job.lines else [],
    }
    return json_answer(body, media_type="application/json")


async def _outcomes(request: Request) -> Response:
    _authorize(request)
    job = _receiver(request).jobs[request.path_params["id"]]
    return json_answer(b"".join(line + b"\n" for line in job.lines), media_type=_NDJSON)


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refused)
    return refusal.response


@contextlib.contextmanager
def serve_receiver(
    *,
    jwks: Mapping[str, Any],
    submitter: tuple[str, str],
    client_id: str = "chartferry",
    refuses: Refusal = lambda resource: None,
    polls: int = 1,
) -> Iterator[Receiver]:
    """Serve a mock receiver from a thread while the block runs. Raises ServingError."""
    receiver = Receiver(client_id, jwks, submitter, refuses, polls)
    app = Starlette(
        routes=[
            Route("/fhir/.well-known/smart-configuration", _smart_configuration),
            Route("/token", _token, methods=["POST"]),
            Route("/fhir/$bulk-submit", _submit, methods=["POST"]),
            Route("/fhir/$bulk-submit-status", _kick_off_status, methods=["POST"]),
            Route("/fhir/submissions/{id}", _status),
            Route("/fhir/outcomes/{id}", _outcomes),
        ],
        exception_handlers={Refused: _refused},
    )
    app.state.receiver = receiver
    listener = listen("127.0.0.1", 0)
    receiver.origin = origin_of("127.0.0.1", listener)
    with in_thread(web_server(app), [listener], "mock-receiver"):
        yield receiver
