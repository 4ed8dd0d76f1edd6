"""Lists every patient of a server that lists them: a search like all others, done before the run's units can be planned.

`search` walks its pages and divides it; `steps` decides what the list means for the run's plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from connectors.core.errors import FetchError
from connectors.core.pipeline import Fetched
from connectors.fhir.capability import Capability
from connectors.fhir.run import EhrRun
from connectors.fhir.search.gathering import PageGatherer
from connectors.fhir.search.since import FULL
from connectors.fhir.search.units import directory_units
from connectors.fhir.search.verdicts import ended
from snapshots.record import Batch
from snapshots.unit import Unit, UnitResult, UnitState


@dataclass(frozen=True, kw_only=True)
class Directory:
    """The patients that were listed, each once, in order; and the listing's unit with its end, for the ledger."""

    patients: tuple[str, ...]
    unit: Unit
    result: UnitResult


async def list_patients(run: EhrRun, capability: Capability) -> Directory:
    """List every patient of the server and store their Patients; a listing that breaks off is a hole, and proves nobody gone.

    Raises:
        RequestError: it broke off before it gave anybody.
        UnsafeLinkError: likewise, for a link that led away.
    """
    request = run.request
    (unit,) = directory_units(("Patient",), request.profile, capability, FULL)
    search = PageGatherer(run.client, capability=capability, began=run.store.started_at)
    patients: dict[str, None] = {}
    refused = 0

    async def take(fetched: Fetched) -> None:
        nonlocal refused
        patients.update((record.id, None) for record in fetched.records if record.resource_type == "Patient")
        # the ledger has no such unit yet, so that a record which the store refuses is blamed on it by number
        records = [record._replace(unit_key=None) for record in fetched.records]
        quarantined = [one._replace(unit_key=None) for one in fetched.quarantined]
        noticed = run.notices.listed(records)
        refused += await run.store.write(
            Batch(records=noticed.records, mentions=noticed.mentions, quarantined=quarantined, aliases=fetched.aliases)
        )
        run.settled((), len(records))

    try:
        tally = await search.gather(unit, take)
    except FetchError as error:
        if not patients:
            raise
        result = UnitResult(key=unit.key, state=UnitState.FAILED, reason=str(error), records=len(patients))
    else:
        tally.count = len(patients)
        tally.unreadable += refused
        result = ended(unit, tally, request.profile)
    return Directory(patients=tuple(patients), unit=unit, result=result)
