"""A plain R4 server of no particular vendor: HAPI-like search, listing and $export at every level."""

from __future__ import annotations

from typing import Any

from mocks.manners.manner import Links, Manner, PageAt, SearchQuery, SmartFacts, whole_number
from mocks.request_log import Layout


def _smart(facts: SmartFacts) -> dict[str, Any]:
    return {
        "issuer": facts.base_url,
        "token_endpoint": facts.token_url,
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_basic", "client_secret_post"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": ["system/*.read", "system/*.rs"],
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
    }


def _start(query: SearchQuery, size: int) -> int:
    return whole_number(query, "_offset") or 0


def _links(page: PageAt) -> Links:
    links = [("self", page.self_url())]
    bare = page.self_url("_offset", "_count")
    join = "&" if "?" in bare else "?"
    if page.more:
        links.append(("next", f"{bare}{join}_offset={page.start + page.size}&_count={page.size}"))
    if page.start:
        links.append(("previous", f"{bare}{join}_offset={max(0, page.start - page.size)}&_count={page.size}"))
    return links


GENERIC = Manner(
    vendor="generic",
    layout=Layout(
        base="/fhir",
        token="/oauth2/token",  # noqa: S106 (a path)
        status="/fhir/$export-poll-status?_jobId={job}",  # HAPI's form
        file="/fhir/$export-files/{file}",
    ),
    smart=_smart,
    count=lambda kind: (20, 500),
    start_of=_start,
    links=_links,
    last_updated=None,
    lists_everything=True,
    group_read=True,
    bulk_levels=("system", "patient", "group"),
    progress=lambda polled, polls, patients: f"{100 * polled // (polls + 1)}%",
    capability={
        "publisher": "chartferry mocks",
        "software": {"name": "Plain R4 mock", "version": "1"},
        "format": ["application/fhir+json", "json"],
    },
)
