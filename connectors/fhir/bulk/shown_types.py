"""Searches for one row of each type that an export left out: silence does not say whether there is none, or none was exported."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from connectors.core.errors import FetchError
from connectors.fhir.bundles import NotABundleError
from connectors.fhir.capability import Capability
from connectors.fhir.errors import TransientFetchError
from connectors.fhir.records import page_from
from connectors.fhir.run import EhrRun
from snapshots.record import Record


async def shown_types(run: EhrRun, capability: Capability, types: Collection[str]) -> Mapping[str, Record]:
    """Search for one row of each of these types, in order, and return what was found.

    A search that is not declared, is refused or cannot be read shows nothing. Once the EHR fails to answer, no more are sent.

    Raises:
        AuthError: there is no login.
    """
    shown = {}
    for one in sorted({*types} & capability.searchable):
        path = f"{one}?_count=1"
        try:
            answer = await run.client.send(run.client.fhir_call(path, f"GET /{path}", "search"))
            records = page_from(answer.body, run.client.base, where=path).records
        except TransientFetchError:
            break
        except (FetchError, NotABundleError):
            continue
        found = next((record for record in records if record.resource_type == one), None)
        if found is not None:
            shown[one] = found
    return shown
