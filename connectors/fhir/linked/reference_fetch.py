"""Fetches what references lead to: one `_id` search for several, or a read for one.

What is due comes from the store through `references`; `reference_resolver` reads references.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from urllib.parse import quote

from connectors.core.errors import FetchError
from connectors.core.pipeline import Emit, Fetched
from connectors.fhir.capability import Capability
from connectors.fhir.errors import (
    BudgetExhaustedError,
    EhrDownError,
    ProtocolError,
    QuietHoursError,
    TerminalFetchError,
)
from connectors.fhir.json_answers import bare
from connectors.fhir.not_found import NotFoundAnswers
from connectors.fhir.outcomes import Issue
from connectors.fhir.records import Page, UnreadableResourceError, grade, record_from
from connectors.fhir.refused_types import RefusedTypes
from connectors.fhir.search.pager import Pager
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient
from snapshots.record import Quarantined
from snapshots.referred import ReferenceTarget
from snapshots.unit import Ending, Unit, UnitKind, UnitResult, UnitState, unit_key
from snapshots.witness import Deletion, Said

# why what a reference leads to does not come, for people; the first that applies is a unit's reason
_REASONS: Mapping[Ending, str] = MappingProxyType(
    {
        Ending.RESTRICTED: "restricted by the server for this client",
        Ending.GONE: "deleted in the EHR",
        Ending.NOT_FOUND: "not there",
        Ending.NOT_SERVED: "cannot be read here",
    }
)
_SAID: Mapping[Ending, Said] = MappingProxyType({Ending.GONE: Said.GONE, Ending.NOT_FOUND: Said.NOT_FOUND})
_URL_CHARACTERS = 1_800  # of one `_id` list: proxies begin to refuse URLs of 2 to 4 kB (vendor-facts 7)
_NOBODY_ANSWERS = (BudgetExhaustedError, EhrDownError, QuietHoursError)  # the next request would not be answered either
_LISTS_MORE = 8  # at most, for a list whose answer seems cut short; then each id is read
_OK = 200


class ReferenceFetcher:
    """Fetches reference units of one connection."""

    def __init__(self, client: EhrClient, capability: Capability) -> None:
        self._client = client
        self._pager = Pager(client)
        self._profile = client.profile
        self._capability = capability
        self._answers = NotFoundAnswers(client)
        self._refused_types = RefusedTypes()

    def units(self, due: Sequence[ReferenceTarget]) -> Iterator[Unit]:
        """Batches of what is due, which is ordered by type and patient."""
        for (resource_type, patient), some in groupby(due, self._together):
            for batch in self._batches(resource_type, [target.id for target in some]):
                yield Unit(
                    key=unit_key("reference", resource_type, *batch),
                    kind=UnitKind.REFERENCE,
                    resource_type=resource_type,
                    template=self._template(resource_type, batch),
                    ids=tuple(batch),
                    of_chart=patient,
                )

    def _together(self, target: ReferenceTarget) -> tuple[str, str | None]:
        profile = self._profile
        apart = profile.login.token_per_patient or target.resource_type in profile.references.id_batch_one_patient
        return target.resource_type, target.patient_id if apart else None

    def _batches(self, resource_type: str, ids: Sequence[str]) -> Iterator[list[str]]:
        most = self._profile.references.id_batch_by_type.get(resource_type, self._profile.references.id_batch)
        if not self._searches_by_id(resource_type):
            most = 1
        batch: list[str] = []
        length = 0
        for identity in ids:
            if batch and (len(batch) == most or length + len(identity) > _URL_CHARACTERS):
                yield batch
                batch, length = [], 0
            batch.append(identity)
            length += len(identity) + 1
        if batch:
            yield batch

    def _searches_by_id(self, resource_type: str) -> bool:
        declared = self._capability.search_params.get(resource_type)
        return not declared or ("_id" in declared and resource_type in self._capability.searchable)

    def _template(self, resource_type: str, ids: Sequence[str]) -> str:
        return f"GET /{resource_type}/{{id}}" if len(ids) == 1 else f"GET /{resource_type}?_id=…"

    async def fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Emit what the unit's ids lead to, and say how it ended.

        Raises:
            RequestError: the unit is a hole.
            UnsafeLinkError: a next link led away from the EHR.
        """
        count, absent = await self._ask(unit, list(unit.ids), emit)
        reason = next((text for ending, text in _REASONS.items() if ending in absent), None)
        ending = Ending.RESTRICTED if Ending.RESTRICTED in absent else Ending.LISTED
        return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=reason, records=count, ending=ending)

    async def _ask(self, unit: Unit, ids: list[str], emit: Emit) -> tuple[int, set[Ending]]:
        """Return how many came, and why others did not."""
        resource_type = unit.resource_type
        if self._refused_types.passes_over(resource_type):
            return 0, {Ending.RESTRICTED}
        if len(ids) == 1:
            return await self._read(unit, ids[0], emit)
        try:
            received = await self._search(unit, ids, emit)
        except (TerminalFetchError, ProtocolError):
            # one id that the server rejects (another patient's, broken, restricted) makes it refuse the whole list: find that id
            half = len(ids) // 2
            return await self._ask_all(unit, (ids[:half], ids[half:]), emit)
        missing = [identity for identity in ids if identity not in received]
        if not missing:
            return len(received), set()
        # a server may answer a list in part, with or without a word, and its word names no id: only a read says what one means
        capped = len(received) < len(missing) <= _LISTS_MORE * len(received)
        again = [missing] if capped else [[identity] for identity in missing]
        count, absent = await self._ask_all(unit, again, emit)
        return len(received) + count, absent

    async def _ask_all(self, unit: Unit, lists: Iterable[list[str]], emit: Emit) -> tuple[int, set[Ending]]:
        """Request each list in turn. If one fails, the others are requested all the same, and its error is raised at the end."""
        count, absent = 0, set[Ending]()
        failed: FetchError | None = None
        for ids in lists:
            try:
                more, missing = await self._ask(unit, ids, emit)
            except _NOBODY_ANSWERS:
                raise
            except FetchError as error:
                failed = failed or error
                continue
            count += more
            absent |= missing
        if failed is not None:
            raise failed
        return count, absent

    async def _read(self, unit: Unit, identity: str, emit: Emit) -> tuple[int, set[Ending]]:
        resource_type = unit.resource_type
        path = f"{resource_type}/{quote(identity, safe='')}"
        call = self._client.fhir_call(path, f"GET /{resource_type}/{{id}}", patient=unit.of_chart)
        try:
            reply = await self._client.send(call)
        except TerminalFetchError as error:
            return 0, {await self._refused(unit, identity, error, emit)}
        try:
            record = record_from(bare(reply.body), self._client.base, unit.key)
        except UnreadableResourceError as error:
            await emit(Fetched(quarantined=[Quarantined(resource_type, "read", str(error), reply.body, unit.key)]))
            return 0, set()
        if record.resource_type != resource_type:
            raise ProtocolError(f"{call.template} returned a {record.resource_type}.")
        self._refused_types.let_through(resource_type)
        await emit(Fetched(records=[record], size=len(record.body)))
        return 1, set()

    async def _refused(self, unit: Unit, identity: str, error: TerminalFetchError, emit: Emit) -> Ending:
        ending = await self._answers.ending(error, unit.resource_type, unit.of_chart)
        if ending not in _REASONS:
            raise error
        if ending is Ending.RESTRICTED:
            self._refused_types.refuse(unit.resource_type, identity)
        if ending in _SAID:
            await emit(Fetched(deletions=[Deletion(unit.resource_type, identity, _SAID[ending])]))
        return ending

    async def _search(self, unit: Unit, ids: Sequence[str], emit: Emit) -> set[str]:
        """Return the ids that came."""
        resource_type = unit.resource_type
        listed = ",".join(quote(identity, safe="") for identity in ids)
        template = f"GET /{resource_type}?_id=…"
        issues: list[Issue] = []
        received: set[str] = set()

        async def take(page: Page, page_url: str) -> None:
            issues.extend(page.issues)
            received.update(record.id for record in page.records if record.resource_type == resource_type)
            size = sum(len(record.body) for record in page.records)
            await emit(Fetched(records=page.records, quarantined=page.quarantined, size=size))

        def call_for(url: str, first: bool) -> Call:
            return self._client.fhir_call(url, template, "search", patient=unit.of_chart)

        await self._pager.walk(
            f"{self._client.base.url}/{resource_type}?_id={listed}", call_for, take, unit_key=unit.key
        )
        meaning = grade(issues, self._profile.answers.issue_codes)
        if meaning in ("fatal", "pause", "restart"):
            raise TerminalFetchError(f"{template}: the server could not produce all of it.", status=_OK)
        if received:
            self._refused_types.let_through(resource_type)
        return received
