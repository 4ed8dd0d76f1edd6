"""Reads FHIR R4 JSON: resources into records, searchset Bundles into pages, OperationOutcomes into graded issues.

Pure. Bodies stay the bytes that the EHR sent: only key fields are decoded, so `1.0` stays `1.0`. Grading of vendor codes comes
from the profile; what a grade does to a unit is decided by `crawl.search` and `bulk.download`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from connectors.fhir_base import FhirBase
from connectors.issue_types import shown
from connectors.membership import ABSENT, Naming, Shape, patients_of, shapes
from connectors.profile import IssueGrade
from snapshots.record import Deletion, Quarantined, Record

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}\Z")
_DELETE_URL = re.compile(r"/?([A-Z][A-Za-z]{1,63})/([^/?#]+)\Z")
_LISTINGS = (None, "searchset", "collection")  # a Bundle's type; some servers leave it out, or say no more than this
_BOM = b"\xef\xbb\xbf"
# FHIR says 64 letters, digits, "-" and "."; Epic may exceed it (vendors.md 1.9): bounds against nonsense, no rule. A slash, a
# blank or a control character would lead a URL elsewhere
_ID = re.compile(r"[^\s/\x00-\x1f\x7f-\x9f]{1,1024}")


class _Meta(msgspec.Struct):
    tag: msgspec.Raw = ABSENT  # read only where there is one
    versionId: Any = None  # noqa: N815 -- FHIR's spelling
    lastUpdated: Any = None  # noqa: N815


class _Keys(Naming):
    """The few fields that every resource is read for. `Any` where real data disagrees with the specification."""

    resourceType: Any = None  # noqa: N815
    id: Any = None
    meta: _Meta | None = None


class _Search(msgspec.Struct):
    mode: Any = None


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw()  # a Union with None would not give the raw bytes
    search: _Search | None = None


class _Link(msgspec.Struct):
    relation: Any = None
    url: Any = None


class _Bundle(msgspec.Struct):
    resourceType: str  # noqa: N815
    type: Any = None
    total: Any = None
    link: list[_Link] | None = None
    entry: list[_Entry | None] | None = None


class _Coding(msgspec.Struct):
    code: Any = None


class _Details(msgspec.Struct):
    coding: list[_Coding] | None = None


class _Issue(msgspec.Struct):
    severity: str = "error"
    code: str = "processing"
    details: _Details | None = None


class _Outcome(msgspec.Struct):
    issue: list[_Issue] | None = None


class _Request(msgspec.Struct):
    method: str = ""
    url: str = ""


class _DeletedEntry(msgspec.Struct):
    request: _Request | None = None


class _DeletedBundle(msgspec.Struct):
    entry: list[_DeletedEntry] | None = None


_KEYS = msgspec.json.Decoder(_Keys)
_SHAPES = shapes(_Keys, _KEYS)
_BEGINNING: Mapping[bytes, Shape[_Keys]] = {resource_type.encode(): shape for resource_type, shape in _SHAPES.items()}
_UNKNOWN: Shape[_Keys] = ("", _KEYS, ())
_BUNDLE = msgspec.json.Decoder(_Bundle)
_OUTCOME = msgspec.json.Decoder(_Outcome)
_DELETED = msgspec.json.Decoder(_DeletedBundle)


@lru_cache(maxsize=1024)
def _is_type(name: str) -> bool:
    return _TYPE.match(name) is not None


class Issue(NamedTuple):
    """One issue of an OperationOutcome, without its texts: they may carry PHI."""

    severity: str
    code: str
    vendor_codes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of a search."""

    records: Sequence[Record]
    quarantined: Sequence[Quarantined]
    issues: Sequence[Issue]
    next_url: str | None  # "": there is a next page, and the server does not say where
    total: int | None = None  # as the server says, of whatever it means by it


class UnreadableResourceError(ValueError):
    """Bytes that are not one FHIR resource. The message says why and quotes nothing."""


class NotABundleError(ValueError):
    """An answer to a search that is not a Bundle."""


def record_from(body: bytes, base: FhirBase, unit_key: str | None = None) -> Record:
    """Read one resource's keys; `base` tells which references are to its own patients, `unit_key` names the unit that brought it.

    Raises:
        UnreadableResourceError: not JSON, not an object, no usable resourceType or id.
    """
    begins = body[:64].split(b'"', 4)  # most writers begin with the type: then one reading is enough
    expected, decoder, places = _BEGINNING.get(begins[3], _UNKNOWN) if len(begins) > 4 else _UNKNOWN  # noqa: PLR2004
    version_id = last_updated = None
    subsetted = False
    try:
        keys = decoder.decode(body)
        resource_type, resource_id, meta = keys.resourceType, keys.id, keys.meta
        if resource_type != expected:
            if type(resource_type) is not str or not _is_type(resource_type):
                raise UnreadableResourceError("no usable resourceType")
            _, decoder, places = _SHAPES.get(resource_type, _UNKNOWN)
            keys = decoder.decode(body) if places else keys
        patient_id, others = patients_of(keys, places, base)
        if meta is not None:
            version_id = meta.versionId if type(meta.versionId) is str else None
            last_updated = meta.lastUpdated if type(meta.lastUpdated) is str else None
            subsetted = meta.tag is not ABSENT and _is_subsetted(bytes(meta.tag))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = (
            "not valid JSON" if not isinstance(error, msgspec.ValidationError) else "not a JSON object of a resource"
        )
        raise UnreadableResourceError(reason) from None
    if type(resource_id) is not str or not _ID.fullmatch(resource_id):
        raise UnreadableResourceError("no usable id")
    if resource_type == "Patient":
        linked = () if patient_id is None else (patient_id, *others)
        patient_id, others = resource_id, tuple(one for one in linked if one != resource_id)
    digest = blake2b(body, digest_size=16).digest()
    return Record(
        resource_type, resource_id, patient_id, version_id, last_updated, digest, body, unit_key, subsetted, "", others
    )


def _is_subsetted(tags: bytes) -> bool:
    """Whether a meta.tag says that elements were left out (FHIR R4, "Search", _elements)."""
    return b"SUBSETTED" in tags and any(
        isinstance(tag, dict) and tag.get("code") == "SUBSETTED" for tag in _listed(msgspec.json.decode(tags))
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def issues_from(body: bytes) -> tuple[Issue, ...]:
    """Read an OperationOutcome's issues; anything else gives none."""
    try:
        outcome = _OUTCOME.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    return tuple(
        Issue(
            issue.severity,
            issue.code,
            tuple(str(c.code) for c in (issue.details and issue.details.coding) or () if c.code),
        )
        for issue in outcome.issue or ()
    )


def page_from(body: bytes, base: FhirBase, *, where: str, unit_key: str | None = None) -> Page:
    """Read one searchset Bundle of this base.

    `where` names the page in quarantine records, without PHI; `unit_key` the unit that asked.

    Entries that are OperationOutcomes become issues, never records (vendors.md section 7). An entry that cannot be read, or that
    holds no resource, is quarantined alone.

    Raises:
        NotABundleError: the answer as a whole is no Bundle; the message says what it is.
    """
    try:
        bundle = _BUNDLE.decode(body.removeprefix(_BOM))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotABundleError("the answer is not a Bundle in JSON") from None
    if bundle.resourceType != "Bundle":
        what = bundle.resourceType if _TYPE.match(bundle.resourceType) else "something else"
        raise NotABundleError(f"the answer is not a Bundle but {what}")
    if bundle.type not in _LISTINGS:
        raise NotABundleError("the answer is not a searchset but a Bundle of another type")
    records: list[Record] = []
    quarantined: list[Quarantined] = []
    issues: list[Issue] = []
    for number, entry in enumerate(bundle.entry or (), start=1):
        raw = bytes(entry.resource) if entry is not None else b""
        if not raw or raw == b"null":
            quarantined.append(
                Quarantined(None, f"{where}, entry {number}", "an entry without a resource", raw, unit_key)
            )
            continue
        mode = entry.search.mode if entry is not None and entry.search is not None else None
        if mode == "outcome" and b'"OperationOutcome"' in raw:
            issues.extend(issues_from(raw))
            continue
        try:
            record = record_from(raw, base, unit_key)
        except UnreadableResourceError as error:
            found = issues_from(raw) if b'"OperationOutcome"' in raw else ()
            if found:  # an outcome without an id, and without search.mode (F13)
                issues.extend(found)
            else:
                quarantined.append(Quarantined(None, f"{where}, entry {number}", str(error), raw, unit_key))
            continue
        if record.resource_type == "OperationOutcome":
            issues.extend(issues_from(raw))
        else:
            records.append(record)
    urls = [link.url if isinstance(link.url, str) else "" for link in bundle.link or () if link.relation == "next"]
    next_url = max(urls, key=bool) if urls else None
    total = bundle.total if type(bundle.total) is int else None
    return Page(records=records, quarantined=quarantined, issues=issues, next_url=next_url, total=total)


def deletions_from(body: bytes, base_url: str = "") -> tuple[tuple[Deletion, ...], int]:
    """Read one line of a bulk manifest's `deleted` file: a transaction Bundle of DELETE requests (Bulk Data IG, manifest).

    Also tells how many entries are something else: another method, a version, a query, a URL of another base than `base_url`.

    Raises:
        UnreadableResourceError: no Bundle, or one without a deletion.
    """
    try:
        bundle = _DELETED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableResourceError("not a Bundle of deletions") from None
    found, unread = [], 0
    base = base_url.rstrip("/") + "/"
    for entry in bundle.entry or ():
        request = entry.request or _Request()
        url = request.url.removeprefix(base) if base_url else request.url
        target = _DELETE_URL.match(url) if request.method.upper() == "DELETE" else None
        if target:
            found.append(Deletion(target[1], target[2]))
        else:
            unread += 1
    if not found:
        raise UnreadableResourceError("a Bundle without a DELETE request of a resource below the FHIR base")
    return tuple(found), unread


_GRAVITY: Mapping[IssueGrade, int] = {
    "note": 0, "ignored": 1, "missing": 2, "incomplete": 3, "gone": 4, "merged": 5, "pause": 6, "restricted": 7, "restart": 8,
    "fatal": 9,
}  # fmt: skip


def grade(issues: Iterable[Issue], meanings: Mapping[str, IssueGrade]) -> IssueGrade:
    """The gravest thing that the issues say, by the profile's meaning of vendor codes; unknown codes by their severity.

    An `error` or `fatal` that nobody knows is taken at its word: the page did not come whole, and must not pass for an empty one.
    """
    worst: IssueGrade = "note"
    for issue in issues:
        known = [meanings[code] for code in (*issue.vendor_codes, issue.code) if code in meanings]
        unknown: IssueGrade = "fatal" if issue.severity in {"error", "fatal"} else "note"
        own = max(known, key=lambda g: _GRAVITY[g], default=unknown)
        if _GRAVITY[own] > _GRAVITY[worst]:
            worst = own
    return worst


def codes_of(issues: Iterable[Issue]) -> tuple[str, ...]:
    """The distinct codes of issues, for messages."""
    return shown(code for issue in issues for code in (*issue.vendor_codes, issue.code))
