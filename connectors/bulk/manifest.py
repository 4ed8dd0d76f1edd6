"""Reads a bulk manifest (Bulk Data IG, "Export result") into file units. Pure.

Tolerates what servers really send: `requiresAccessToken` as string (Epic), no `count` (Cerner), no `error`, no `type`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from connectors.bulk.kick_off import Proofs
from connectors.errors import ProtocolError
from snapshots.record import Unit

_DIGITS = 19  # more make no count
# files by the manifest's list; deletions are applied after all data they follow (IG: "deleted"), which the download sees to
_LISTS = (("output", "file"), ("deleted", "deleted-file"), ("error", "error-file"), ("outcome", "error-file"))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One page of a manifest. Units are made as they are taken: a page may name 20,000 files."""

    transaction_time: str | None
    next_url: str | None
    page: int
    entries: Mapping[str, list[Any]] = field(repr=False)
    requires_token: bool | None
    proofs: Proofs

    def units(self) -> Iterator[Unit]:
        """Give a unit a file, in the order of the lists. Keyed by page and position: URLs may be refreshed, positions stay."""
        for name, kind in _LISTS:
            for position, entry in enumerate(self.entries.get(name, ()), start=1):
                yield self._unit(entry, name, kind, position)

    def links(self) -> Iterator[tuple[str, str]]:
        """Give each unit's key with its URL."""
        for name, kind in _LISTS:
            for position, entry in enumerate(self.entries.get(name, ()), start=1):
                yield self._key(kind, name, position), entry["url"]

    def _key(self, kind: str, name: str, position: int) -> str:
        return f"{kind}:{name}:{self.page}:{position}"

    def _unit(self, entry: Mapping[str, Any], name: str, kind: str, position: int) -> Unit:
        said = entry.get("type")
        resource_type = said if isinstance(said, str) and not self.proofs.organized else "*"
        return Unit(
            key=self._key(kind, name, position),
            kind=kind,
            resource_type=resource_type,
            detail={
                "url": entry["url"],
                "requires_token": self.requires_token,
                "incremental": self.proofs.incremental,
                "lists_all": self.proofs.lists_all(resource_type),
                "elements": self.proofs.elements,
                "organized": self.proofs.organized,
                "count": _number(entry.get("count")),
                "template": f"{name} file {position}" + (f" of manifest page {self.page}" if self.page > 1 else ""),
            },
        )


def looks_like_manifest(body: bytes) -> bool:
    """Whether a body that came with 202 is a manifest of what is ready so far, and not a note on the progress."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and isinstance(document.get("output"), list)


def manifest_from(body: bytes, *, page: int, proofs: Proofs) -> Manifest:
    """Read page number `page` of a manifest.

    Raises:
        ProtocolError: it is no JSON object, has no `output` list, has something else for another, or names a file without URL.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ProtocolError("The export's manifest is not JSON.") from None
    if not isinstance(document, dict) or not isinstance(document.get("output"), list):
        raise ProtocolError("The export's manifest has no `output` list.")
    entries = {name: _listed(document.get(name), name) for name, _ in _LISTS}
    for name, listed in entries.items():
        for position, entry in enumerate(listed, start=1):
            if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
                raise ProtocolError(f"The export's manifest has an entry without url: {name}, number {position}.")
    links = document.get("link")
    next_url = next(
        (
            link["url"]
            for link in (links if isinstance(links, list) else [])
            if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str)
        ),
        None,
    )
    time = document.get("transactionTime")
    return Manifest(
        transaction_time=time if isinstance(time, str) else None,
        next_url=next_url,
        page=page,
        entries=entries,
        requires_token=_truth(document.get("requiresAccessToken")),
        proofs=proofs,
    )


def _listed(found: Any, name: str) -> list[Any]:
    """A list, missing or null (no files), or one entry that stands alone: what it names must not be passed over."""
    if isinstance(found, list):
        return found
    if not found:
        return []
    if isinstance(found, dict):
        return [found]
    raise ProtocolError(f"The export's manifest has a `{name}` that is no list.")


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
