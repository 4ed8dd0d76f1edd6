"""Divides the rows of a type into stretches of ids, which several sessions read at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SAMPLED_PERCENT = 2  # of a type's blocks: where its ids are, within a few percent, in some milliseconds
_FIRST, _BEYOND = "", chr(0x10FFFF)  # no id is below the one, or begins with the other


@dataclass(frozen=True)
class Stretch:
    """The rows whose ids are from one on and before another, as bytes."""

    from_id: str = _FIRST
    before_id: str = _BEYOND


WHOLE = Stretch()


def sampled_rows(rows: int) -> int:
    """Return the size of the sample of this many rows, at least one."""
    return max(rows * SAMPLED_PERCENT // 100, 1)


def stretches(cuts: Iterable[str]) -> list[Stretch]:
    """Return stretches that are all ids, and that begin at the cuts; the first begins before them."""
    cuts = sorted({*cuts})
    return [Stretch(*ends) for ends in zip([_FIRST, *cuts], [*cuts, _BEYOND], strict=True)]
