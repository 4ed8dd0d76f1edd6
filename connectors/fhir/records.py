"""Reads FHIR R4 JSON: resources into records, searchset Bundles into pages; grades what OperationOutcomes say.

Pure. Bodies stay the bytes that the EHR sent: only key fields are decoded, so `1.0` stays `1.0`. `bundles` reads which entries
a Bundle has, `outcomes` outcomes, `page_links` links. The profile grades vendor codes; `search.search` and `bulk.download`
decide what a grade does to a unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from config.resource_types import RESOURCE_TYPES
from connectors.fhir.bundles import BUNDLE_NAMES, Listed, NotABundleError, bundle_from, outcomes_beside
from connectors.fhir.issue_types import shown
from connectors.fhir.json_answers import (
    TWICE,
    UnreadableJsonError,
    bare,
    count_from,
    members_of,
    object_from,
    objects_beside,
    unmarked,
)
from connectors.fhir.outcomes import Issue, Outcome, UnreadableOutcomeError, outcome_from
from connectors.fhir.page_links import links_from
from connectors.fhir.patients.membership import ABSENT, Naming, Shape, patients_of, shapes
from connectors.fhir.profile import IssueGrade
from connectors.fhir.transport.fhir_base import FhirBase
from snapshots.record import Quarantined, Record
from snapshots.witness import Deletion, Way

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}\Z")
_FOLDED_TYPES = frozenset(map(str.casefold, RESOURCE_TYPES))
_DELETE_URL = re.compile(r"/?([A-Z][A-Za-z]{1,63})/([^/?#]+)\Z")
_CONTAINERS = frozenset({"Bundle", "Parameters"})
_ANSWERS = frozenset({"searchset", "history", "batch-response", "transaction-response"})  # R4, Bundle.type
_BESIDE = ("include", "outcome")
_LISTINGS = (None, "searchset", "collection")  # a Bundle's type; some servers leave it out, or say no more than this
# FHIR says 64 letters, digits, "-" and "."; Epic may exceed it (vendor-facts 1.9): bounds against nonsense, no rule. A slash, a
# blank or a control character would lead a URL elsewhere. U+10FFFF is no character: the store has it behind all ids
_ID = re.compile(r"[^\s/\x00-\x1f\x7f-\x9f\U0010ffff]{1,1024}")


class _Meta(msgspec.Struct):
    tag: msgspec.Raw = ABSENT  # read only where there is one
    versionId: Any = None  # noqa: N815 -- FHIR's spelling
    lastUpdated: Any = None  # noqa: N815


class _Keys(Naming):
    """The few fields that every resource is read for. `Any` where real data disagrees with the specification."""

    resourceType: Any = None  # noqa: N815
    id: Any = None
    meta: _Meta | list[Any] | str | None = None  # PHP writes [] for an empty object


_KEYS = msgspec.json.Decoder(_Keys)
_SHAPES = shapes(_Keys, _KEYS)
_BEGINNING: Mapping[bytes, Shape[_Keys]] = {resource_type.encode(): shape for resource_type, shape in _SHAPES.items()}
_UNKNOWN: Shape[_Keys] = ("", _KEYS, ())
_ASTRAY = "resources under a name that a Bundle does not have"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@lru_cache(maxsize=1024)
def _is_type(name: str) -> bool:
    """Whether it may name a type, if only one that R4 does not have; a type of R4 in other capitals does not: PATIENT."""
    return name in RESOURCE_TYPES or (_TYPE.match(name) is not None and name.casefold() not in _FOLDED_TYPES)


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of a search."""

    records: Sequence[Record]
    quarantined: Sequence[Quarantined]
    issues: Sequence[Issue]
    next_url: str | None  # "": there is a next page, and the server does not say where
    total: int | None = None  # as the server says, of whatever it means by it
    searches: Sequence[msgspec.Raw] = ()  # each record's `entry.search`
    doubtful: bool = False  # it holds links or issues that nobody understands: it proves nothing complete

    def unasked(self, resource_type: str) -> int:
        """Count the records of other types that are not marked as beside the matches: one may stand in place of a match.

        Source: FHIR R4, Bundle.entry.search.mode.
        """
        found = zip(self.records, self.searches, strict=True)
        return sum(record.resource_type != resource_type and not _is_beside(bytes(search)) for record, search in found)


def _is_beside(search: bytes) -> bool:
    """Whether an `entry.search` says that its entry is no match but comes with one."""
    return object_from(search).get("mode") in _BESIDE


class UnreadableResourceError(ValueError):
    """Bytes that are not one FHIR resource. The message says why and quotes nothing."""


class SubsettedError(UnreadableResourceError):
    """Only some of a resource's elements came although all were requested: it must not pass for the whole resource."""


def record_from(
    body: bytes, base: FhirBase, unit_key: str | None = None, way: Way | None = None, *, in_part: bool = False
) -> Record:
    """Read one resource's keys. A byte order mark is no part of the body.

    `base` decides which references are to its own patients, `unit_key` names the unit that brought it, `way` what listed it.
    `in_part`: only some elements were requested; then the record counts as SUBSETTED, tagged or not.

    Raises:
        SubsettedError: its meta.tag says that elements were left out, although all were requested.
        UnreadableResourceError: not JSON, not an object, no usable resourceType or id.
    """
    # most writers begin with type and id: then one reading is enough
    begins = body[:160].split(b'"', 8)
    expected, decoder, places = _BEGINNING.get(begins[3], _UNKNOWN) if len(begins) > 4 else _UNKNOWN  # noqa: PLR2004
    version_id = last_updated = None
    subsetted = False
    try:
        keys = decoder.decode(body)
        resource_type, resource_id, meta = keys.resourceType, keys.id, keys.meta
        if not expected or resource_type != expected:
            if type(resource_type) is not str or not _is_type(resource_type):
                raise UnreadableResourceError("no usable resourceType")
            _, decoder, places = _SHAPES.get(resource_type, _UNKNOWN)
            keys = decoder.decode(body) if places else keys
        patient_id, others = patients_of(keys, places, base)
        if type(meta) is _Meta:
            version_id = meta.versionId if type(meta.versionId) is str else None
            last_updated = meta.lastUpdated if type(meta.lastUpdated) is str else None
            subsetted = meta.tag is not ABSENT and _is_subsetted(bytes(meta.tag))
        elif meta:
            raise UnreadableResourceError("its meta is not an object")  # which could say that elements were left out
    except _UNREADABLE as error:
        if body != unmarked(body):
            return record_from(unmarked(body), base, unit_key, way, in_part=in_part)
        reason = (
            "not valid JSON" if not isinstance(error, msgspec.ValidationError) else "not a JSON object with a resource"
        )
        raise UnreadableResourceError(reason) from None
    if type(resource_id) is not str or not _ID.fullmatch(resource_id):
        # Bundles that are answers have no id, and what is missing is what they hold
        is_bundle = resource_type == "Bundle"
        raise UnreadableResourceError("a Bundle instead of a single resource" if is_bundle else "no usable id")
    if resource_type in _CONTAINERS and _is_answer(body):
        raise UnreadableResourceError("an answer that contains resources, in place of a resource")
    if subsetted and not in_part:
        raise SubsettedError("it is SUBSETTED, although the whole resource was requested")
    first = b"resourceType", resource_type.encode(), b"id", resource_id.encode("utf-8", "surrogatepass")
    if tuple(begins[1:8:2]) != first:
        _only_once(body)
    if resource_type == "Patient":
        linked = () if patient_id is None else (patient_id, *others)
        patient_id, others = resource_id, tuple(one for one in linked if one != resource_id)
    digest = blake2b(body, digest_size=16).digest()
    return Record(
        resource_type, resource_id, patient_id, version_id, last_updated, digest, body, unit_key, in_part, way, others
    )


def _is_answer(body: bytes) -> bool:
    """Whether a server answers with it and does not keep it: Parameters, or a Bundle of search results or the like."""
    found = object_from(body)
    return found.get("resourceType") == "Parameters" or found.get("type") in _ANSWERS


def _only_once(body: bytes) -> None:
    """Refuse a resource that has its type or id twice: a parser returns the last value, and nobody knows which one counts.

    Raises:
        UnreadableResourceError: it has.
    """
    if body.count(b'"id"') < 2 and body.count(b'"resourceType"') < 2:  # noqa: PLR2004 - twice
        return
    try:
        members_of(body)
    except UnreadableJsonError:
        named = object_from(body)
        if TWICE in (named.get("resourceType", TWICE), named.get("id", TWICE)):
            raise UnreadableResourceError("its resourceType or its id appears twice") from None


def _is_subsetted(tags: bytes) -> bool:
    """Whether a meta.tag says that elements were left out (FHIR R4, "Search", _elements)."""
    return b"SUBSETTED" in tags and any(
        isinstance(tag, dict) and tag.get("code") == "SUBSETTED" for tag in _listed(msgspec.json.decode(tags))
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _searchset(body: bytes) -> Listed:
    """Read which entries a searchset has.

    Raises:
        NotABundleError: it is no Bundle, or one that lists nothing.
    """
    listed = bundle_from(bare(body))
    bundle = listed.bundle
    if bundle.resourceType != "Bundle":
        named = isinstance(bundle.resourceType, str) and _TYPE.match(bundle.resourceType)
        raise NotABundleError(f"the answer is not a Bundle but {bundle.resourceType if named else 'something else'}")
    if bundle.type not in _LISTINGS:
        raise NotABundleError("the answer is not a searchset but a Bundle of another type")
    return listed


def page_from(
    body: bytes,
    base: FhirBase,
    *,
    where: str,
    unit_key: str | None = None,
    way: Way | None = None,
    in_part: bool = False,
) -> Page:
    """Read one searchset Bundle of this base.

    `where` names the page in quarantine records, without PHI; `unit_key` the unit that asked, `way` what lists; `in_part`
    as for `record_from`.

    OperationOutcomes, as entries or beside them, become issues, never records (vendor-facts 7). An entry that cannot be read, or
    that holds no resource, is quarantined alone.

    Raises:
        NotABundleError: the answer as a whole is no Bundle; the message says what it is.
    """
    listed = _searchset(body)
    bundle = listed.bundle
    links = links_from(bytes(bundle.link), bytes(bundle.links))
    records: list[Record] = []
    searches: list[msgspec.Raw] = []
    outcomes, unread = _outcomes_beside(listed, body)
    quarantined = [Quarantined(None, where, _ASTRAY, raw, unit_key) for raw in listed.astray]
    quarantined += [Quarantined(None, f"{where}, {place}", reason, raw, unit_key) for place, reason, raw in unread]
    for number, entry in enumerate(listed.entries, start=1):
        raw, at = bytes(entry.resource), f"{where}, entry {number}"
        if not raw or raw == b"null":
            quarantined.append(Quarantined(None, at, "an entry without a resource", raw, unit_key))
            continue
        record, reason = None, ""
        try:
            record = record_from(raw, base, unit_key, way, in_part=in_part)
        except UnreadableResourceError as error:
            reason = str(error)
        if record is not None and record.resource_type != "OperationOutcome":
            records.append(record)
            searches.append(entry.search)
            continue
        try:  # an outcome may come without an id, and without search.mode (F13)
            outcome = outcome_from(raw) if b'"OperationOutcome"' in raw else None
        except UnreadableOutcomeError as error:
            outcome, reason = None, reason or str(error)
        if outcome is None:
            quarantined.append(Quarantined(None, at, reason, raw, unit_key))
            continue
        outcomes.append(outcome)
    return Page(
        records=records,
        searches=searches,
        quarantined=quarantined,
        issues=[issue for outcome in outcomes for issue in outcome.issues],
        next_url="" if listed.more and links.next_url is None else links.next_url,
        total=count_from(bundle.total),
        doubtful=links.doubtful or listed.doubtful or any(outcome.unread for outcome in outcomes),
    )


def _outcomes_beside(listed: Listed, body: bytes) -> tuple[list[Outcome], list[tuple[str, str, bytes]]]:
    """What outcomes beside a page's resources say, and those that cannot be read: where, why and their text."""
    found: list[Outcome] = []
    unread: list[tuple[str, str, bytes]] = []
    for place, raw in outcomes_beside(listed, body):
        try:
            found.append(outcome_from(raw))
        except UnreadableOutcomeError as error:
            unread.append((place, str(error), raw))
    return found, unread


def deletions_from(body: bytes, base: FhirBase | None = None) -> tuple[tuple[Deletion, ...], int]:
    """Read one line of a bulk manifest's `deleted` file: a transaction Bundle of DELETE requests (Bulk Data IG, manifest).

    Also return how many entries are something else: another method, a version, a query, a URL of another base than `base`. A
    Bundle without entries means that nothing was deleted.

    Raises:
        UnreadableResourceError: no Bundle, or one whose entries are no deletion.
    """
    bundle = object_from(body)
    entries = bundle.get("entry")
    if objects_beside(bundle, BUNDLE_NAMES):
        raise UnreadableResourceError("a Bundle with content under a name that a Bundle does not have")
    if bundle.get("resourceType") == "Bundle" and (entries is None or entries == []):
        return (), 0
    if isinstance(entries, dict):
        entries = [entries]
    if not isinstance(entries, list):
        raise UnreadableResourceError("not a Bundle of deletions")
    found, unread = [], 0
    for entry in entries:
        request = entry.get("request") if isinstance(entry, dict) else None
        method, url = (request.get("method"), request.get("url")) if isinstance(request, dict) else (None, None)
        target = None
        if isinstance(method, str) and isinstance(url, str) and method.upper() == "DELETE":
            below = base.below(url) if base is not None and "://" in url and "#" not in url else url
            target = _DELETE_URL.match(below or "")
        if target:
            found.append(Deletion(target[1], target[2]))
        else:
            unread += 1
    if not found:
        raise UnreadableResourceError("a Bundle without a DELETE request for a resource below the FHIR base")
    return tuple(found), unread


_GRAVITY: Mapping[IssueGrade, int] = {
    "note": 0, "ignored": 1, "missing": 2, "incomplete": 3, "gone": 4, "merged": 5, "pause": 6, "restricted": 7, "restart": 8,
    "fatal": 9,
}  # fmt: skip


# "not all data sources could be reached or responded in time, so the information might not be complete" (R4, issue-type)
_IN_FHIR: Mapping[str, IssueGrade] = {"incomplete": "incomplete"}


def grade(issues: Iterable[Issue], meanings: Mapping[str, IssueGrade]) -> IssueGrade:
    """The gravest thing that the issues say, by the profile's meaning of codes; else by the severity, and FHIR's own.

    An `error` or `fatal` that nobody knows is taken at its word: the page did not come whole, and must not pass for an empty one.
    """
    worst: IssueGrade = "note"
    for issue in issues:
        known = [meanings[code] for code in (*issue.vendor_codes, issue.code) if code in meanings]
        unknown: IssueGrade = "fatal" if issue.severity in {"error", "fatal"} else _IN_FHIR.get(issue.code, "note")
        own = max(known, key=lambda g: _GRAVITY[g], default=unknown)
        if _GRAVITY[own] > _GRAVITY[worst]:
            worst = own
    return worst


def codes_of(issues: Iterable[Issue]) -> tuple[str, ...]:
    """The distinct codes of issues, for messages."""
    return shown(code for issue in issues for code in (*issue.vendor_codes, issue.code) if code)
