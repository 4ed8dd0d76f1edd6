"""Finds out which patients a crawl is for: a list of ids, MRNs to look up, or members of a Group. `directory` lists everyone.

`cohort_file` reads the list. What could not be found is reported by number, never by name: a cohort's values are PHI.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import anyio

from connectors.core.errors import FetchError, PlanError
from connectors.core.pipeline import Fetched
from connectors.fhir.errors import NOT_THE_EHRS, ProtocolError, TerminalFetchError
from connectors.fhir.json_answers import UnreadableJsonError, count_from, json_from, objects_beside
from connectors.fhir.run import CohortSource
from connectors.fhir.search.gathering import PageGatherer
from connectors.fhir.search.verdicts import is_whole
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.unit_details import SearchDetail
from snapshots.unit import Unit, UnitKind, unit_key

# all elements of a Group without members in R4 and R5
_GROUP_NAMES = frozenset(
    ["resourceType", "id", "meta", "implicitRules", "language", "text", "contained", "extension", "modifierExtension",
     "identifier", "active", "type", "actual", "code", "name", "quantity", "managingEntity", "characteristic", "url", "version",
     "versionAlgorithmCoding", "title", "status", "date", "publisher", "contact", "description", "useContext", "purpose",
     "membership", "copyright"]
)  # fmt: skip
# what a Group may have as members besides Patients and Groups (R4, Group.member.entity): they have no chart
_WITHOUT_CHART = re.compile(
    r"(?:\A|/)(?:Device|Medication|Practitioner|PractitionerRole|Substance)/[^\s/?#]+(?:/_history/[^/?#]+)?\Z"
)
_MOST_MEMBERS = 10**9  # a Group of more is none
_LOOK_UP = "GET /Patient?identifier=…"
_NOBODY = frozenset({400, 404, 410, 422})  # Epic: 4127 above 100 matches; Cerner: 422 above 1,000


_WORDS = {
    "same_patient": "naming the same patient as an earlier entry",
    "not_verified": "answered with a patient who does not have that identifier",
}


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The patients of a crawl, in order, each once; and what to report about the rest."""

    patients: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unresolved: int = 0  # values that named no patient, or several, or could not be looked up
    of_group: bool = False  # they are the members of a Group, not what somebody named
    report: Mapping[str, Any] = field(default_factory=dict)  # numbers and line numbers, never a value


_NO_MEMBERS = (
    "the server says that the Group has no active members who are patients: check them at the EHR, and the connection's "
    "`group`; or name patients with `cohort`"
)


class CohortFinder:
    """Asks one EHR which patients a crawl is for."""

    def __init__(self, client: EhrClient) -> None:
        self._client = client
        self._profile = client.profile
        self._search = PageGatherer(client)

    async def named(self, source: CohortSource) -> Cohort:
        """The patients that a file or a caller names: ids as they are, MRNs looked up."""
        if source.identifier_system is None:
            return Cohort(patients=source.values, report={"asked": len(source.values)})
        return await self.by_identifier(source.identifier_system, source.values, source.lines)

    async def by_identifier(self, system: str, values: Sequence[str], lines: Sequence[int] = ()) -> Cohort:
        """Look up MRNs by `identifier=system|value`, one search each (Epic takes no list), concurrently under the limits.

        A Patient without the identifier does not count: a server may ignore the parameter, and return anybody.
        """
        found: dict[int, tuple[str, ...] | None] = {}
        refused: dict[int, str] = {}
        unlike: set[int] = set()
        limit = anyio.CapacityLimiter(self._profile.limits.max_concurrency)

        async def look_up(number: int, value: str) -> None:
            detail = SearchDetail(path=f"Patient?identifier={quote(f'{system}|{value}', safe='')}").packed
            unit = Unit(
                key=unit_key("cohort", number),
                kind=UnitKind.SEARCH,
                resource_type="Patient",
                template=_LOOK_UP,
                detail=detail,
            )
            patients: dict[str, bool] = {}

            async def take(fetched: Fetched) -> None:
                patients.update(
                    (r.id, _has_identifier(r.body, system, value))
                    for r in fetched.records
                    if r.resource_type == "Patient"
                )

            async with limit:
                try:
                    tally = await self._search.gather(unit, take)
                except FetchError as error:  # costs only this entry
                    refused[number] = str(error)
                    is_nobody = isinstance(error, TerminalFetchError) and (
                        error.status in _NOBODY and error.speaker not in NOT_THE_EHRS
                    )
                    found[number] = () if is_nobody and not patients else None
                else:
                    holders = tuple(one for one, holds in patients.items() if holds)
                    # what did not come, or could not be read, may be the patient, or a second one
                    found[number] = holders if is_whole(unit, tally, self._profile) else None
                    if patients and not holders:
                        unlike.add(number)

        async with anyio.create_task_group() as tasks:
            for number, value in enumerate(values):
                tasks.start_soon(look_up, number, value)
        return _resolved(found, refused, unlike, lines or range(1, len(values) + 1))

    async def of_group(self, group: str) -> Cohort:
        """Read a Group's members.

        Raises:
            PlanError: the server does not let this client read the Group; the message says what to do instead.
        """
        call = self._client.fhir_call(f"Group/{quote(group, safe='')}", "GET /Group/{group}")
        try:
            reply = await self._client.send(call)
        except TerminalFetchError as error:
            raise PlanError(
                f"Reading the Group's members failed ({error.answer}): check its id (`group`, or --group), or name patients with "
                '`cohort = "file:…"` instead.'
            ) from error
        try:
            found = json_from(reply.body)
        except UnreadableJsonError:
            found = None
        members = found.get("member") if isinstance(found, dict) and found.get("resourceType") == "Group" else False
        if members is None:  # an empty Group, unless they are under another name
            members = [] if not objects_beside(found, _GROUP_NAMES) else False
        if isinstance(members, dict):
            members = [members]
        if not isinstance(members, list):
            raise ProtocolError("GET /Group/{group} returned something that is not a Group with members.")
        # an entry that cannot be read counts as a member who is not named
        references = [_reference(member) for member in members if not _is_inactive(member)]
        others = sum(_WITHOUT_CHART.search(one) is not None for one in references)
        patients = [one for one in map(self._client.base.patient, references) if one is not None]
        quantity = count_from(found.get("quantity")) or 0
        hidden = max(0, quantity - len(members)) if quantity < _MOST_MEMBERS else 0
        strangers = len(references) - len(patients) - others
        left_out = {
            "not told": hidden,
            "without a reference to a patient of this EHR": strangers,
            "that are devices, practitioners or the like, and have no chart": others,
        }
        notes = tuple(f"members of the Group {what}: {count}" for what, count in left_out.items() if count)
        unresolved = hidden + strangers
        if len(references) == others and not hidden:
            notes = (*notes, _NO_MEMBERS)
        return Cohort(patients=tuple(dict.fromkeys(patients)), notes=notes, unresolved=unresolved, of_group=True)


def _reference(member: Any) -> str:
    """What a Group's member refers to; "" where that cannot be read."""
    entity = member.get("entity") if isinstance(member, dict) else None
    reference = entity.get("reference") if isinstance(entity, dict) else None
    return reference if isinstance(reference, str) else ""


def _is_inactive(member: Any) -> bool:
    value = member.get("inactive") if isinstance(member, dict) else None
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _has_identifier(body: bytes, system: str, value: str) -> bool:
    """Whether a Patient has the identifier; `system` may also be its type's text, where a site is configured by that."""
    try:
        identifiers = json_from(body).get("identifier")
    except UnreadableJsonError:
        return False  # harmless: an entry that names nobody is a hole
    for one in identifiers if isinstance(identifiers, list) else [identifiers]:
        if not isinstance(one, dict) or str(one.get("value", "")).strip() != value.strip():
            continue
        kind = one.get("type")
        if (one.get("system") or "") == system or (isinstance(kind, dict) and kind.get("text") == system):
            return True
    return False


def _resolved(
    found: Mapping[int, tuple[str, ...] | None],
    refused: Mapping[int, str],
    unlike: Container[int],
    lines: Sequence[int],
) -> Cohort:
    """The patients that looking up gave, and by line which entries gave none, several, the same one again, or no answer.

    `refused` says why a look-up failed; the first of each kind is told. `unlike` are the entries whose answer was only Patients
    without that identifier.
    """
    first: dict[str, int] = {}
    kinds = ("not_found", "found_twice", "same_patient", "not_looked_up", "not_verified")
    places: dict[str, list[int]] = {kind: [] for kind in kinds}
    why: dict[str, str] = {}
    for number in sorted(found):
        ids = found[number]
        if ids is None:
            places["not_looked_up"].append(lines[number])
            why.setdefault("not_looked_up", refused.get(number, ""))
        elif number in unlike:
            places["not_verified"].append(lines[number])
        elif len(ids) != 1:
            places["found_twice" if ids else "not_found"].append(lines[number])
            why.setdefault("not_found", "" if ids else refused.get(number, ""))
        elif first.setdefault(ids[0], number) != number:
            places["same_patient"].append(lines[number])
    words = {name: name.replace("_", " ") for name in places} | _WORDS
    notes = tuple(
        f"cohort entries {words[name]}: {_some(which)}" + (f" (the first: {why[name]})" if why.get(name) else "")
        for name, which in places.items()
        if which
    )
    unresolved = sum(len(places[name]) for name in kinds if name != "same_patient")
    report = {"asked": len(found), **{name: which for name, which in places.items() if which}}
    return Cohort(patients=tuple(first), notes=notes, unresolved=unresolved, report=report)


def _some(numbers: Sequence[int]) -> str:
    shown = 20
    rest = f" and {len(numbers) - shown} more" if len(numbers) > shown else ""
    return f"line {', '.join(map(str, numbers[:shown]))}{rest}"
