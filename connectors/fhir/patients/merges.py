"""Finds merges in what an EHR sends: `Patient.link` of type replaced-by and replaces (R4 Patient), refused redirects. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from connectors.fhir.errors import RequestError
from connectors.fhir.transport.fhir_base import FhirBase
from snapshots.patient import Alias
from snapshots.record import Record

_PATIENT = re.compile(r"(?:^|/)Patient/([^/?#]+)(?:/_history/[^/]+)?\Z")


class _Linked(msgspec.Struct):
    link: Any = None


_LINKED = msgspec.json.Decoder(_Linked)


def aliases_in(records: Iterable[Record]) -> list[Alias]:
    """Return the merges that Patients among the records report. Both ids of each can still be read."""
    return [alias for record in records if record.resource_type == "Patient" for alias in links_of(record)]


def links_of(record: Record) -> list[Alias]:
    """Return the merges that one Patient reports. Links to Patients of other servers are passed over.

    So are links that cannot be read. That is harmless: both Patients are still requested by their own ids. Raises nothing.
    """
    if b'"link"' not in record.body:
        return []
    try:
        links = _LINKED.decode(record.body).link
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    found = []
    for link in links if isinstance(links, list) else [links]:
        other = _other(link)
        if other not in record.others:  # himself, or a Patient of another server
            continue
        kind = str(link.get("type")).strip().lower()
        if kind == "replaced-by":
            found.append(Alias(record.id, other, gone=False))
        elif kind == "replaces":
            found.append(Alias(other, record.id, gone=False))
    return found


def refused_survivor(error: RequestError, requested: str, base: FhirBase) -> str | None:
    """Return the other Patient that a request for one was redirected to and that was refused; None if there is no other.

    The refusal is about the Patient at the end of the redirect; the requested one is merged.
    """
    led_to = base.patient(error.led_to) if error.led_to is not None else None
    return led_to if led_to != requested else None


def with_survivors(patients: Sequence[str], aliases: Iterable[Alias]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the patients with those that they were merged into, and which of them have no chart of their own any more.

    Chains of merges are followed to their end; a circle of them ends too. The given patients come first, in their order.
    """
    by_former = {alias.former_id: alias for alias in aliases}
    found = dict.fromkeys(patients)
    waiting = list(found)
    while waiting:
        alias = by_former.get(waiting.pop())
        if alias is not None and alias.surviving_id not in found:
            found[alias.surviving_id] = None
            waiting.append(alias.surviving_id)
    return tuple(found), frozenset(one for one in found if one in by_former and by_former[one].gone)


def _other(link: Any) -> str | None:
    target = link.get("other") if isinstance(link, dict) else None
    reference = target.get("reference") if isinstance(target, dict) else None
    match = _PATIENT.search(reference) if isinstance(reference, str) else None
    return match[1] if match else None
