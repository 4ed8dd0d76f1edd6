"""Everything in resources by which somebody could be known: what a search of a de-identified export looks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


def _identifying(resource: dict[str, Any]) -> Iterator[str]:
    """Every value by which somebody could be known: whatever is text of people, and every day and id."""
    for path, value in leaves(resource):
        if not isinstance(value, str) or path == ("resourceType",):
            continue
        if re.match(r"[0-9]{4}-[0-9]{2}", value) or {*path} & {"name", "telecom", "identifier", "text", "display"}:
            yield value
            yield value[:10]
        elif "address" in path and path[-1] not in {"state", "country", "use", "type"}:
            yield value
        elif path[-1] in {"id", "reference", "lotNumber", "serialNumber", "url", "data", "valueString"}:
            yield value
            yield value.rpartition("/")[2]


def values_of_people(resources: Sequence[dict[str, Any]]) -> set[str]:
    """Every such value, in lower case."""
    return {value.lower() for one in resources for value in _identifying(one) if len(value) > 2}


def words_of_names(resources: Sequence[dict[str, Any]]) -> set[str]:
    """The words of people's names, in lower case."""
    return {
        word.lower()
        for one in resources
        if one["resourceType"] in {"Patient", "Practitioner", "RelatedPerson"}
        for name in one.get("name", [])
        for part in (name.get("family", ""), *name.get("given", []))
        for word in re.split(r"\W+", part)
        if len(word) > 2
    }
