"""Drift: how the columns of an export's tables differ from those of the last export of the same folder. Pure.

Both are read from the Data Package beside the tables (`formats.data_package`). Tables that only one of the two has are left out:
one of the requests did not name them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from exports.errors import DriftError


@dataclass(frozen=True)
class Drift:
    """How one table's columns changed, by name; `moved`: the remaining ones are in another order."""

    table: str  # with its format, such as "observation.csv"
    added: tuple[str, ...]
    removed: tuple[str, ...]
    retyped: tuple[str, ...]
    moved: bool

    def __str__(self) -> str:
        parts = [(self.added, "new"), (self.removed, "gone"), (self.retyped, "of another type")]
        changes = [f"{', '.join(names)} {what}" for names, what in parts if names]
        return f"{self.table}: {'; '.join([*changes, *(['columns in another order'] if self.moved else [])])}"


def drift_between(former: bytes, now: bytes) -> tuple[Drift, ...]:
    """Compare two Data Packages; tables whose columns are the same are not in the result.

    Raises:
        DriftError: the former one is no Data Package.
    """
    try:
        before = dict(_tables(json.loads(former)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DriftError(
            "whether columns have changed since the last export is unknown, because its datapackage.json cannot be read; an "
            "export without --freeze replaces it"
        ) from None
    pairs = [(name, before[name], columns) for name, columns in _tables(json.loads(now)) if name in before]
    return tuple(_drift(name, old, new) for name, old, new in pairs if list(old.items()) != list(new.items()))


def _tables(package: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, tuple[Any, ...]]]]:
    """The tables of a package, each with its columns in order, and what type they have."""
    for table in package["resources"]:
        yield table["name"], {one["name"]: (one["type"], one.get("fhirType")) for one in table["schema"]["fields"]}


def _drift(table: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Drift:
    stayed = [name for name in old if name in new]
    return Drift(
        table,
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        retyped=tuple(name for name in stayed if old[name] != new[name]),
        moved=stayed != [name for name in new if name in old],
    )
