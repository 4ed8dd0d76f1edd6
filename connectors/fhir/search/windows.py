"""Divides a search that a server cannot answer whole: by time, by page size, by ids. Pure; `search.search` requests the parts.

One record that an EHR cannot produce poisons its page (Cerner 500 `required`), and a result can be too large (413) or too slow
(504). The rest is requested around it, in smaller pages, or in two windows that share their border so that nothing falls
between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote

from connectors.fhir.errors import RequestError, TerminalFetchError
from connectors.fhir.profile import IssueGrade

Trouble = Literal["poison", "large", "slow"]

FINEST = timedelta(seconds=1)  # of a window: instants are written to the second
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)  # older dates lie in the first window, which has no lower end ...
_OLDEST = datetime(1850, 1, 1, tzinfo=UTC)  # ... until it is all that is left
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)  # future dates are real (vendor-facts 2.8)
_SHRINK = 4  # pages, at each step
_UNKNOWN_PAGE = 200  # where the server chooses: the first smaller page is a quarter of this
_TOO_LARGE, _SERVER_ERROR, _TOO_SLOW = 413, 500, 504


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a search: what lies between two instants, both included (None: open), in pages of `count`, or of some ids."""

    after: datetime | None = None
    until: datetime | None = None
    count: int | None = None  # None: as the search was planned
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SplitLimits:
    """What a server lets us vary in one search."""

    now: datetime | None  # None: the search cannot be divided by time
    count: int | None  # entries of a planned page; None: the server's own choice


def trouble_of(error: RequestError, meaning: IssueGrade) -> Trouble | None:
    """Whether a smaller question may be answered where this one was not; None: it would not."""
    if error.status == _TOO_SLOW:
        return "slow"
    if not isinstance(error, TerminalFetchError):
        return None
    if error.status == _TOO_LARGE:
        return "large"
    return "poison" if meaning == "fatal" or (error.status == _SERVER_ERROR and "required" in error.codes) else None


def divide(piece: Piece, trouble: Trouble, limits: SplitLimits) -> tuple[Piece, ...]:
    """Return the parts to request instead of a piece, which together cover it except what one answer cannot; () if none.

    A slow page is requested smaller first, anything else is halved in time first. The last resort against poison is one entry a
    page: what stands before it arrives.
    """
    if piece.ids:
        half = len(piece.ids) // 2
        parts = (piece.ids[:half], piece.ids[half:]) if half else ()
        return tuple(replace(piece, ids=ids) for ids in parts)
    smaller = _smaller(piece, limits, to_one=trouble == "poison")
    if trouble == "slow":
        return smaller or _halves(piece, limits)
    return _halves(piece, limits) or smaller


def _smaller(piece: Piece, limits: SplitLimits, *, to_one: bool) -> tuple[Piece, ...]:
    size = piece.count or limits.count or _UNKNOWN_PAGE
    count = 1 if to_one else max(1, size // _SHRINK)
    return (replace(piece, count=count),) if 0 < count < size else ()


def _halves(piece: Piece, limits: SplitLimits) -> tuple[Piece, ...]:
    if limits.now is None:
        return ()
    oldest = _EARLIEST if piece.until is None or piece.until - _EARLIEST > FINEST else _OLDEST
    lower = piece.after or oldest
    upper = piece.until or (limits.now if limits.now - lower > FINEST else _LATEST)
    if upper - lower <= FINEST:
        return ()
    middle = lower + timedelta(seconds=int((upper - lower) / timedelta(seconds=2)))
    middle = middle.replace(microsecond=0)
    if not lower < middle < upper:
        return ()
    return replace(piece, until=middle), replace(piece, after=middle)


def places(lost: Sequence[Piece]) -> int:
    """Return in how many places something was lost: windows that share a border may have lost the same record on it."""
    after = {piece.after for piece in lost if piece.after is not None}
    return sum(piece.until is None or piece.until not in after for piece in lost)


def query_of(path: str, piece: Piece, parameter: str | None) -> str:
    """A planned search's path, reduced to a piece of it; `parameter` is the one that divides it into windows."""
    kind, _, query = path.partition("?")
    parts = [part for part in query.split("&") if part]
    if parameter is not None:
        parts = [part for part in parts if not part.startswith(f"{parameter}=")]
        bounds = (("ge", piece.after), ("le", piece.until))
        parts += [f"{parameter}={prefix}{written(bound)}" for prefix, bound in bounds if bound is not None]
    if piece.count is not None:
        parts = [*(part for part in parts if not part.startswith("_count=")), f"_count={piece.count}"]
    return f"{kind}?{'&'.join(parts)}" if parts else kind


def written(bound: datetime) -> str:
    """An instant as a query writes it, in UTC."""
    return quote(bound.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), safe=":")
