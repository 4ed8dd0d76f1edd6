"""Reads a bulk manifest (Bulk Data IG, "Export result") into file units. Pure.

Tolerates what servers really send: `requiresAccessToken` as string (Epic), no `count` (Cerner), no `error`, no `type`, no
`output` where nothing matched. An item that cannot be understood costs only itself, and leaves a doubt. Only the needed parts
become objects, and their number is bounded. `page_files` finds each file again when the page is requested again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from config.resource_types import RESOURCE_TYPES
from connectors.fhir.bulk.kick_off import Proofs
from connectors.fhir.bulk.other_answers import resource_type_of, what_came
from connectors.fhir.errors import ProtocolError
from connectors.fhir.json_answers import (
    RepeatedNameError,
    UnreadableJsonError,
    bare,
    count_from,
    json_from,
    members_of,
    objects_beside,
)
from connectors.fhir.outcomes import Outcome, is_outcome, outcome_beside
from connectors.fhir.page_links import links_from, next_beside
from connectors.fhir.transport.retry_table import issue_codes
from connectors.fhir.unit_details import DoubtDetail, FileDetail
from snapshots.unit import Unit, UnitKind, unit_key

_MOST_BYTES = 64 * 1024 * 1024  # some 300,000 files: exports of 20,000 have been seen (F30)
_MOST_OBJECTS = 2_000_000
_SYNC_AGAIN = (
    "sync again to start a new export; if it fails in the same way, ask the EHR's operator what its status URL answers, or "
    "use --mode crawl"
)
_UNKNOWN = frozenset({-1, "-1"})  # how programs write a number that they do not know: it promises nothing
_LONGEST_WORD = 10_000  # of what is read as one word or number
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")  # anything else is the server's free text, and never shown
_OF_ERRORS = frozenset({"error", "outcome"})
# files by the manifest's list; deletions are applied after all data they follow (IG: "deleted"), which the download sees to
LISTS = (
    ("output", UnitKind.FILE),
    ("deleted", UnitKind.DELETED_FILE),
    ("error", UnitKind.ERROR_FILE),
    ("outcome", UnitKind.ERROR_FILE),
)


class _Entry(msgspec.Struct):
    url: msgspec.Raw = msgspec.Raw()
    type: msgspec.Raw = msgspec.Raw()
    count: msgspec.Raw = msgspec.Raw()


# what a manifest may have (Bulk Data IG STU 1 to 3), and what servers add to it
_NAMES = frozenset(
    ["output", "deleted", "error", "outcome", "link", "links", "transactionTime", "requiresAccessToken", "request",
     "requestBody", "outputFormat", "outputOrganizedBy", "resourceType", "extension"]
)  # fmt: skip
# no lists of the guide's; an outcome may stand there, as in a Bundle's `issues`
_OF_ISSUES = frozenset({"issue", "issues", "errors"})
_ENTRIES = msgspec.json.Decoder(list[_Entry])
_ENTRY = msgspec.json.Decoder(_Entry)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_IN_ANY_CASE = {name.lower(): name for name in RESOURCE_TYPES}
_NOTHING = frozenset({b"", b"null", b"{}"})
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ListedFile(NamedTuple):
    """One file as a manifest page lists it, by list and position."""

    list: str
    position: int
    resource_type: str  # "*": not stated
    lines: int | None  # as it is counted there
    url: str  # "": not stated, so that the file cannot be fetched


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One page of a manifest. Units are made as they are taken: a page may name 20,000 files."""

    transaction_time: str | None
    next_url: str | None  # "": there is, or may be, a next page, and nobody can say where
    page: int
    entries: Mapping[str, list[_Entry]] = field(repr=False)  # files, in order
    doubtful: bool  # some of it nobody understands
    outcome: Outcome  # what it states itself of failures
    hides_files: bool  # it lists files under a name that the guide does not have
    requires_token: bool | None
    proofs: Proofs

    def files(self) -> Iterator[ListedFile]:
        """Give every file, in the order of the lists."""
        for name, _ in LISTS:
            for position, entry in enumerate(self.entries.get(name, ()), start=1):
                word = _word(entry.type)
                type_ = word.strip() if isinstance(word, str) else ""
                type_ = _IN_ANY_CASE.get(type_.lower(), type_)
                usable = _TYPE.fullmatch(type_) is not None and not self.proofs.organized
                # of errors it counts the resources that failed (smart-bulk-data-server), and not the lines
                count = None if name in _OF_ERRORS else count_from(_word(entry.count))
                yield ListedFile(name, position, type_ if usable else "*", count, _url(entry))

    def units(
        self, *, besides: Collection[tuple[str, int]] = (), after: Mapping[str, int] | None = None
    ) -> Iterator[Unit]:
        """Give a unit a file, keyed by page, list and position.

        Of a page that has grown, `besides` names the files that are units already, by list and position, and `after` the last
        position that each list has given a unit.
        """
        last = dict(after or {})
        kinds = dict(LISTS)
        for file in self.files():
            if (file.list, file.position) in besides:
                continue
            number = last[file.list] = last.get(file.list, 0) + 1
            yield self._unit(file, kinds[file.list], number)

    def doubts(self) -> Iterator[Unit]:
        """Return a unit that leaves open what this page leaves open; the store treats it as an export with errors."""
        more, unread = self.next_url == "", self.outcome.unread > 0
        if more:
            doubt = (
                "has a next page, or may have one, but does not say where, or leads back to an earlier page (a loop)"
            )
        elif self.hides_files:
            doubt = "lists files under a name that a manifest does not have: they are not fetched"
        elif unread:
            doubt = "has something in place of issues that could not be read: it may say what was not exported"
        elif self.doubtful:
            doubt = "lists something that could not be understood: rows that the export does not list are kept"
        else:
            doubt = ""
        if doubt or self.outcome.issues:
            yield Unit(
                key=unit_key("manifest", self.page),
                kind=UnitKind.ERROR_FILE,
                resource_type="*",
                template=f"manifest page {self.page}",
                detail=DoubtDetail(
                    doubt=doubt and f"the manifest's page {self.page} {doubt}",
                    more=more or self.hides_files or unread,
                    issues=tuple(dict.fromkeys(self.outcome.issues)),
                ).packed,
            )

    def _unit(self, file: ListedFile, kind: UnitKind, number: int) -> Unit:
        way, of_none = self.proofs.ways(file.resource_type) if kind is UnitKind.FILE else (None, None)
        return Unit(
            key=unit_key(kind, file.list, self.page, number),
            kind=kind,
            resource_type=file.resource_type,
            way=way,
            way_of_none=of_none,
            template=f"{file.list} file {number}" + (f" of manifest page {self.page}" if self.page > 1 else ""),
            incremental=self.proofs.incremental,
            page=self.page,
            detail=FileDetail(
                url=file.url,
                list=file.list,
                position=number,
                requires_token=self.requires_token,
                lists_all=self.proofs.lists_all(file.resource_type),
                elements=self.proofs.elements,
                organized=self.proofs.organized,
                count=file.lines,
            ).packed,
        )


def looks_like_manifest(body: bytes) -> bool:
    """Whether a body that came with 202 is a manifest of what is ready so far, and not a note on the progress."""
    try:
        return members_of(bare(body)).get("output", b"").startswith(b"[")
    except RepeatedNameError:
        return True  # it is none that can be read, which `manifest_from` says
    except UnreadableJsonError:
        return False


def is_whole_manifest(body: bytes) -> bool:
    """Whether a body that came in place of a job is a manifest of one page, if only of nothing, and no FHIR resource.

    One with further pages is none: a run that was killed between them could only export again, and would take files of one
    export for those of the other.
    """
    if resource_type_of(body) is not None:  # a Task has an `output` too
        return False
    try:
        document = members_of(bare(body))
    except UnreadableJsonError:
        return False
    links = links_from(document.get("link", b""), document.get("links", b""))
    if links.next_url is not None or links.doubtful or next_beside(document) is not None:
        return False
    return _begins_list(document.get("output", b"")) or _is_of_nothing(document)


def manifest_from(body: bytes, *, page: int, proofs: Proofs) -> Manifest:
    """Read page number `page` of a manifest.

    Raises:
        ProtocolError: it is not a JSON object, has something else in place of a list, or is larger than any export of
        files can be; it has no `output`, nor anything else that a manifest has.
    """
    document = _document(body)
    strangers = {name: _value(raw) for name, raw in document.items() if name not in _NAMES}
    beside = objects_beside(strangers, ())
    hides_files = any("url" in map(str.casefold, one) for one in beside)
    if not _begins_list(document.get("output", b"")) and (hides_files or not _is_of_nothing(document)):
        raise _no_manifest(body)
    time = _word(document.get("transactionTime", b""))
    links = links_from(document.get("link", b""), document.get("links", b""))
    bare_next = next_beside(document)
    outcomes = [one for one in objects_beside(strangers, _OF_ISSUES) if is_outcome(one)]
    issues = [value for name, value in strangers.items() if name in _OF_ISSUES]
    listed = {name: _listed(document.get(name, b""), name) for name, _ in LISTS}
    counted = (entry for name, (entries, _) in listed.items() if name not in _OF_ERRORS for entry in entries)
    doubts = (
        links.doubtful,
        bool(bare_next) and links.next_url not in {None, bare_next},  # a flag beside the link says the same
        any(not is_outcome(one) for one in objects_beside(strangers, _OF_ISSUES)),
        any(nulls for _, nulls in listed.values()),
        any(map(_has_unreadable_count, counted)),
    )
    return Manifest(
        transaction_time=time if isinstance(time, str) else None,
        next_url=bare_next if links.next_url is None else links.next_url,
        page=page,
        entries={name: entries for name, (entries, _) in listed.items()},
        doubtful=any(doubts),
        outcome=outcome_beside(
            [*outcomes, *(one for value in issues for one in (value if isinstance(value, list) else [value]))]
        ),
        hides_files=hides_files,
        requires_token=_truth(_word(document.get("requiresAccessToken", b""))),
        proofs=proofs,
    )


def _document(body: bytes) -> Mapping[str, bytes]:
    if len(body) > _MOST_BYTES or body.count(b"{") > _MOST_OBJECTS:
        raise ProtocolError(
            f"The export's manifest is too large ({len(body):,} bytes; up to {_MOST_BYTES:,} and {_MOST_OBJECTS:,} "
            "entries per page are read): ask the EHR to write larger files, or several manifest pages."
        )
    try:
        return members_of(bare(body))
    except RepeatedNameError:
        raise ProtocolError(
            f"The export's manifest has one name twice, so its files are unknown; {_SYNC_AGAIN}."
        ) from None
    except UnreadableJsonError:
        raise (
            _no_manifest(body)
            if _is_json(body)
            else ProtocolError(f"The export's manifest is not JSON; {_SYNC_AGAIN}.")
        ) from None


def _no_manifest(body: bytes) -> ProtocolError:
    """Describe JSON that is not a manifest: what it is, and for an outcome its codes, never its words."""
    return ProtocolError(
        f"The export's manifest has no `output` list: the status URL answered 200 with {what_came(body)}; {_SYNC_AGAIN}.",
        codes=issue_codes(body),
    )


def _is_json(body: bytes) -> bool:
    try:
        json_from(body)
    except UnreadableJsonError:
        return False
    return True


def _value(raw: bytes) -> Any:
    """A value under a name that no manifest has; one that cannot be read may be anything, even a list of files."""
    try:
        return json_from(raw)
    except UnreadableJsonError:
        return {"url": None}


def _is_of_nothing(document: Mapping[str, bytes]) -> bool:
    """Whether a document without `output` is a manifest all the same: of an export that matched nothing."""
    facts = (document.get(name, b"") for name in ("transactionTime", "requiresAccessToken", "request"))
    is_resource = _is_given(document.get("resourceType", b""))  # a manifest is none
    return document.get("output", b"") in _NOTHING and not is_resource and any(map(_is_given, facts))


def _begins_list(raw: bytes) -> bool:
    """Whether it is a list, or one item in a list's place; PHP writes `{}` for an empty list."""
    return raw[:1] in {b"[", b"{"} and raw not in _NOTHING


def _is_given(raw: bytes) -> bool:
    return raw not in {b"", b"null"}


def _listed(text: bytes, name: str) -> tuple[list[_Entry], int]:
    """A list's files, and how many of its items are not files. The list may be missing or null (no files), or a single file.

    An entry without URL that counts nothing is no file. Any other must not be passed over.
    """
    if not _begins_list(text):
        if text.startswith(b"{") or not _word(text):
            return [], 0
        raise ProtocolError(f"In the export's manifest, `{name}` is not a list; {_SYNC_AGAIN}.")
    entries, strangers = _entries(text if text.startswith(b"[") else b"[" + text + b"]")
    return [entry for entry in entries if _url(entry) or count_from(_word(entry.count)) != 0], strangers


def _entries(text: bytes) -> tuple[list[_Entry], int]:
    """The entries of a list. An item that is neither an entry nor null becomes an empty entry: a file that cannot be fetched.

    So does an entry that has one name twice.
    """
    try:
        entries = _ENTRIES.decode(text)
        if text.count(b'"url"') <= len(entries):
            return entries, 0
    except msgspec.ValidationError:
        pass
    entries = []
    nulls = 0
    for item in map(bytes, _ITEMS.decode(text)):
        if not _is_given(item):
            nulls += 1
            continue
        try:
            members_of(item)
            entries.append(_ENTRY.decode(item))
        except (UnreadableJsonError, *_UNREADABLE):
            entries.append(_Entry())
    return entries, nulls


def _has_unreadable_count(entry: _Entry) -> bool:
    """Whether a count is given but cannot be read ("1,006"): it may promise more than what comes.

    null and -1 promise nothing, as a `count` that is missing (Bulk Data IG: it is optional). An entry without a URL is a hole of
    its own.
    """
    count = _word(entry.count)
    if not _is_given(bytes(entry.count)) or count == "" or (isinstance(count, int | str) and count in _UNKNOWN):
        return False
    return count_from(count) is None and bool(_url(entry))


def _url(entry: _Entry) -> str:
    try:
        found = msgspec.json.decode(entry.url) if bytes(entry.url).startswith(b'"') else ""
    except _UNREADABLE:
        found = ""
    return str(found).strip()


def _word(raw: msgspec.Raw | bytes) -> Any:
    """A string, number or boolean; None for what is none, or far too long."""
    text = bytes(raw)
    if not text or len(text) > _LONGEST_WORD or text[:1] in b"[{":
        return None
    try:
        return msgspec.json.decode(text)
    except _UNREADABLE:
        return None


def _truth(value: Any) -> bool | None:
    """A boolean that may come as string (Epic's samples, vendor-facts 1.9); None where it is missing."""
    if isinstance(value, str):
        return value.strip().lower() == "true"
    return value if isinstance(value, bool) else None
