"""Searches for some rows of each type that an export left out: there may be none, or none may have been exported."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from connectors.core.errors import FetchError
from connectors.fhir.bundles import NotABundleError
from connectors.fhir.capability import Capability
from connectors.fhir.errors import TerminalFetchError, TransientFetchError
from connectors.fhir.profile import IssueGrade
from connectors.fhir.records import grade, page_from
from connectors.fhir.run import EhrRun
from snapshots.record import Record

# the page says that there may be more than it shows, or that it did not come whole
_UNTOLD: frozenset[IssueGrade] = frozenset({"incomplete", "pause", "restart", "fatal"})
_ROWS = 20  # the first ones alone may be newer than the export, or of patients whom it does not have


class ShownTypes(NamedTuple):
    """What searches found of each type, and the types of which the EHR did not answer."""

    found: Mapping[str, Sequence[Record]]
    unanswered: frozenset[str]


async def shown_types(run: EhrRun, capability: Capability, types: Collection[str]) -> ShownTypes:
    """Search for some rows of each of these types, in order. A search that is not declared, or is refused, finds nothing.

    An answer that cannot be read, or that says that there may be more, is none. Once the EHR fails to answer, the rest are not
    searched.

    Raises:
        AuthError: there is no login.
    """
    found: dict[str, Sequence[Record]] = {}
    unanswered = {*types} & capability.searchable
    for one in sorted(unanswered):
        path = f"{one}?_count={_ROWS}"
        try:
            answer = await run.client.send(run.client.fhir_call(path, f"GET /{path}", "search"))
            page = page_from(answer.body, run.client.base, where=path)
        except TransientFetchError:
            break
        except TerminalFetchError:
            unanswered.discard(one)
        except (FetchError, NotABundleError):
            continue
        else:
            found[one] = [record for record in page.records if record.resource_type == one]
            untold = (
                page.doubtful
                or page.unasked(one)
                or grade(page.issues, run.request.profile.answers.issue_codes) in _UNTOLD
            )
            if not page.quarantined and not untold:
                unanswered.discard(one)
    return ShownTypes(found, frozenset(unanswered))
