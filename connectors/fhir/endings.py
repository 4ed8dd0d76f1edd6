"""Decides what a final answer means, by its status and codes; the only place that does. Pure.

The callers decide what follows for a unit, a document or a row: `verdicts`, `reference_fetch`, `attachment_fetch`, `confirmation`
and `proof_question`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from connectors.fhir.errors import NOT_THE_EHRS, RequestError
from connectors.fhir.outcomes import Issue
from connectors.fhir.profile import IssueGrade
from connectors.fhir.records import grade
from snapshots.unit import Ending

_FORBIDDEN, _NOT_FOUND, _GONE = 403, 404, 410
What = Literal["search", "patient", "read"]
# statuses that say "nothing like that here": to a search 404 too, of a type that the server has none of (vendor-facts 7)
_NOT_SERVED: Mapping[What, frozenset[int]] = MappingProxyType(
    {"search": frozenset({404, 501}), "patient": frozenset({501}), "read": frozenset({405, 501})}
)
_BY_MEANING: Mapping[IssueGrade, Ending] = MappingProxyType(
    {
        "gone": Ending.GONE,
        "merged": Ending.MERGED,
        "missing": Ending.NOT_FOUND,
        "pause": Ending.PAUSED,
        "restricted": Ending.RESTRICTED,
    }
)


def says_not_found(error: RequestError) -> bool:
    """Whether the status says that the requested resource does not exist, or no longer."""
    return error.status in {_NOT_FOUND, _GONE}


def may_be_a_gateways(error: RequestError) -> bool:
    """Whether a refusal of one row (403, 404, 410) may come from a gateway, and so proves nothing about the row.

    A 403 in words of any kind may be the EHR's (Epic sends a message, vendor-facts 1.4); a web page is a gateway's.
    """
    return (
        error.speaker == "page"
        if error.status == _FORBIDDEN
        else says_not_found(error) and error.speaker in NOT_THE_EHRS
    )


def meaning_of(error: RequestError, meanings: Mapping[str, IssueGrade]) -> IssueGrade:
    """Return what the codes of an answer mean at this vendor; `meanings` are its profile's issue codes."""
    return grade((Issue("note", code, ()) for code in error.codes), meanings)


def ending_of(error: RequestError, meanings: Mapping[str, IssueGrade], *, what: What) -> Ending:
    """Return what a refusal means for the request: all of a type ("search"), a patient, or another resource by id ("read").

    A code that the vendor's profile knows outweighs the status. FAILED: the answer proves nothing, like a 403, 404 or 410 that
    is not the EHR's own. One without a body may not be the EHR's either; `not_found` finds that out. To a search for a type, a
    404 means the same whoever wrote it: Epic's web server answers so for types that it does not serve (vendor-facts 1.1).
    """
    known = _BY_MEANING.get(meaning_of(error, meanings))
    if known is not None:
        return known
    if may_be_a_gateways(error) and (what != "search" or error.status == _FORBIDDEN):
        return Ending.FAILED
    if says_not_found(error) and what != "search":
        return Ending.GONE if error.status == _GONE else Ending.NOT_FOUND
    if error.status in _NOT_SERVED[what] or "not-supported" in error.codes:
        return Ending.NOT_SERVED
    return Ending.RESTRICTED if error.status == _FORBIDDEN else Ending.FAILED
