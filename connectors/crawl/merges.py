"""Reads what a Patient says of merges: `Patient.link` of type replaced-by and replaces (R4 Patient). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from snapshots.record import Alias, Record

_PATIENT = re.compile(r"(?:^|/)Patient/([^/?#]+)(?:/_history/[^/]+)?\Z")


class _Linked(msgspec.Struct):
    link: Any = None


_LINKED = msgspec.json.Decoder(_Linked)


def aliases_in(records: Iterable[Record]) -> list[Alias]:
    """The merges that Patients among the records tell of; both ids can still be read."""
    return [alias for record in records if record.resource_type == "Patient" for alias in links_of(record)]


def links_of(record: Record) -> list[Alias]:
    """The merges that one Patient tells of; what is not as R4 has it is passed over."""
    if b'"link"' not in record.body:
        return []
    try:
        links = _LINKED.decode(record.body).link
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    found = []
    for link in links if isinstance(links, list) else ():
        other = _other(link)
        if other is None or other == record.id:
            continue
        if link.get("type") == "replaced-by":
            found.append(Alias(record.id, other, gone=False))
        elif link.get("type") == "replaces":
            found.append(Alias(other, record.id, gone=False))
    return found


def _other(link: Any) -> str | None:
    reference = link.get("other", {}).get("reference") if isinstance(link, dict) else None
    match = _PATIENT.search(reference) if isinstance(reference, str) else None
    return match[1] if match else None
