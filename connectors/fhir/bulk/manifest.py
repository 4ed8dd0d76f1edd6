"""Reads a bulk manifest (Bulk Data IG, "Export result") into file units. Pure.

Tolerates what servers really send: `requiresAccessToken` as string (Epic), no `count` (Cerner), no `error`, no `type`, no
`output` where nothing matched. An item that cannot be understood costs itself, and leaves a doubt. Only what is needed becomes
objects, and of that not without bound. Which file is which in a manifest that is asked again, is `listing`'s.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from connectors.fhir.bulk.kick_off import Proofs
from connectors.fhir.errors import ProtocolError
from connectors.fhir.json_answers import bare, count_from
from connectors.fhir.page_links import links_from
from connectors.fhir.unit_details import DoubtDetail, FileDetail
from snapshots.unit import Unit, unit_key

_MOST_BYTES = 64 * 1024 * 1024  # some 300,000 files: exports of 20,000 have been seen (F30)
_MOST_OBJECTS = 2_000_000
_SYNC_AGAIN = (
    "sync again begins a new export; if that ends so too, ask who runs the EHR what its status URL answers, or use --mode "
    "crawl"
)
_NO_OUTPUT = f"The export's manifest has no `output` list: the answer with status 200 is something else; {_SYNC_AGAIN}."
_LONGEST_WORD = 10_000  # of what is read as one word or number
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")  # anything else is the server's free text, and never shown
_OF_ERRORS = frozenset({"error", "outcome"})
# files by the manifest's list; deletions are applied after all data they follow (IG: "deleted"), which the download sees to
LISTS = (("output", "file"), ("deleted", "deleted-file"), ("error", "error-file"), ("outcome", "error-file"))


class _Entry(msgspec.Struct):
    url: msgspec.Raw = msgspec.Raw()
    type: msgspec.Raw = msgspec.Raw()
    count: msgspec.Raw = msgspec.Raw()


class _Document(msgspec.Struct):
    output: msgspec.Raw = msgspec.Raw()
    deleted: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    outcome: msgspec.Raw = msgspec.Raw()
    link: msgspec.Raw = msgspec.Raw()
    links: msgspec.Raw = msgspec.Raw()
    transactionTime: msgspec.Raw = msgspec.Raw()  # noqa: N815 -- the guide's spelling
    requiresAccessToken: msgspec.Raw = msgspec.Raw()  # noqa: N815
    request: msgspec.Raw = msgspec.Raw()
    resourceType: msgspec.Raw = msgspec.Raw()  # noqa: N815 -- a manifest has none


_DOCUMENT = msgspec.json.Decoder(_Document)
_ENTRIES = msgspec.json.Decoder(list[_Entry])
_ENTRY = msgspec.json.Decoder(_Entry)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_NOTHING = frozenset({b"", b"null", b"{}"})
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ListedFile(NamedTuple):
    """One file as a manifest page lists it, by list and position."""

    list: str
    position: int
    resource_type: str  # "*": not said
    lines: int | None  # as it is counted there
    url: str  # "": not said, so that the file cannot be fetched


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One page of a manifest. Units are made as they are taken: a page may name 20,000 files."""

    transaction_time: str | None
    next_url: str | None  # "": there is, or may be, a next page, and nobody can say where
    page: int
    entries: Mapping[str, list[_Entry]] = field(repr=False)  # files, in order
    doubtful: bool  # some of it nobody understands
    requires_token: bool | None
    proofs: Proofs

    def files(self) -> Iterator[ListedFile]:
        """Give every file, in the order of the lists."""
        for name, _ in LISTS:
            for position, entry in enumerate(self.entries.get(name, ()), start=1):
                said = _word(entry.type)
                usable = isinstance(said, str) and _TYPE.fullmatch(said) is not None and not self.proofs.organized
                # of errors it counts the resources that failed (smart-bulk-data-server), and not the lines
                count = None if name in _OF_ERRORS else count_from(_word(entry.count))
                yield ListedFile(name, position, said if usable else "*", count, _url(entry))

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
        """Give a unit that leaves open what this page leaves open: its store takes it for an export that tells of errors."""
        more = self.next_url == ""
        if more or self.doubtful:
            doubt = f"the manifest's page {self.page} "
            doubt += (
                "has a next page, or may have one, but does not say where, or leads back to an earlier page (a circle)"
                if more
                else "lists something that could not be understood: what the export does not list is kept"
            )
            yield Unit(
                key=unit_key("manifest", self.page),
                kind="error-file",
                resource_type="*",
                template=f"manifest page {self.page}",
                detail=DoubtDetail(doubt=doubt, more=more).packed,
            )

    def _unit(self, file: ListedFile, kind: str, number: int) -> Unit:
        way, of_none = self.proofs.ways(file.resource_type) if kind == "file" else (None, None)
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
        return bytes(_DOCUMENT.decode(bare(body)).output).startswith(b"[")
    except _UNREADABLE:
        return False


def manifest_from(body: bytes, *, page: int, proofs: Proofs) -> Manifest:
    """Read page number `page` of a manifest.

    Raises:
        ProtocolError: it is no JSON object, has something else for a list, or is larger than any export of files can be; it has
            no `output`, nor anything else that a manifest has.
    """
    if len(body) > _MOST_BYTES or body.count(b"{") > _MOST_OBJECTS:
        raise ProtocolError(
            f"The export's manifest is too large ({len(body):,} bytes; up to {_MOST_BYTES:,} and {_MOST_OBJECTS:,} "
            "entries per page are read): ask the EHR to write larger files, or several manifest pages."
        )
    try:
        document = _DOCUMENT.decode(bare(body))
    except msgspec.ValidationError:
        raise ProtocolError(_NO_OUTPUT) from None
    except _UNREADABLE:
        raise ProtocolError(f"The export's manifest is not JSON; {_SYNC_AGAIN}.") from None
    if not _begins_list(document.output) and not _is_of_nothing(document):
        raise ProtocolError(_NO_OUTPUT)
    time = _word(document.transactionTime)
    links = links_from(bytes(document.link), bytes(document.links))
    listed = {name: _listed(getattr(document, name), name) for name, _ in LISTS}
    return Manifest(
        transaction_time=time if isinstance(time, str) else None,
        next_url=links.next_url,
        page=page,
        entries={name: entries for name, (entries, _) in listed.items()},
        doubtful=links.doubtful or any(strangers for _, strangers in listed.values()),
        requires_token=_truth(_word(document.requiresAccessToken)),
        proofs=proofs,
    )


def _is_of_nothing(document: _Document) -> bool:
    """Whether a document without `output` is a manifest all the same: of an export that matched nothing."""
    said = (document.transactionTime, document.requiresAccessToken, document.request)
    return bytes(document.output) in _NOTHING and not _is_said(document.resourceType) and any(map(_is_said, said))


def _begins_list(raw: msgspec.Raw) -> bool:
    """Whether it is a list, or one item in a list's place; PHP writes `{}` for an empty list."""
    return bytes(raw)[:1] in {b"[", b"{"} and bytes(raw) not in _NOTHING


def _is_said(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in {b"", b"null"}


def _listed(found: msgspec.Raw, name: str) -> tuple[list[_Entry], int]:
    """A list's files, and how many items are none; missing or null (no files), or one file that stands alone.

    An entry without URL that counts nothing is no file. Any other must not be passed over.
    """
    text = bytes(found)
    if not _begins_list(found):
        if text.startswith(b"{") or not _word(found):
            return [], 0
        raise ProtocolError(f"The export's manifest has a `{name}` that is not a list; {_SYNC_AGAIN}.")
    entries, strangers = _entries(text if text.startswith(b"[") else b"[" + text + b"]")
    return [entry for entry in entries if _url(entry) or count_from(_word(entry.count)) != 0], strangers


def _entries(text: bytes) -> tuple[list[_Entry], int]:
    """The entries of a list: what is neither one nor null is one of which nothing is said, and so a file that cannot be had."""
    try:
        return _ENTRIES.decode(text), 0
    except msgspec.ValidationError:
        pass
    entries: list[_Entry] = []
    nulls = 0
    for item in _ITEMS.decode(text):
        if not _is_said(item):
            nulls += 1
            continue
        try:
            entries.append(_ENTRY.decode(item))
        except _UNREADABLE:
            entries.append(_Entry())
    return entries, nulls


def _url(entry: _Entry) -> str:
    try:
        found = msgspec.json.decode(entry.url) if bytes(entry.url).startswith(b'"') else ""
    except _UNREADABLE:
        found = ""
    return str(found).strip()


def _word(raw: msgspec.Raw) -> Any:
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
