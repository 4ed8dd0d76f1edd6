"""The resources that a mock EHR serves: unchanged bytes, indexed by type, id and patient.

Adds and removes nothing: `1.0` stays `1.0`. search and bulk decide which resources a request may see. Another thread than the
server's may change the data: every change swaps whole values.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import orjson


class DataError(Exception):
    """The data cannot be read; the message names file and line."""


class _Head(msgspec.Struct, rename={"for_": "for"}):
    """The indexed fields of a resource; everything else stays bytes."""

    resourceType: str  # noqa: N815 (FHIR's name)
    id: str
    patient: Any = None
    subject: Any = None
    beneficiary: Any = None
    individual: Any = None
    for_: Any = None
    target: Any = None
    participant: Any = None
    meta: dict[str, Any] | None = None


_read_head = msgspec.json.Decoder(_Head).decode


class Row:
    """One resource: its bytes and its index fields. Never modified: a change makes a new row."""

    __slots__ = ("_parsed", "id", "patient", "raw", "type", "updated")

    def __init__(self, type_: str, id_: str, patient: str | None, raw: bytes, updated: datetime | None) -> None:
        self.type = type_
        self.id = id_
        self.patient = patient
        self.raw = raw
        self.updated = updated
        self._parsed: dict[str, Any] | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The parsed resource, parsed at first use."""
        if self._parsed is None:
            self._parsed = orjson.loads(self.raw)
        return self._parsed


def instant(text: str) -> datetime | None:
    """Parse a FHIR instant, dateTime or date (UTC if it has no zone); return None for anything else."""
    padded = {4: "-01-01", 7: "-01"}.get(len(text), "")
    try:
        found = datetime.fromisoformat(text + padded)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _patient_of(head: _Head) -> str | None:
    if head.resourceType == "Patient":
        return head.id
    candidates = [head.patient, head.subject, head.beneficiary, head.individual, head.for_]
    if head.resourceType == "Provenance" and isinstance(head.target, list):
        candidates += head.target
    if head.resourceType == "Appointment" and isinstance(head.participant, list):
        candidates += [part.get("actor") for part in head.participant if isinstance(part, dict)]
    for candidate in candidates:
        for one in candidate if isinstance(candidate, list) else [candidate]:
            reference = one.get("reference") if isinstance(one, dict) else None
            parts = reference.split("/") if isinstance(reference, str) else []
            if "Patient" in parts[-4:-1]:  # also Patient/x/_history/1
                return str(parts[len(parts) - 1 - parts[::-1].index("Patient") + 1])
    return None


@lru_cache(maxsize=1 << 13)  # the same charts are served again and again where mocks start and end
def row_of(raw: bytes) -> Row:
    """Index one resource's bytes. Raises DataError when it has no resourceType or id."""
    try:
        head = _read_head(raw)
    except msgspec.DecodeError as exc:
        raise DataError(f"not a FHIR resource with resourceType and id: {exc}") from exc
    updated = instant(str((head.meta or {}).get("lastUpdated", "")))
    return Row(head.resourceType, head.id, _patient_of(head), raw, updated)


def _dump(resource: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(resource, bytes):
        return resource

    def decimal(value: Any) -> Any:
        if isinstance(value, Decimal):
            return orjson.Fragment(str(value))
        raise TypeError(f"cannot write {type(value).__name__} as JSON")

    return orjson.dumps(resource, default=decimal)


def _lines(folder: Path) -> Iterator[tuple[str, bytes]]:
    files = sorted([*folder.glob("*.ndjson"), *folder.glob("*.ndjson.gz")])
    if not files:
        raise DataError(
            f"no *.ndjson or *.ndjson.gz in {folder}: give the directory that has one file per resource type"
        )
    for file in files:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for number, line in enumerate(content.split(b"\n"), start=1):
            if stripped := line.strip():
                yield f"{file.name}:{number}", stripped


class Dataset:
    """All resources of a mock EHR. `version` grows with every change."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.version = 0
        self.deleted: set[tuple[str, str]] = set()
        self._rows: dict[str, dict[str, Row]] = {}
        self._by_patient: dict[tuple[str, str], dict[str, Row]] = {}
        for row in rows:
            self._put(row)
        self._settle_provenance()

    @classmethod
    def load(cls, source: Path | Iterable[Mapping[str, Any] | bytes]) -> Dataset:
        """Read a directory of NDJSON(.gz), or resources as dicts or JSON bytes. Raises DataError."""
        if not isinstance(source, Path):
            return cls(row_of(_dump(resource)) for resource in source)
        rows = []
        for place, line in _lines(source):
            try:
                rows.append(row_of(line))
            except DataError as exc:
                raise DataError(f"{place}: {exc}") from exc
        return cls(rows)

    def _put(self, row: Row) -> None:
        old = self._rows.setdefault(row.type, {}).get(row.id)
        if old is not None and old.patient is not None and old.patient != row.patient:
            self._by_patient[row.type, old.patient].pop(row.id, None)
        self._rows[row.type][row.id] = row
        if row.patient is not None:
            self._by_patient.setdefault((row.type, row.patient), {})[row.id] = row

    def _settle_provenance(self) -> None:
        """Return the patient of a Provenance: that of its target."""
        for row in list(self._rows.get("Provenance", {}).values()):
            if row.patient is not None:
                continue
            for target in row.body.get("target", ()):
                about = self.get(*str(target.get("reference", "/")).split("/")[-2:])
                if about is not None and about.patient is not None:
                    self._put(Row(row.type, row.id, about.patient, row.raw, row.updated))
                    break

    @property
    def types(self) -> list[str]:
        """The types that have resources, sorted."""
        return sorted(name for name, rows in self._rows.items() if rows)

    @property
    def patient_types(self) -> frozenset[str]:
        """The types in which some resource names a patient (without Patient itself)."""
        return frozenset(name for (name, _), rows in self._by_patient.items() if rows and name != "Patient")

    @property
    def patient_ids(self) -> list[str]:
        """The ids of the patients, in the order they came."""
        return list(self._rows.get("Patient", {}))

    def get(self, type_: str, id_: str) -> Row | None:
        """Return one resource."""
        return self._rows.get(type_, {}).get(id_)

    def of_type(self, type_: str) -> list[Row]:
        """Return all resources of a type, in the order they came."""
        return list(self._rows.get(type_, {}).values())

    def of_patient(self, type_: str, patient: str) -> list[Row]:
        """Return the resources of a type that name this patient, in the order they came."""
        return list(self._by_patient.get((type_, patient), {}).values())

    def replace(self, resource: Mapping[str, Any] | bytes) -> None:
        """Add one resource, or replace the one with its type and id."""
        row = row_of(_dump(resource))
        self._put(row)
        self.deleted.discard((row.type, row.id))
        self._settle_provenance()
        self.version += 1

    def delete(self, type_: str, id_: str) -> None:
        """Delete one resource. Raises KeyError if it does not exist."""
        row = self._rows[type_].pop(id_)
        if row.patient is not None:
            self._by_patient[type_, row.patient].pop(id_, None)
        self.deleted.add((type_, id_))
        self.version += 1
