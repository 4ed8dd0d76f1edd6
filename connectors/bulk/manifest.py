"""Reads a bulk manifest (Bulk Data IG, "Export result") into file units. Pure.

Tolerates what servers really send: `requiresAccessToken` as string (Epic), no `count` (Cerner), no `error`, no `type`. Only what
is needed becomes objects, and of that not without bound. Which file is which in a manifest that is asked again, is `listing`'s.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from connectors.bulk.kick_off import Proofs
from connectors.errors import ProtocolError
from snapshots.record import Unit

_DIGITS = 19  # more make no count
_MOST_BYTES = 64 * 1024 * 1024  # some 300,000 files: exports of 20,000 have been seen (F30)
_MOST_OBJECTS = 2_000_000
_LONGEST_WORD = 10_000  # of what is read as one word or number
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")  # anything else is the server's free text, and never shown
# files by the manifest's list; deletions are applied after all data they follow (IG: "deleted"), which the download sees to
LISTS = (("output", "file"), ("deleted", "deleted-file"), ("error", "error-file"), ("outcome", "error-file"))


class _Entry(msgspec.Struct):
    url: str
    type: msgspec.Raw = msgspec.Raw()
    count: msgspec.Raw = msgspec.Raw()


class _Link(msgspec.Struct):
    relation: msgspec.Raw = msgspec.Raw()
    url: msgspec.Raw = msgspec.Raw()


class _Document(msgspec.Struct):
    output: msgspec.Raw = msgspec.Raw()
    deleted: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    outcome: msgspec.Raw = msgspec.Raw()
    link: msgspec.Raw = msgspec.Raw()
    transactionTime: msgspec.Raw = msgspec.Raw()  # noqa: N815 -- the guide's spelling
    requiresAccessToken: msgspec.Raw = msgspec.Raw()  # noqa: N815


_DOCUMENT = msgspec.json.Decoder(_Document)
_ENTRIES = msgspec.json.Decoder(list[_Entry])
_LINKS = msgspec.json.Decoder(list[_Link])
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ListedFile(NamedTuple):
    """One file as a manifest page lists it, by list and position."""

    list: str
    position: int
    resource_type: str  # "*": not said
    lines: int | None  # as it is counted there
    url: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One page of a manifest. Units are made as they are taken: a page may name 20,000 files."""

    transaction_time: str | None
    next_url: str | None
    page: int
    entries: Mapping[str, list[_Entry]] = field(repr=False)
    requires_token: bool | None
    proofs: Proofs
    base_url: str = ""  # what deletions must lie below

    def files(self) -> Iterator[ListedFile]:
        """Give every file, in the order of the lists."""
        for name, _ in LISTS:
            for position, entry in enumerate(self.entries.get(name, ()), start=1):
                said = _word(entry.type)
                usable = isinstance(said, str) and _TYPE.fullmatch(said) is not None and not self.proofs.organized
                count = _number(_word(entry.count))
                yield ListedFile(name, position, said if usable else "*", count, entry.url)

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

    def _unit(self, file: ListedFile, kind: str, number: int) -> Unit:
        way, of_none = self.proofs.ways(file.resource_type) if kind == "file" else (None, None)
        return Unit(
            key=f"{kind}:{file.list}:{self.page}:{number}",
            kind=kind,
            resource_type=file.resource_type,
            way=way,
            way_of_none=of_none,
            detail={
                "url": file.url,
                "requires_token": self.requires_token,
                "incremental": self.proofs.incremental,
                "lists_all": self.proofs.lists_all(file.resource_type),
                "elements": self.proofs.elements,
                "organized": self.proofs.organized,
                "count": file.lines,
                **({"base": self.base_url} if kind == "deleted-file" else {}),
                "template": f"{file.list} file {number}" + (f" of manifest page {self.page}" if self.page > 1 else ""),
            },
        )


def looks_like_manifest(body: bytes) -> bool:
    """Whether a body that came with 202 is a manifest of what is ready so far, and not a note on the progress."""
    try:
        return bytes(_DOCUMENT.decode(body).output).startswith(b"[")
    except _UNREADABLE:
        return False


def manifest_from(body: bytes, *, page: int, proofs: Proofs, base_url: str = "") -> Manifest:
    """Read page number `page` of a manifest.

    Raises:
        ProtocolError: it is no JSON object, has no `output` list, has something else for another, names a file without URL, or is
            larger than any export of files can be.
    """
    if len(body) > _MOST_BYTES or body.count(b"{") > _MOST_OBJECTS:
        raise ProtocolError(
            f"The export's manifest is too large to be one ({len(body):,} bytes; up to {_MOST_BYTES:,} and {_MOST_OBJECTS:,} "
            "entries a page are read): ask the EHR to write larger files, or several manifest pages."
        )
    try:
        document = _DOCUMENT.decode(body)
    except msgspec.ValidationError:
        raise ProtocolError("The export's manifest has no `output` list.") from None
    except _UNREADABLE:
        raise ProtocolError("The export's manifest is not JSON.") from None
    if not bytes(document.output).startswith(b"["):
        raise ProtocolError("The export's manifest has no `output` list.")
    time = _word(document.transactionTime)
    return Manifest(
        transaction_time=time if isinstance(time, str) else None,
        next_url=_next_url(document.link),
        page=page,
        entries={name: _listed(getattr(document, name), name) for name, _ in LISTS},
        requires_token=_truth(_word(document.requiresAccessToken)),
        proofs=proofs,
        base_url=base_url,
    )


def _listed(found: msgspec.Raw, name: str) -> list[_Entry]:
    """A list, missing or null (no files), or one entry that stands alone: what it names must not be passed over."""
    text = bytes(found)
    if text.startswith(b"{") and text[1:-1].strip():
        text = b"[" + text + b"]"
    if not text.startswith(b"["):
        if text.startswith(b"{") or not _word(found):
            return []
        raise ProtocolError(f"The export's manifest has a `{name}` that is no list.")
    try:
        return _ENTRIES.decode(text)
    except _UNREADABLE as error:
        where = re.search(r"\$\[(\d+)\]", str(error))
        number = f", number {int(where[1]) + 1}" if where else ""
        raise ProtocolError(f"The export's manifest has an entry without url: {name}{number}.") from None


def _next_url(found: msgspec.Raw) -> str | None:
    if not bytes(found).startswith(b"["):
        return None
    try:
        links = _LINKS.decode(found)
    except _UNREADABLE:
        raise ProtocolError("The export's manifest has a `link` that is no list of links.") from None
    urls = (_word(link.url) for link in links if _word(link.relation) == "next")
    return next((url for url in urls if isinstance(url, str)), None)


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
    """A boolean that may come as string (Epic's samples, vendors.md 1.9); None where it is missing."""
    if isinstance(value, str):
        return value.strip().lower() == "true"
    return value if isinstance(value, bool) else None


def _number(value: Any) -> int | None:
    """A count that may come as string, as booleans do; None where it is missing or no count."""
    if isinstance(value, str) and len(value) < _DIGITS and value.strip().isdecimal():
        return int(value)
    return value if type(value) is int and value >= 0 else None
