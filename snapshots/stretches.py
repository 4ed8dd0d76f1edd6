"""Divides the rows of a type into stretches of ids, which several sessions read at a time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SAMPLED_PERCENT = 2  # of a type's blocks: where its ids are, within a few percent, in some milliseconds
_FIRST, _BEYOND = "", chr(0x10FFFF)  # no id is below the one, or begins with the other


@dataclass(frozen=True)
class Stretch:
    """The rows whose ids are from one on and before another, as bytes."""

    from_id: str = _FIRST
    before_id: str = _BEYOND


WHOLE = Stretch()


def stretches(sampled: Sequence[str], rows: int) -> list[Stretch]:
    """Return stretches that are all ids, with about so many rows each; `sampled` are ids of SAMPLED_PERCENT of them, in order."""
    step = max(rows * SAMPLED_PERCENT // 100, 1)
    cuts = sorted({*sampled[step::step]})
    return [Stretch(*ends) for ends in zip([_FIRST, *cuts], [*cuts, _BEYOND], strict=True)]
