"""Reads a bulk manifest (Bulk Data IG, "Export result") into file units. Pure.

Tolerates what servers really send: `requiresAccessToken` as string (Epic), no `count` (Cerner), no `error`, no `type`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from connectors.errors import ProtocolError
from snapshots.record import Unit

# files by the manifest's list, in the order they must be applied: deletions after the data they follow (IG: "deleted")
_LISTS = (("output", "file"), ("deleted", "deleted-file"), ("error", "error-file"), ("outcome", "error-file"))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One page of a manifest."""

    transaction_time: str | None
    units: tuple[Unit, ...]
    next_url: str | None


def manifest_from(body: bytes, *, page: int, incremental: bool) -> Manifest:
    """Read page number `page` of a manifest. Units are keyed by page and position: URLs may be refreshed, positions never move.

    Raises:
        ProtocolError: it is no JSON object, or has no `output` list.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ProtocolError("The export's manifest is not JSON.") from None
    if not isinstance(document, dict) or not isinstance(document.get("output"), list):
        raise ProtocolError("The export's manifest has no `output` list.")
    shared = {"requires_token": _truth(document.get("requiresAccessToken")), "incremental": incremental}
    units = tuple(unit for name, kind in _LISTS for unit in _units(document.get(name), name, kind, page, shared))
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
    return Manifest(transaction_time=time if isinstance(time, str) else None, units=units, next_url=next_url)


def _units(entries: Any, name: str, kind: str, page: int, shared: Mapping[str, Any]) -> Iterator[Unit]:
    for position, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("url"), str):
            raise ProtocolError(f"The export's manifest has an entry without url: {name}, number {position}.")
        resource_type = entry.get("type")
        count = entry.get("count")
        yield Unit(
            key=f"{kind}:{name}:{page}:{position}",
            kind=kind,
            resource_type=resource_type if isinstance(resource_type, str) else "*",
            detail={
                "url": entry["url"],
                **shared,
                "count": count if isinstance(count, int) and not isinstance(count, bool) else None,
                "template": f"{name} file {position}" + (f" of manifest page {page}" if page > 1 else ""),
            },
        )


def _truth(value: Any) -> bool | None:
    """A boolean that may come as string (Epic's samples, vendors.md 1.9); None where it is missing."""
    if isinstance(value, str):
        return value.strip().lower() == "true"
    return value if isinstance(value, bool) else None
