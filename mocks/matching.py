"""Decides which rows match a search: category, code, _lastUpdated, and the search parameters of Patient. Pure."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

from mocks.answers import Refused
from mocks.dataset import Row, instant
from mocks.manners.manner import fhir_refusal

_COMPARE = {"ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt, "eq": operator.eq}
_DATE_ONLY = len("2020-01-01")

PERSON_PARAMS = frozenset({"identifier", "name", "family", "given", "birthdate"})

Params = Mapping[str, tuple[str, ...]]


def matches(row: Row, params: Params, last_updated: frozenset[str] | None) -> bool:
    """Return whether a row matches. `last_updated` names the types on which _lastUpdated is honoured (None: all)."""
    for name in ("category", "code"):
        for value in params.get(name, ()):
            element = row.body.get(name, row.body.get("medicationCodeableConcept") if name == "code" else None)
            if value and not _token_fits(value, element):
                return False
    if (last_updated is None or row.type in last_updated) and not all(
        updated_fits(row, value) for value in params.get("_lastUpdated", ())
    ):
        return False
    return row.type != "Patient" or _is_person(row, params)


def updated_fits(row: Row, value: str) -> bool:
    """Compare meta.lastUpdated with a prefixed instant; a row without one always matches: the server cannot tell."""
    prefix = value[:2] if value[:2] in _COMPARE else "eq"
    wanted = instant(value.removeprefix(prefix))
    if wanted is None:
        raise Refused(fhir_refusal(400, "invalid", "Invalid date value"), "bad date")
    if row.updated is None:
        return True
    if prefix == "eq" and len(value.removeprefix(prefix)) == _DATE_ONLY:
        return row.updated.date() == wanted.date()
    return bool(_COMPARE[prefix](row.updated, wanted))


def dates_fit(row: Row, params: Params, dates: Mapping[tuple[str, str], str]) -> bool:
    """Return whether a row matches the date filters that a manner knows; a row without the date matches none."""
    for (kind, name), element in dates.items():
        if kind != row.type:
            continue
        for value in params.get(name, ()):
            prefix = value[:2] if value[:2] in _COMPARE else "eq"
            wanted, found = instant(value.removeprefix(prefix)), instant(str(row.body.get(element, "")))
            if wanted is None:
                raise Refused(fhir_refusal(400, "invalid", "Invalid date value"), "bad date")
            if found is None or not _COMPARE[prefix](found, wanted):
                return False
    return True


def _codings(element: Any) -> Iterator[tuple[str, str]]:
    for one in element if isinstance(element, list) else [element]:
        if isinstance(one, str):
            yield "", one
        elif isinstance(one, dict):
            for coding in one.get("coding", [one]):
                yield str(coding.get("system", "")), str(coding.get("code", coding.get("value", "")))


def _token_fits(value: str, element: Any) -> bool:
    found = list(_codings(element))
    for wanted in value.split(","):
        system, bar, code = wanted.rpartition("|")
        if any((not bar or system == s) and (not code or code == c) for s, c in found):
            return True
    return False


def _is_person(row: Row, params: Params) -> bool:
    names = row.body.get("name", [])
    for value in params.get("identifier", ()):
        if not _token_fits(value, row.body.get("identifier", [])):
            return False
    for value in params.get("birthdate", ()):
        if row.body.get("birthDate") != value.removeprefix("eq"):
            return False
    for parameter, parts in (("family", ("family",)), ("given", ("given",)), ("name", ("family", "given"))):
        for value in params.get(parameter, ()):
            spelled = [str(name.get(part, "")).lower() for name in names for part in parts]
            if not any(value.lower() in text for text in spelled):
                return False
    return True
