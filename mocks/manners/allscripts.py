"""Allscripts (Veradigm, Altera), as in vendor-facts 3: misspelt discovery, an old content type, 413, soft 404s."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from mocks.answers import HTML_SHELL, Refused, html_answer, json_answer
from mocks.manners.manner import Links, Manner, PageAt, SearchQuery, SmartFacts, fhir_refusal, start_of_page
from mocks.request_log import Layout

_ROUTE = "/fhirroute"
_BASE = f"{_ROUTE}/fhir/CP00101"

# the documented list of group export (VD, vendor-facts 3.4); Provenance only when `_type` names it
_BULK_TYPES = """
    AllergyIntolerance CarePlan CareTeam Condition Binary Device DiagnosticReport DocumentReference Encounter Goal Group
    Immunization Location Medication MedicationAdministration MedicationRequest MedicationStatement Observation Organization
    Patient Practitioner PractitionerRole Procedure Provenance RelatedPerson
"""


def _smart(facts: SmartFacts) -> dict[str, Any]:
    return {
        "issuer": "https://fhirecho.example.org/pro/authorization",  # another host (AA, vendor-facts 3.1)
        "token_endpoint": facts.token_url,
        # misspelt, every method twice, and no private_key_jwt although the capability is there (AA, vendor-facts 3.1)
        "token_endpoint_auth_methods": ["client_secret_basic", "client_secret_post"] * 2 + ["tls_client_auth"],
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "scopes_supported": [
            "system/*.read",
            "system/*.rs",
            *(f"system/{kind}.{access}" for kind in facts.types for access in ("read", "rs")),
        ],
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
    }


def _login_refusal(error: str, why: str) -> Response:
    """IdentityServer's bare form."""
    return json_answer({"error": error}, 400, {"Cache-Control": "no-store"}, "application/json")


def _check(query: SearchQuery) -> None:
    if query.one("_id") or query.resource_type == "Group":
        return
    if query.resource_type == "Patient":
        if not any(query.one(name) for name in ("identifier", "name", "family", "given", "birthdate", "gender")):
            raise Refused(fhir_refusal(400, "required", "A search parameter is required"), "no criteria")
    elif query.patient is None:
        raise Refused(fhir_refusal(400, "required", "patient is required"), "no patient")


def _links(page: PageAt) -> Links:
    bare = page.self_url("page")
    here = page.start // page.size + 1
    links = [("self", page.self_url())]
    if page.more:
        links.append(("next", f"{bare}&page={here + 1}"))
    if here > 1:
        links.append(("previous", f"{bare}&page={here - 1}"))
    return links


ALLSCRIPTS = Manner(
    vendor="allscripts",
    layout=Layout(
        base=_BASE,
        token=f"{_ROUTE}/authorizationV2/CP00101/connect/token",
        status=f"{_BASE}/ExportRequest/{{job}}/status",
        file=f"{_BASE}/ExportRequest/{{job}}/{{file}}.ndjson",
    ),
    group_id="INF-101",
    content_type="application/json+fhir; charset=utf-8",
    smart=_smart,
    token_life_s=3600,  # not found; IdentityServer's default (vendor-facts 3.2)
    login_refusal=_login_refusal,
    unknown_path=lambda: html_answer(HTML_SHELL, 200),
    check=_check,
    count=lambda kind: (50, 200),  # sizes not found (VD, vendor-facts 3.3)
    counts=False,  # `_summary` is not documented (VD, vendor-facts 3.3)
    start_of=start_of_page,
    links=_links,
    redacts=True,
    too_many_answers_413=True,
    last_updated=None,
    declares_last_updated=False,  # documented, but not in the CapabilityStatement (VD, AA, vendor-facts 3.3)
    group_read=True,
    bulk_levels=("group",),
    bulk_types=frozenset(_BULK_TYPES.split()),
    bulk_beyond_compartment=True,
    bulk_only_if_named=frozenset({"Provenance"}),
    kickoff_body=True,
    progress=lambda polled, polls, patients: f"{100 * polled / (polls + 1):.1f}% complete",
    capability={
        "publisher": "Veradigm",
        "software": {"name": "Veradigm FHIR", "version": "4.22.0.1"},
        "format": ["application/json+fhir"],
        "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"],
    },
)
