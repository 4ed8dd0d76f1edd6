"""The units of a crawl: one per patient, type and split, with what its fetcher needs to request it again. Pure.

`plan` and `cohort` choose types and patients; `since` says from when each is requested.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import islice
from urllib.parse import quote

from connectors.fhir.capability import Capability
from connectors.fhir.profile import VendorProfile
from connectors.fhir.search.since import SinceByPatient, SinceParameter, since_parameter
from connectors.fhir.unit_details import SearchDetail
from connectors.fhir.ways import DIRECTORY, PATIENTS, search_way
from snapshots.unit import Unit, UnitKind, unit_key

_PATIENT = "Patient"


class UnitPlan:
    """Makes units for one server. `expected` are types that must be there, since the user named them or the server has sent such.

    If such a search does not exist, it is a hole. For other types it is a note: servers declare types of which they have nothing,
    and answer 404.
    """

    def __init__(
        self,
        types: Sequence[str],
        profile: VendorProfile,
        capability: Capability,
        since_by_patient: SinceByPatient,
        *,
        expected: Container[str] = (),
        known: Container[str] = (),
        survivors: Container[str] = (),
        check_patients: bool = False,
    ) -> None:
        """`known` are patients whose Patient is stored: if the server no longer has one, that is a change and no hole.

        Nor is it for `survivors`, whom only an earlier run's merge names. No batch asks for them.

        `check_patients` requests each Patient even if that type is not requested; then it is not stored.

        An id that the server does not know would otherwise pass for a patient without data.
        """
        self._types = types
        self._profile = profile
        self._capability = capability
        self._owed = since_by_patient
        self._expected = expected
        self._known = known
        self._survivors = survivors
        self._ways = {split: search_way(split) for splits in profile.search.splits.values() for split in splits}
        self._ways[""] = search_way("")
        self._asks_patient = check_patients or _PATIENT in types
        self._by = {t: since_parameter(t, profile, capability) for t in types}
        self._splits = {t: profile.search.splits.get(t, ("",)) for t in types if t != _PATIENT}
        self._suffixes: dict[tuple[str, str | None], list[str]] = {}

    @property
    def _stores_patient(self) -> bool:
        return _PATIENT in self._types

    def patients(self, patients: Iterable[str]) -> Iterator[Unit]:
        """Return units for each Patient, in `_id` batches if the vendor accepts them."""
        if not self._asks_patient:
            return
        size = self._batch_size()
        everyone = list(patients)
        yield from (self.patient(one) for one in everyone if one in self._survivors)
        waiting = (one for one in everyone if one not in self._survivors)
        number = 0
        while ids := list(islice(waiting, size)):
            number += 1
            if len(ids) == 1:
                yield self.patient(ids[0])
                continue
            yield Unit(
                key=unit_key("batch", _PATIENT, number),
                kind=UnitKind.BATCH,
                resource_type=_PATIENT,
                way=PATIENTS,
                template="GET /Patient?_id=…",
                ids=tuple(ids),
            )

    def _batch_size(self) -> int:
        profile = self._profile
        declared = self._capability.search_params.get(_PATIENT)
        if not self._stores_patient or profile.login.token_per_patient or (declared and "_id" not in declared):
            return 1
        return profile.references.id_batch_by_type.get(_PATIENT, profile.references.id_batch)

    def patient(self, patient: str, *, store: bool | None = None) -> Unit:
        """The Patient alone."""
        quoted = quote(patient, safe="")
        read = self._profile.search.patient_by == "read"
        return Unit(
            key=unit_key("read", _PATIENT, patient),
            kind=UnitKind.READ if read else UnitKind.SEARCH,
            resource_type=_PATIENT,
            patient_id=patient,
            way=PATIENTS,
            template="GET /Patient/{id}" if read else "GET /Patient?_id=…",
            detail=SearchDetail(
                path=f"Patient/{quoted}" if read else f"Patient?_id={quoted}",
                expect=1,
                known=patient in self._known or patient in self._survivors,
                store=self._stores_patient if store is None else store,
            ).packed,
        )

    def of(self, patient: str) -> Iterator[Unit]:
        """Return units for everything of one patient, including the Patient if requested."""
        if self._asks_patient:
            yield self.patient(patient)
        yield from self.charts([patient])

    def charts(self, patients: Iterable[str], *, again: str = "", in_full: bool = False) -> Iterator[Unit]:
        """The searches of each patient, patient by patient, so that a chart is whole as early as can be.

        A type's splits stand apart from each other: what the first is refused, the others need not ask. `again` is put to the
        keys of searches that this run may have planned in another way; `in_full` asks for everything whatever is stored.
        """
        rounds = max((len(splits) for splits in self._splits.values()), default=0)
        for patient in patients:
            since = {t: None if in_full else self._since(t, patient) for t in self._splits}
            for place in range(rounds):
                for resource_type, splits in self._splits.items():
                    if place < len(splits):
                        yield self._search(patient, resource_type, place, since[resource_type], again)

    def _since(self, resource_type: str, patient: str) -> str | None:
        return self._owed.since(resource_type, patient) if self._by[resource_type] else None

    def _search(self, patient: str, resource_type: str, place: int, since: str | None, again: str) -> Unit:
        split = self._splits[resource_type][place]
        suffixes = self._suffixes.get((resource_type, since))
        if suffixes is None:
            by = self._by[resource_type]
            suffixes = [
                _query(one, _page_size(resource_type, self._profile), since, by) for one in self._splits[resource_type]
            ]
            self._suffixes[resource_type, since] = suffixes
        parameter = self._capability.patient_parameter(resource_type) or "patient"
        quoted = quote(patient, safe="")
        return Unit(
            key=unit_key("search", resource_type, patient, f"{split}{again}"),
            kind=UnitKind.SEARCH,
            resource_type=resource_type,
            patient_id=patient,
            way=self._ways[split],
            template=f"GET /{resource_type}?{parameter}=…{f'&{split}' if split else ''}",
            split=split,
            incremental=since is not None,
            since=since,
            detail=SearchDetail(
                path=f"{resource_type}?{parameter}={quoted}{suffixes[place]}",
                expected=resource_type in self._expected,
            ).packed,
        )


def directory_units(
    types: Sequence[str], profile: VendorProfile, capability: Capability, since_by_patient: SinceByPatient
) -> Iterator[Unit]:
    """Return one unit for each type that is listed as a whole."""
    for resource_type in types:
        by = since_parameter(resource_type, profile, capability)
        since = since_by_patient.of_nobody(resource_type) if by else None
        query = _query("", _page_size(resource_type, profile), since, by).lstrip("&")
        yield Unit(
            key=unit_key("search", resource_type, "all"),
            kind=UnitKind.SEARCH,
            resource_type=resource_type,
            way=DIRECTORY,
            template=f"GET /{resource_type}",
            incremental=since is not None,
            since=since,
            detail=SearchDetail(path=f"{resource_type}?{query}" if query else resource_type).packed,
        )


def _page_size(resource_type: str, profile: VendorProfile) -> int | None:
    return profile.search.page_size_by_type.get(resource_type, profile.search.page_size)


def _query(split: str, page_size: int | None, since: str | None, by: SinceParameter | None) -> str:
    parts = [split] if split else []
    if since is not None and by is not None:
        parts.append(f"{by.name}=ge{quote(since, safe=':')}")  # a zone's `+` must leave as %2B [R] SF, vendor-facts 7
    if page_size is not None:
        parts.append(f"_count={page_size}")
    return "".join(f"&{part}" for part in parts)
