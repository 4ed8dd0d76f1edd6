"""Finds the attachments of a resource on its way to the store. Pure; does not read their contents.

R4 says where attachments are: two types of documents have them. `attachments` decides which of them to fetch, and how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from connectors.fhir.linked.reference_finder import UNREADABLE, decoded
from snapshots.record import Record
from snapshots.referred import Attached

# type -> the jsonpath of an attachment, for the store; `content` and `presentedForm` repeat
PATHS: Mapping[str, str] = MappingProxyType(
    {"DocumentReference": "$.content[*].attachment", "DiagnosticReport": "$.presentedForm[*]"}
)
_ABSENT = msgspec.Raw()
_LARGEST = 10**15  # bytes: a larger claim is none


class _Attachment(msgspec.Struct):
    """Strict: what does not fit is read the slow way."""

    contentType: str | None = None  # noqa: N815 -- FHIR's spelling
    url: str | None = None
    data: msgspec.Raw = _ABSENT
    size: int | float | None = None
    hash: str | None = None


class _Content(msgspec.Struct):
    attachment: _Attachment


class _DocumentReference(msgspec.Struct):
    content: list[_Content] = []


class _DiagnosticReport(msgspec.Struct):
    presentedForm: list[_Attachment] = []  # noqa: N815


_READ_DOCUMENT = msgspec.json.Decoder(_DocumentReference).decode
_READ_REPORT = msgspec.json.Decoder(_DiagnosticReport).decode


def _of_document(body: bytes) -> Sequence[_Attachment]:
    return [one.attachment for one in _READ_DOCUMENT(body).content]


def _of_report(body: bytes) -> Sequence[_Attachment]:
    return _READ_REPORT(body).presentedForm


def _in_document(resource: Any) -> Iterator[Any]:
    for content in _listed(resource.get("content")):
        for one in _listed(content):
            if isinstance(one, dict) and "attachment" in one:
                yield one["attachment"]


def _in_report(resource: Any) -> Iterator[Any]:
    if "presentedForm" in resource:
        yield from _listed(resource["presentedForm"])


_READ: Mapping[str, tuple[Callable[[bytes], Sequence[_Attachment]], Callable[[Any], Iterator[Any]]]] = MappingProxyType(
    {"DocumentReference": (_of_document, _in_document), "DiagnosticReport": (_of_report, _in_report)}
)


def with_attached(records: Sequence[Record]) -> Sequence[Record]:
    """The records, those of documents with what they have attached."""
    if not any(record.resource_type in _READ for record in records):
        return records
    return [
        record._replace(attached=attached_to(record)) if record.resource_type in _READ else record for record in records
    ]


def attached_to(record: Record) -> tuple[Attached, ...]:
    """What a resource has attached, at the places where the store's jsonpath finds it."""
    read, walk = _READ[record.resource_type]
    try:
        found = read(record.body)
    except UNREADABLE:
        resource = decoded(record.body)
        places = enumerate(walk(resource) if isinstance(resource, dict) else ())
        return tuple(_odd(place, one) for place, one in places if isinstance(one, dict))
    return tuple(
        Attached(place, one.contentType, one.url, one.data is not _ABSENT, _size(one.size), one.hash)
        for place, one in enumerate(found)
    )


def _odd(place: int, one: Mapping[str, Any]) -> Attached:
    """An attachment some of whose elements are of other types than R4 says."""
    text = {name: _text(one.get(name)) for name in ("contentType", "url", "hash")}
    return Attached(place, text["contentType"], text["url"], "data" in one, _size(one.get("size")), text["hash"])


def _text(value: Any) -> str | None:
    """The value as the store's `->>` returns it: integers of any size, and no half of a character."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace").decode()


def _size(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return round(min(max(value, -_LARGEST), _LARGEST))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else (value,)
