"""De-identifies resources by `safe-harbor` (45 CFR 164.514(b)(2)) or `shifted-dates`: only what is allowed is left. Pure.

A resource is walked along R4's elements: what `allow_list` does not list, and what has another shape than R4 says, is dropped and
counted. `datatypes` says what of a value leaves.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec

from exports.elements.table import elements_of, is_resource
from exports.safe_harbor.allow_list import allowed_paths, leads_on
from exports.safe_harbor.datatypes import (
    BY_PATH,
    OLDEST_AGE,
    RULES,
    TELLING_SYSTEMS,
    age,
    age_range,
    years_old,
)
from exports.safe_harbor.dates import days_of, patient_of
from exports.safe_harbor.release import Dropped, Release

LEAST_KEY_BYTES = 32
_ID_DIGITS = 32
_YEARS_AHEAD = 10  # for what is planned: goals, coverages
# LOINC's and SNOMED CT's ages (now, at onset, at diagnosis, at death): of such an Observation only a value in a unit of time is
# known to be no age over 89
_AGES = frozenset(
    {"30525-0", "21611-9", "21612-7", "29553-5", "63900-5", "35659-2", "39016-1"}
    | {"424144002", "397669002", "445518008", "423493009"}
)
_MODIFIERS = ("status", "clinicalStatus", "lifecycleStatus", "verificationStatus", "intent", "doNotPerform")
_UNKNOWN = "elements that R4 does not have"
_READER = msgspec.json.Decoder(float_hook=Decimal)
_WRITER = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True)
class SafeHarbor:
    """The profile's choices. `year`: the one in which the files leave; ages are those of its end.

    `shifts_dates`: the profile is `shifted-dates`, whose dates are moved by patient; Safe Harbor's are cut to the year.
    """

    key: bytes = field(repr=False)
    year: int
    shifts_dates: bool = False

    @property
    def name(self) -> str:
        """The profile's name, as the command line has it."""
        return "shifted-dates" if self.shifts_dates else "safe-harbor"

    def seeded(self, seed: int) -> int:
        """Return the seed of a sample: without the key, nobody who knows ids can compute which of them it has drawn."""
        return int.from_bytes(hmac.digest(self.key, f"seed {seed}".encode(), hashlib.sha256)[:8])


@dataclass(frozen=True)
class Line:
    """A de-identified resource as a line of JSON; by `order` it stands where its former id would not have put it."""

    order: bytes
    text: bytes


class Deidentifier:
    """De-identifies the resources of one export, and counts what it drops: `dropped` by path, `left_out` by type.

    Equal ids have equal keyed ids, so that references still lead to what they led to. Without the key nobody can tell which id
    one came from, and with another key all are others. Where dates are shifted, those of one patient all are by the same days.
    """

    def __init__(self, profile: SafeHarbor) -> None:
        self.profile = profile
        self._key = profile.key
        self.too_old = profile.year - OLDEST_AGE - 1  # who was born then may be 90
        self._release = Release(self.keyed, self.too_old, profile.year + _YEARS_AHEAD)
        self._undated = replace(self._release, latest=0)
        self.dropped: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def keyed(self, resource_type: str, id_: str) -> str:
        """Return the id by which a resource is known outside."""
        digest = hmac.new(self._key, f"{resource_type}/{id_}".encode(), hashlib.sha256)
        return digest.hexdigest()[:_ID_DIGITS]

    def line(self, resource_type: str, line: bytes) -> Line | None:
        """De-identify a resource of a type, one line of JSON; None: it is left out."""
        try:
            found = self.resource(resource_type, _READER.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        if found is None:
            self.left_out[resource_type] += 1
            return None
        return Line(found["id"].encode(), _WRITER.encode(found) + b"\n")

    def resource(self, resource_type: str, resource: Any) -> dict[str, Any] | None:
        """De-identify a resource; None if none of it may leave.

        That is: its type is not allowed, it is no resource of that type, or it has something that cannot leave and without
        which the rest would mean something else: a modifierExtension (FHIR R4, 2.4.3), a status or a doNotPerform that R4 does
        not know.
        """
        if resource_type not in allowed_paths() or not is_resource(resource_type) or not isinstance(resource, dict):
            return None
        id_ = resource.get("id")
        if resource.get("resourceType") != resource_type or not isinstance(id_, str) or _has_modifier(resource):
            return None
        own = {name: value for name, value in resource.items() if name not in {"resourceType", "id"}}
        release = self._release_of(resource_type, resource)
        found = self._object(own, resource_type, resource_type, "", release)
        if any(name in own and name not in found for name in _MODIFIERS):
            return None
        first = min(_years(found, resource_type), default=None)
        self._drop_ages(found, resource_type, first)
        if resource_type == "Observation":
            for one in (found, *found.get("component", ())):
                self._drop_values(one, first)
        return {"resourceType": resource_type, "id": self.keyed(resource_type, id_), **found}

    def _release_of(self, resource_type: str, resource: dict[str, Any]) -> Release:
        """Return what the rules need to know of a resource; where dates are shifted, none leaves of what is not one patient's.

        Its true year, beside the shifted dates of resources that it is linked with, would tell by how many days they were moved.
        """
        if not self.profile.shifts_dates:
            return self._release
        patient = patient_of(resource_type, resource)
        return self._undated if patient is None else replace(self._release, days=days_of(self._key, patient))

    def _object(
        self, fields: dict[str, Any], of: str, resource_type: str, above: str, release: Release
    ) -> dict[str, Any]:
        """Return what may leave of an object of the type `of`, which stands at a path of the resource."""
        found = {}
        for name, value in fields.items():
            step = _properties(of).get(name)
            if step is None:
                self.dropped[f"{resource_type}: {_UNKNOWN}"] += 1
                continue
            path, type_, many = f"{above}{step[0]}", step[1], step[2]
            try:
                found[name] = self._element(
                    value, f"{above}{name}", path, type_, many=many, resource_type=resource_type, release=release
                )
            except Dropped:
                self.dropped[f"{resource_type}.{path}"] += 1
        return found

    def _element(
        self, value: Any, property_: str, path: str, type_: str, *, many: bool, resource_type: str, release: Release
    ) -> Any:
        if many != isinstance(value, list):
            raise Dropped
        if not many:
            return self._value(value, property_, path, type_, resource_type, release=release)
        found = []
        for one in value:
            try:
                found.append(self._value(one, property_, path, type_, resource_type, release=release))
            except Dropped:
                continue
        if not found:
            raise Dropped
        if len(found) < len(value):
            self.dropped[f"{resource_type}.{path}"] += len(value) - len(found)
        return found

    def _value(self, value: Any, property_: str, path: str, type_: str, resource_type: str, *, release: Release) -> Any:
        if path in allowed_paths()[resource_type]:
            rule = BY_PATH.get(f"{resource_type}.{property_}") or RULES.get(type_)
            if rule is None:
                raise Dropped
            return rule(value, release)
        if path not in leads_on(resource_type) or not isinstance(value, dict):
            raise Dropped
        found = self._object(value, type_, resource_type, f"{path}.", release)
        if not found:
            raise Dropped
        return found

    def _drop_ages(self, found: dict[str, Any], resource_type: str, first: int | None) -> None:
        """Drop the ages from which, with the first year beside them, somebody would be over 89 by now."""
        for name in list(found):
            path, type_, _ = _properties(resource_type)[name]
            of_range = BY_PATH.get(f"{resource_type}.{name}") is age_range
            ages = found[name].values() if of_range else [found[name]] if type_ == "Age" else ()
            if not all(self._is_young(one, first) for one in ages):
                del found[name]
                self.dropped[f"{resource_type}.{path}"] += 1

    def _drop_values(self, observed: dict[str, Any], first: int | None) -> None:
        """Drop the value of an Observation, or of a component, if nothing says what it is, or if it may be an age over 89."""
        codings = observed.get("code", {}).get("coding", ())
        codes = {coding["code"] for coding in codings if coding["system"] in TELLING_SYSTEMS}
        for name in [name for name in observed if name.startswith("value")] if not codes or codes & _AGES else []:
            if not codes or not self._is_young(observed[name], first):
                del observed[name]
                self.dropped["Observation.value[x]"] += 1

    def _is_young(self, value: Any, first: int | None) -> bool:
        try:
            years = years_old(age(value, self._release))
        except Dropped:
            return False
        return first is None or first - years > self.too_old


@cache
def _properties(of: str) -> dict[str, tuple[str, str, bool]]:
    """Return, by property, the path step, the type, and whether it repeats, of all that R4 says a type has."""
    found = {}
    for name, one in elements_of(of).items():
        if not one.choice:
            found[name] = (name, one.types[0], one.many)
            continue
        for type_ in one.types:
            found[name + type_[0].upper() + type_[1:]] = (f"{name}[x]", type_, False)
    return found


def _years(found: dict[str, Any], resource_type: str) -> Iterator[int]:
    """Return the years that a de-identified resource has at its top."""
    for name, value in found.items():
        type_ = _properties(resource_type)[name][1]
        if type_ in {"date", "dateTime"}:
            yield int(value[:4])
        elif type_ == "Period":
            yield from (int(one[:4]) for one in value.values())


def _has_modifier(value: Any) -> bool:
    return any("modifierExtension" in one for one in _objects(value))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
