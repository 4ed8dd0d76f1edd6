"""Describes an answer that an export's step did not expect: a resource's type, an outcome's codes. Pure.

Never its words: they may name patients. What follows from it is decided by `start` and `manifest`.
"""

from __future__ import annotations

from config.resource_types import RESOURCE_TYPES
from connectors.fhir.issue_types import shown
from connectors.fhir.json_answers import UnreadableJsonError, json_from
from connectors.fhir.outcomes import is_outcome
from connectors.fhir.transport.retry_table import issue_codes

_VOWELS = tuple("AEIO")


def resource_type_of(body: bytes) -> str | None:
    """The type of the FHIR resource that a body is, an outcome without its type's name too; None if it is none of R4's."""
    try:
        value = json_from(body)
    except UnreadableJsonError:
        return None
    if is_outcome(value):
        return "OperationOutcome"
    named = value.get("resourceType") if isinstance(value, dict) else None
    return named if isinstance(named, str) and named in RESOURCE_TYPES else None


def what_came(body: bytes) -> str:
    """What a body is, in words that carry no PHI."""
    if not body.strip():
        return "an empty body"
    kind = resource_type_of(body)
    if kind is None:
        return "something that is not a FHIR resource"
    name = f"an {kind}" if kind.startswith(_VOWELS) else f"a {kind}"
    if kind != "OperationOutcome":
        return name
    codes = shown(issue_codes(body))
    return f"{name} (issue codes {', '.join(codes)})" if codes else f"{name} without issue codes"
