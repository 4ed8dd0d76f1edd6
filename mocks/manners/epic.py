"""Epic, as in vendor-facts 1: XML by default, numeric codes, paging sessions, group export once a day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from mocks.answers import IIS_404, Refused, empty_answer, html_answer, issue, json_answer, outcome
from mocks.dataset import Row
from mocks.manners.manner import Kickoff, Links, Manner, PageAt, SearchQuery, SmartFacts
from mocks.request_log import Layout

_SITE = "/interconnect-mock-fhir"
_SYSTEM = "urn:oid:1.2.840.114350.1.13.0.1.7.2.657369"
_TEXTS = {
    "4100": "The parameter is invalid.",
    "4101": "Resource request returns no results.",
    "4102": "The read resource request contained an invalid resource ID.",
    "4112": "Invalid combination of parameters.",
    "4107": "The patient has been merged.",
    "4113": "Session has expired.",
    "4119": "This response includes information available to the authorized user at the time of the request. "
    "It may not contain the entire record available in the system.",
    "4127": "Too many matches: narrow the search.",
    "4135": "Try again tomorrow.",
    "59007": "The client is not authorized to read this file.",
    "59108": "A required element is missing.",
    "59159": "This resource requires demographics or _id parameter for searching.",
    "59177": "An unexpected internal error has occurred.",
    "59204": "Sub-resources were suppressed: the client is not authorized.",
}
# categories that answer with server errors (SF, vendor-facts 1.6)
_BROKEN_CATEGORIES = frozenset({"procedure", "therapy", "activity"})
MOST_PATIENTS = 100  # how many a Patient search may match (4127)


def coded_issue(severity: str, code: str, number: str, **rest: Any) -> dict[str, Any]:
    """Return an issue with Epic's number in details.coding (vendor-facts 1.7)."""
    text = _TEXTS.get(number, "See the code.")
    details = {"coding": [{"system": _SYSTEM, "code": number, "display": text}], "text": text}
    return {**issue(severity, code), "details": details, **rest}


def _refuse(status: int, code: str, number: str, note: str, **rest: Any) -> Refused:
    return Refused(json_answer(outcome(coded_issue("fatal", code, number, **rest)), status), note)


def _smart(facts: SmartFacts) -> dict[str, Any]:
    return {
        "token_endpoint": facts.token_url,
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "private_key_jwt"],
        # no alg list, and no system/ scopes (EA, vendor-facts 1.1)
        "scopes_supported": ["epic.scanning.dmsusername", "fhirUser", "launch", "openid", "profile"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
    }


def _login_refusal(error: str, why: str) -> Response:
    return json_answer(
        {"error": error, "error_description": None}, 400, {"Cache-Control": "no-store"}, "application/json"
    )


def _check_patient(query: SearchQuery) -> None:
    if any(query.one(name) for name in ("_id", "identifier", "birthdate")):
        return
    unknown = [
        coded_issue(
            "information",
            "invalid",
            "59100",
            diagnostics=f"Unknown parameter: {name.upper()}. Parameter has been ignored.",
        )
        for name in query.params
        if not name.startswith("_")
    ]
    fatal = coded_issue(
        "fatal",
        "business-rule",
        "59159",
        diagnostics=_TEXTS["59159"],
        location=["/f:demographics/_id"],
        expression=["demographics/_id"],
    )
    raise Refused(json_answer(outcome(*unknown, fatal), 400), "no criteria")


def _check(query: SearchQuery) -> None:
    kind = query.resource_type
    if kind == "Patient":
        _check_patient(query)
        return
    if query.one("_id"):
        return
    if not query.by_patient:
        raise _refuse(400, "business-rule", "59159", "no criteria")
    if query.patient is None:
        if kind == "AllergyIntolerance":  # a parameter error in disguise (TM, vendor-facts 1.4)
            raise Refused(_forbidden(""), "no patient")
        raise _refuse(400, "required", "59108", "no patient", diagnostics="A required element is missing: patient")
    if "," in query.patient or len(query.params.get("patient", ())) > 1:
        raise _refuse(400, "invalid", "4112", "several patients")
    if not query.patient_known:
        raise _refuse(400, "invalid", "4100", "unknown patient")
    if kind == "Observation":
        if not query.one("category") and not query.one("code"):
            raise _refuse(400, "required", "59108", "no category", diagnostics="Must have either code or category.")
        categories = {part.rpartition("|")[2] for part in (query.one("category") or "").split(",")}
        if categories & _BROKEN_CATEGORIES:
            raise _refuse(500, "exception", "59177", "broken category")
    if kind == "EpisodeOfCare" and not query.one("type"):
        raise _refuse(400, "required", "59108", "no type")


def _found(query: SearchQuery, rows: list[Row]) -> list[Row]:
    """Find nobody by only a birthdate, never more than 100 people, and nothing for foreign ids (TM, vendor-facts 1.6)."""
    if query.resource_type != "Patient":
        if query.one("_id") and not rows:
            raise _refuse(400, "invalid", "4102", "foreign _id")
        return rows
    if not any(query.one(name) for name in ("_id", "identifier", "family", "name")):
        return []
    if len(rows) > MOST_PATIENTS:
        raise _refuse(400, "too-costly", "4127", "more than 100 patients")
    return rows


def _file_of_another() -> Response:
    return json_answer(outcome(coded_issue("fatal", "forbidden", "59007")), 403)


def _check_kickoff(kickoff: Kickoff) -> None:
    if kickoff.types == ("Patient",):  # refused on a real site (FHIRBridge, vendor-facts 1.9)
        raise _refuse(400, "business-rule", "59159", "_type=Patient alone")
    if "_since" in kickoff.params:  # rejected or ignored: a client can notice only rejection (vendor-facts 1.9)
        raise _refuse(400, "not-supported", "59100", "_since")
    if "_typeFilter" in kickoff.params and kickoff.types is None:
        raise _refuse(400, "required", "59108", "_typeFilter without _type")


def _fatal(number: str, headers: Mapping[str, str] | None = None, status: int = 400) -> Response:
    return json_answer(outcome(coded_issue("fatal", "processing", number)), status, headers)


def _links(page: PageAt) -> Links:
    return [("self", page.self_url())]  # next is a session, and comes before self


def _extra(query: SearchQuery, shown: int, start: int) -> list[dict[str, Any]]:
    found = []
    if shown == 0 and start == 0:
        found.append(outcome(coded_issue("warning", "processing", "4101")))
    number = query.config.outcome_codes.get(query.resource_type)
    if number is not None and start == 0:
        severity = "warning" if number.startswith("4") else "information"
        found.append(outcome(coded_issue(severity, "suppressed", number)))
    return found


def _forbidden(text: str) -> Response:
    challenge = (
        'Bearer error="insufficient_scope", error_description="The access token provided is valid, but is not authorized for '
        'this service"'
    )
    return empty_answer(403, {"WWW-Authenticate": challenge})


def _unauthorized() -> Response:
    challenge = 'Bearer error="invalid_token", error_description="The access token provided is not valid"'
    return Response(b'""', 401, headers={"WWW-Authenticate": challenge}, media_type="application/json")


def _not_found(deleted: bool) -> Response:
    if deleted:
        return json_answer(outcome(coded_issue("fatal", "deleted", "4103")), 404)
    found = coded_issue(
        "fatal", "not-found", "59008", diagnostics="Invalid FHIR ID provided", location=["/f:id"], expression=["id"]
    )
    return json_answer(outcome(found), 404)


EPIC = Manner(
    vendor="epic",
    layout=Layout(
        base=f"{_SITE}/api/FHIR/R4",
        token=f"{_SITE}/oauth2/token",
        status=f"{_SITE}/api/FHIR/BulkRequest/{{job}}",  # not under /R4 (ET, vendor-facts 1.9)
        file=f"{_SITE}/api/FHIR/BulkRequest/{{job}}/{{file}}",
    ),
    group_id="eMockGroup.registry-1",
    accept="xml",
    smart=_smart,
    algs=("RS256", "RS384", "RS512", "ES256", "ES384"),
    scopes="registered",
    token_life_s=3600,
    login_refusal=_login_refusal,
    unauthorized=_unauthorized,
    forbidden=_forbidden,
    unknown_path=lambda: html_answer(IIS_404, 404),
    unknown_type=lambda: html_answer(IIS_404, 404),
    not_found=_not_found,
    throttled=lambda: empty_answer(429),  # none documented (EA, vendor-facts 1.8): the simplest form
    session_expired=lambda: _fatal("4113"),  # status 400 is our reading
    poisoned=lambda: _fatal("4104"),
    restricted=lambda code: _fatal(code, status=403),
    # SF, vendor-facts 1.6
    dates={
        ("AllergyIntolerance", "date"): "recordedDate",
        ("Condition", "recorded-date"): "recordedDate",
        ("DiagnosticReport", "issued"): "issued",
        ("DocumentReference", "date"): "date",
        ("MedicationRequest", "authoredon"): "authoredOn",
        ("Observation", "issued"): "issued",
        ("ServiceRequest", "authored"): "authoredOn",
    },
    documents_exhausted=lambda: _fatal("4135"),
    merged=lambda target: _fatal("4107", {"Location": target}, 301),
    check=_check,
    count=lambda kind: (1000, 999),
    total="page",
    paging="session",
    links=_links,
    entry_links=True,
    post_search="body",  # since February 2026 (EA, vendor-facts 1.6); before, the body was ignored
    found=_found,
    extra_entries=_extra,
    group_read=True,
    check_kickoff=_check_kickoff,
    drops_unknown_types=True,  # 59136 (vendor-facts 1.7)
    bulk_counts=False,
    requires_token_flag="true",  # seen as a string (ET, vendor-facts 1.9)  # noqa: S106
    kickoff_window=True,
    retry_after=False,  # none seen (ET, vendor-facts 1.9)
    one_job="group",
    progress=lambda polled, polls, patients: f"Searched {patients * polled // (polls + 1)} of {patients} patients",
    gone=lambda: json_answer(outcome(coded_issue("fatal", "not-found", "59008")), 404),
    file_of_another=_file_of_another,
    capability={
        "software": {"name": "Epic", "version": "May 2026"},  # and no `publisher` (EA, vendor-facts 1.1)
        "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"],
        "format": ["xml", "json"],
    },
    export_operation="group-export",
)
