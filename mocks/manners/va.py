"""VA Lighthouse, as in vendor-facts 4: Okta-style audience, one token per patient, page and _count, no bulk."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from mocks.answers import Refused, issue, json_answer, outcome
from mocks.manners.manner import Links, Manner, PageAt, SearchQuery, SmartFacts, start_of_page
from mocks.request_log import Layout

_BASE = "/services/fhir/v0/r4"
_KNOWN = ("patient", "_id", "identifier", "category", "code", "date", "_lastUpdated")  # others vanish from links


def _gateway(status: int, text: str) -> Response:
    """The gateway's template (LK, vendor-facts 4.2)."""
    body = outcome(
        issue("error", "exception", text), id="exception", text={"status": "additional", "div": "<div>Failure</div>"}
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return json_answer(body, status, headers)


def _failure(status: int, code: str) -> Response:
    narrative = {"status": "additional", "div": "<div>Failure</div>"}
    return json_answer(outcome(issue("fatal", code, "Failure: see the query"), id="failure", text=narrative), status)


def _smart(facts: SmartFacts) -> dict[str, Any]:
    return {
        "issuer": "https://deptva-eval.okta.com/oauth2/default",
        "token_endpoint": facts.token_url,
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": ["launch", *(f"system/{kind}.read" for kind in facts.types)],
        "capabilities": ["client-confidential-asymmetric", "permission-v1"],
    }


def _check(query: SearchQuery) -> None:
    if sum(query.one(name) is not None for name in ("patient", "_id", "identifier")) > 1:
        raise Refused(_failure(400, "structure"), "patient, _id and identifier exclude each other")
    filtered = query.one("category") or query.one("code")
    if query.resource_type == "Observation" and filtered and query.patient is None:
        raise Refused(_failure(400, "structure"), "category or code without patient")
    if query.resource_type == "Observation" and query.one("date") and not filtered:
        raise Refused(_failure(400, "structure"), "date without category or code")
    count = query.one("_count")
    if count is not None and not count.isdecimal():
        raise Refused(_failure(400, "structure"), "bad _count")


def _links(page: PageAt) -> Links:
    kept = [part for part in page.query.raw.split("&") if part.partition("=")[0] in _KNOWN]
    last = max(1, -(-page.total // page.size))
    here = page.start // page.size + 1

    def at(number: int) -> str:
        return f"{page.url}?{'&'.join([*kept, f'page={number}', f'_count={page.size}'])}"

    links = [("first", at(1)), ("self", at(here))]
    if here > 1:
        links.append(("prev", at(here - 1)))
    if page.more:
        links.append(("next", at(here + 1)))
    return [*links, ("last", at(last))]


VA = Manner(
    vendor="va",
    layout=Layout(
        base=_BASE,
        token="/oauth2/health/system/v1/token",  # noqa: S106 (a path)
        status=f"{_BASE}/no-export/{{job}}/status",
        file=f"{_BASE}/no-export/{{job}}/files/{{file}}",
    ),
    smart=_smart,
    audience="https://deptva-eval.okta.com/oauth2/aus8mock0f7VQ0a482p7/v1/token",  # not the token URL (LP, vendor-facts 4.1)
    algs=("RS256",),  # of VA's own clients; others not found (LA, vendor-facts 4.1)
    scopes="literal",
    scope_versions=("v1",),
    token_life_s=300,
    jti_required=False,
    needs_launch=True,
    unauthorized=lambda: _gateway(401, "invalid token."),
    forbidden=lambda text: _gateway(403, text),
    scope_refusal_text="Token not granted requested scope.",
    unknown_path=lambda: _failure(404, "not-found"),
    unknown_type=lambda: _failure(404, "not-found"),
    not_found=lambda deleted: _failure(404, "not-found"),
    throttled=lambda: _gateway(429, "Too many requests."),
    check=_check,
    count=lambda kind: (30, 100),
    counts=False,  # _count=0 counts; unknown parameters are ignored (LV, vendor-facts 4.3)
    start_of=start_of_page,
    links=_links,
    last_updated=frozenset({"Observation", "Procedure", "Appointment", "DiagnosticReport"}),
    bulk_levels=(),
    capability={
        "publisher": "Department of Veterans Affairs",
        "format": ["application/fhir+json", "json"],
    },
)
