"""Decides since when an export is requested: one instant for all its types and patients, or none, for a full export.

`connectors.fhir.sync` knows what the watermarks say; this module knows what one instant for all would lose.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from config.how_many import how_many
from connectors.core.errors import PlanError
from connectors.fhir.bulk.named_patients import not_exportable
from connectors.fhir.capability import Capability
from connectors.fhir.cohort.finder import Cohort, CohortFinder
from connectors.fhir.errors import ProtocolError, TransientFetchError
from connectors.fhir.patients.permission import MOST_READS, any_readable
from connectors.fhir.profile import BulkLevel
from connectors.fhir.run import EhrRun
from snapshots.instants import moment

_MOST_ASKED = 200  # members who are not on the roster; of more, some are likely to be new


async def export_since(
    run: EhrRun,
    capability: Capability,
    level: BulkLevel,
    since: Mapping[str, str],
    *,
    types: tuple[str, ...],
    patients: tuple[str, ...],
) -> str | None:
    """Return since when to export; None: everything, because a patient or a type is not known up to that instant.

    An export has one instant for all: patients and types whose knowledge ends earlier, and patients who are new since the last
    full export, would lose what came before it. Notes why an export is full, where that is not to be expected.
    """
    instant = oldest(since, types) if run.request.profile.bulk.since else None
    if "*" in since:
        return instant
    group = run.request.group if level == "group" else None
    try:
        members = None if group is None else await _members(run, group)
    except TransientFetchError:
        if await run.store.roster.knew_members():
            run.notes.append(
                "the Group's members could not be read this time: exported in full, because patients who seem to have left "
                "may come back"
            )
            return None
        members = None  # unreadable in the last full export too: that is no reason for another one
    requested = set(patients) or (None if members is None else set(members.patients))
    if instant is None or await _is_anybody_behind(run, requested) or await _is_a_type_unlisted(run, types):
        return None
    if group is not None and await _is_anybody_back(run, members):
        return None
    if requested is not None and await _is_anybody_new(run, capability, requested, members):
        return None
    return instant


def oldest(since: Mapping[str, str], types: tuple[str, ...]) -> str | None:
    """Return the oldest of the types' watermarks; None if a type that is wanted has no watermark yet."""
    if not since or any(t not in since and "*" not in since for t in types):
        return None  # `last_full_listing` has seen to it that without types the last full listing was without types too
    moments = {text: moment(text) for text in since.values()}
    read = {text: found for text, found in moments.items() if found is not None}
    return min(read, key=lambda text: read[text]) if len(read) == len(moments) else None


async def _members(run: EhrRun, group: str) -> Cohort | None:
    """Return a Group's own list of members, for the store, if it is complete; None if it cannot be read or is empty.

    Raises:
        TransientFetchError: it may be readable later.
    """
    try:
        members = await CohortFinder(run.client).of_group(group)
    except (PlanError, ProtocolError):
        return None
    if not members.patients and not members.unresolved:
        return None  # servers leave the members of large Groups out
    if not members.unresolved:
        await run.store.roster.note_members(members.patients)
    return members


async def _is_anybody_behind(run: EhrRun, requested: AbstractSet[str] | None) -> bool:
    """Whether a requested patient has a lag; `requested` None: any patient.

    Withheld rows count only once they can be read again: until then a full export would bring no more of them.
    """
    behind = await run.store.roster.behind()
    if any(requested is None or not patient or patient in requested for patient in behind):
        return True
    whose = None if requested is None else sorted(requested)
    withheld = await run.store.evidence.withheld(whose, MOST_READS)
    if await any_readable(run.client, withheld):
        return True
    if len(withheld) == MOST_READS:
        run.notes.append(
            f"{MOST_READS} withheld rows were read, others in each run, to see whether they are permitted again; other rows "
            "added meanwhile come after that"
        )
    return False


async def _is_a_type_unlisted(run: EhrRun, types: tuple[str, ...]) -> bool:
    """Whether one of the types has come in exports of news only, so that no export has listed its earlier rows."""
    return any(not types or one in types for one in await run.store.knowledge.unlisted_types())


async def _is_anybody_back(run: EhrRun, members: Cohort | None) -> bool:
    """Whether patients may be back who had left the Group while its members could not be read."""
    if members is None:
        run.notes.append(
            "the Group's members cannot be read: patients who joined it since the last full export come with the next full one"
        )
        return False
    if not await run.store.roster.missed_members():
        return False
    run.notes.append(
        "the Group's members can be read again: exported in full, because patients who had left it may be back"
    )
    return True


async def _is_anybody_new(
    run: EhrRun, capability: Capability, requested: AbstractSet[str], members: Cohort | None
) -> bool:
    """Whether patients are requested whom no full export has covered, and whom the EHR has and shows."""
    new, absent = requested - await run.store.roster.covered(), set[str]()
    if new and len(new) <= _MOST_ASKED:
        # a Group may list patients for ever whom the EHR does not have, or does not show
        withheld, absent = await not_exportable(run, capability, new, None if members is None else members.patients)
        new -= withheld | absent
    if new or (members is not None and members.unresolved):
        whom = how_many(len(new), "patient") if new else "some patients"
        joined = "new to the cohort" if members is None else "joined the Group"
        run.notes.append(f"exported in full: {whom} {joined} since the last full export")
        return True
    if absent:
        run.notes.append(
            f"new members of the Group whom the server does not have, or has merged: {len(absent):,}; each sync requests them "
            "again; if the server has their charts all the same, the next full export lists them"
        )
    return False
