"""Oracle Health Millennium (Cerner), as in vendor-facts 2: explicit scopes, -pageContext, 307 to an object store."""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from mocks.answers import Refused, issue, json_answer, outcome
from mocks.manners.manner import Kickoff, Links, Manner, PageAt, SearchQuery, SmartFacts, fhir_refusal
from mocks.request_log import Layout

TENANT = "ec245800-1e24-41c8-b71b-0e701af75800"
_BASE = f"/r4/{TENANT}"

# default and greatest _count by type (CR); 0: unpaged, as captured for the four (TM, vendor-facts 2.5)
_COUNTS: dict[str, tuple[int, int | None]] = {
    "Observation": (50, 200),
    "DiagnosticReport": (10, 100),
    "DocumentReference": (10, 100),
    "Patient": (20, 100),
    "Encounter": (10, 100),
    "MedicationRequest": (25, 100),
    "Condition": (0, None),
    "Procedure": (0, None),
    "AllergyIntolerance": (0, None),
    "Immunization": (0, None),
}
_LAST_UPDATED = frozenset(
    [
        "Observation",
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "MedicationRequest",
        "Condition",
        "Procedure",
        "AllergyIntolerance",
        "Immunization",
        "MedicationDispense",
        "NutritionOrder",
        "ServiceRequest",
    ]
)
# the documented list of group export (CB, vendor-facts 2.7)
BULK_TYPES = frozenset(
    [
        "AllergyIntolerance",
        "CarePlan",
        "CareTeam",
        "Condition",
        "Device",
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "Goal",
        "Immunization",
        "Location",
        "MedicationRequest",
        "Patient",
        "Procedure",
        "Observation",
        "Organization",
        "Practitioner",
        "Provenance",
    ]
)
# require >= 1 clinical type beside them
NEED_COMPANY = frozenset({"Location", "Organization", "Practitioner", "Provenance"})
_MARK = b"\xfb\xff\xbe"  # makes the context begin with "+/++": characters that a careless client re-encodes


def _smart(facts: SmartFacts) -> dict[str, Any]:
    scopes = [f"system/{kind}.{access}" for kind in facts.types for access in ("read", "rs", "r")]
    return {
        "issuer": f"{facts.origin}/tenants/{TENANT}",
        "token_endpoint": facts.token_url,
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "grant_types_supported": ["authorization_code", "client_credentials"],
        "scopes_supported": scopes,
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
    }


def _login_refusal(error: str, why: str) -> Response:
    """No error_description: a URN at the end of error_uri (TM, vendor-facts 2.3)."""
    word = "empty-scopes" if error == "invalid_scope" else error.replace("_", "-")
    urn = quote(f"urn:cerner:error:authorization-server:oauth2:token:{word}", safe="")
    correlation = str(uuid.uuid4())
    body = {
        "error": error,
        "error_uri": f"https://authorization.example.org/errors/{urn}/instances/{correlation}?tenant={TENANT}",
    }
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache", "Cerner-Correlation-ID": correlation}
    return json_answer(body, 400, headers, "application/json")


def _check(query: SearchQuery) -> None:
    has_id = query.one("_id") is not None
    if query.resource_type == "Patient":
        wanted = ("_id", "identifier", "name", "family", "given", "birthdate", "phone", "email", "address-postalcode")
        if not any(query.one(name) for name in (*wanted, "-pageContext")):
            text = f"at least one of {', '.join(wanted)}, or -pageContext must be provided"
            raise Refused(fhir_refusal(400, "required", text), "no criteria")
    elif query.by_patient and not has_id and query.patient is None:
        raise Refused(
            fhir_refusal(400, "required", "at least one of _id, patient, or subject must be provided"), "no patient"
        )
    elif not query.by_patient and not has_id:
        raise Refused(fhir_refusal(400, "required", "_id must be provided"), "no _id")
    if has_id and set(query.params) - {"_id", "_revinclude", "_count", "_format", "-pageContext", "-pageDirection"}:
        raise Refused(fhir_refusal(400, "invalid", "_id may not be provided with other parameters"), "_id with others")
    if has_id and query.resource_type in {"CareTeam", "Goal"} and "," in (query.one("_id") or ""):
        raise Refused(fhir_refusal(400, "invalid", "_id: only one value is supported"), "_id list")
    updated = query.one("_lastUpdated")
    if updated is not None and query.resource_type not in _LAST_UPDATED:
        raise Refused(fhir_refusal(400, "invalid", "_lastUpdated is not supported"), "_lastUpdated unsupported")
    if updated is not None and query.resource_type == "Observation" and query.one("date"):
        raise Refused(
            fhir_refusal(400, "invalid", "date and _lastUpdated may not be combined"), "date with _lastUpdated"
        )
    if (
        query.patient is not None
        and query.patient == query.config.poison_patient
        and query.resource_type == "Observation"
    ):
        # permanent: a stored record lacks a required element and poisons its page (CR, vendor-facts 2.4)
        body = outcome(issue("fatal", "required", "required element missing", location=["/f:Observation/f:code"]))
        raise Refused(json_answer(body, 500), "poison record")


def _check_kickoff(kickoff: Kickoff) -> None:
    known = {"_type", "_since", "_typeFilter", "_outputFormat", "includeAssociatedData"}
    if len(kickoff.params.get("_type", ())) > 1:  # one comma-separated value (SF, vendor-facts 2.7)
        raise Refused(fhir_refusal(400, "invalid", "_type may only be provided once"), "repeated _type")
    if set(kickoff.params) - known and not kickoff.lenient:
        raise Refused(fhir_refusal(400, "invalid", "unsupported parameter"), "unsupported parameter")
    if kickoff.types is not None and not set(kickoff.types) <= BULK_TYPES:
        raise Refused(fhir_refusal(400, "invalid", "_type contains an unsupported resource type"), "unsupported _type")
    if kickoff.types is not None and set(kickoff.types) <= NEED_COMPANY:
        raise Refused(fhir_refusal(400, "invalid", "_type must contain a clinical resource type"), "no clinical _type")
    if "_typeFilter" in kickoff.params and kickoff.types is None:
        raise Refused(fhir_refusal(400, "invalid", "_typeFilter requires _type"), "_typeFilter without _type")


def _context(start: int) -> str:
    return base64.b64encode(_MARK + start.to_bytes(4, "big")).decode()


def _start(query: SearchQuery, size: int) -> int:
    context = query.one("-pageContext")
    if context is None:
        return 0
    try:
        raw = base64.b64decode(context, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    # the client must return a context with its percent-encoding unchanged
    if raw[:3] != _MARK or f"-pageContext={quote(context, safe='')}" not in query.raw:
        raise Refused(fhir_refusal(400, "invalid", "-pageContext is invalid"), "context not verbatim")
    return int.from_bytes(raw[3:], "big")


def _links(page: PageAt) -> Links:
    bare = page.self_url("-pageContext", "-pageDirection")
    links = [("self", page.self_url())]
    if page.more:
        links.append(
            ("next", f"{bare}&-pageContext={quote(_context(page.start + page.size), safe='')}&-pageDirection=NEXT")
        )
    return links


CERNER = Manner(
    vendor="cerner",
    layout=Layout(
        base=_BASE,
        token=f"/tenants/{TENANT}/hosts/fhir-ehr-mock/protocols/oauth2/profiles/smart-v1/token",
        status=f"{_BASE}/bulk-export/jobs/{{job}}",
        file=f"{_BASE}/bulk-export/files/{{file}}",
    ),
    group_id="11ec-d16a-c763b73e-98e8-a31715e6a200",
    accept="406",
    smart=_smart,
    scopes="explicit",
    token_life_s=570,
    login_refusal=_login_refusal,
    unauthorized=lambda: json_answer(
        outcome(issue("error", "login", "Unauthorized")), 401, {"WWW-Authenticate": "Bearer"}
    ),
    scope_refusal_text="Forbidden resource",
    unknown_path=lambda: fhir_refusal(404, "not-found", "Not Found"),
    unknown_type=lambda: fhir_refusal(404, "not-found", "Not Found"),
    not_found=lambda deleted: fhir_refusal(404, "not-found", "Not Found"),
    throttled=lambda: json_answer(
        outcome({"severity": "error", "code": "throttled", "diagnostics": "Too Many Requests"}), 429
    ),
    check=_check,
    count=lambda kind: _COUNTS.get(kind, (0, None)),
    total="none",
    counts=False,  # `_summary` is not documented (CR, vendor-facts 2.5)
    start_of=_start,
    links=_links,
    bundle_id=True,
    post_search="none",  # not declared (vendor-facts 2.5)
    duplicate_across_pages=True,
    last_updated=_LAST_UPDATED,
    bulk_levels=("group", "patient"),
    patient_list_only=True,  # "all patients" is refused (OD, vendor-facts 2.7)
    bulk_types=BULK_TYPES,
    bulk_beyond_compartment=True,
    bulk_counts=False,
    bulk_types_by_scope=True,
    check_kickoff=_check_kickoff,
    one_job="client",
    file_redirect=True,
    gone=lambda: fhir_refusal(404, "not-found", "Not Found"),
    capability={
        "name": "OracleHealthCapabilityStatement",
        "publisher": "Oracle Health",
        "format": ["json"],  # and no `software` (TM, vendor-facts 2.1)
    },
    export_operation="group-export",
)
