"""Finds what resources refer to while they pass by on their way to the store. Pure; bodies stay the bytes that came.

It finds what a walk of the whole resource would find at the listed paths. Elements on these paths are picked out raw, in one
pass over the body. Most of them are a few texts that come again and again (a ward's doctors), and a text that was met before is
skipped. `reference_paths` lists where references stand, `reference_resolver` reads one, and the store decides which are
requested.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypedDict

import msgspec

from connectors.fhir.linked.reference_resolver import Astray, Resolver
from snapshots.record import Record
from snapshots.referred import ReferencePath, ReferenceTarget
from snapshots.unit import Counted

ABOUT = "references"
# of what leads nowhere; the others are no references to the EHR
TOLD_OF: frozenset[Astray] = frozenset({"foreign", "odd"})
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
_MET_AT_MOST = 20_000  # elements that are remembered, before all are forgotten: to note a thing again does no harm
_LONGEST_MET = 400  # bytes: longer ones, a panel's results, come once


class _Place(NamedTuple):
    """Where a top-level element refers to others: the elements' names below it, and the types that are wanted there."""

    below: tuple[str, ...]
    targets: frozenset[str]
    met: set[bytes]  # its elements in charts
    met_alone: set[bytes]  # and in what belongs to no patient


class _Source(NamedTuple):
    """How one type of resource is read: into those elements that it has, raw; and what is looked for in each."""

    read: Callable[[bytes], Mapping[str, msgspec.Raw]]
    places: Mapping[str, tuple[_Place, ...]]


class Found(NamedTuple):
    """What some records refer to, and how many of their references lead nowhere."""

    mentions: Sequence[ReferenceTarget]
    counted: Mapping[Counted, int]


class ReferenceFinder:
    """Finds references at `paths` that `resolver` can follow, in the records of one run."""

    def __init__(self, paths: Sequence[ReferencePath], resolver: Resolver) -> None:
        self.resolver = resolver
        sources = {path.source for path in paths}
        self._sources = {source: _source([path for path in paths if path.source == source]) for source in sources}
        self._met = 0
        self._astray: set[str] = set()  # lead nowhere, and are counted once

    def __call__(self, records: Sequence[Record]) -> Found:
        """What these records refer to, each once, with a patient whose chart has it; most of what came before is left out."""
        found: dict[tuple[str, str], str | None] = {}
        counted: Counter[Counted] = Counter()
        for record in records:
            source = self._sources.get(record.resource_type)
            if source is None:
                continue
            try:
                elements = source.read(record.body)
            except UNREADABLE:  # no store takes it either: it is refused there, and kept aside
                continue
            patient = record.patient_id
            for name, raw in elements.items():
                element = bytes(raw)
                for place in source.places[name]:
                    met = place.met if patient is not None else place.met_alone
                    if element in met:
                        continue
                    self._remember(element, met)
                    for target in self._targets(element, place, record.resource_type, counted):
                        if found.get(target) is None:
                            found[target] = patient
        return Found([ReferenceTarget(*target, patient) for target, patient in found.items()], counted)

    def _targets(
        self, element: bytes, place: _Place, source: str, counted: Counter[Counted]
    ) -> Iterator[tuple[str, str]]:
        for text in _references(decoded(element), place.below):
            if text in self._astray:
                continue
            target = self.resolver(text)
            if not isinstance(target, ReferenceTarget):
                if len(self._astray) < _MET_AT_MOST:
                    self._astray.add(text)
                if target in TOLD_OF:
                    counted[Counted(ABOUT, source, target)] += 1
            elif target.resource_type in place.targets:
                yield target.resource_type, target.id

    def _remember(self, element: bytes, met: set[bytes]) -> None:
        if len(element) > _LONGEST_MET:
            return
        if self._met >= _MET_AT_MOST:
            for source in self._sources.values():
                for place in chain.from_iterable(source.places.values()):
                    place.met.clear()
                    place.met_alone.clear()
            self._met = 0
        met.add(element)
        self._met += 1


def _source(paths: Sequence[ReferencePath]) -> _Source:
    places: dict[str, tuple[_Place, ...]] = {}
    for path in paths:
        name, *below = path.path.removeprefix("$.").split(".")[:-1]
        places[name] = (*places.get(name, ()), _Place(tuple(below), frozenset(path.targets), set(), set()))
    # half the time of a Struct, which has an attribute for each element that is not there
    typed: Any = TypedDict
    return _Source(
        msgspec.json.Decoder(typed("Elements", dict.fromkeys(places, msgspec.Raw), total=False)).decode, places
    )


def decoded(text: bytes) -> Any:
    """The value of a JSON text that may hold numbers which no double holds: Postgres stores them. None where it is none."""
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        try:
            return json.loads(text, parse_int=float)
        except UNREADABLE:
            return None


def _references(value: Any, below: Sequence[str]) -> Iterator[str]:
    """The texts at a path; lists count by their members, other shapes are passed over: as a lax jsonpath finds them."""
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, dict):
            if below:
                yield from _references(one.get(below[0]), below[1:])
            elif isinstance(one.get("reference"), str):
                yield one["reference"]
