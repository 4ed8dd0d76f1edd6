"""What the rules of a profile are given besides a value, and how they say that a value must not leave. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Dropped(Exception):  # noqa: N818 - it is what becomes of the value, and no failure
    """This value does not leave."""


@dataclass(frozen=True)
class Release:
    """What the rules need to know: the keyed id of a resource, and the last year that indicates an age over 89.

    `days`: how much earlier the dates of the resource's patient are given; None: of dates only the year leaves.
    """

    keyed: Callable[[str, str], str]  # (type, id)
    too_old: int
    latest: int  # the last year that a date may have: a later one may be four digits of anything; 0: no date leaves
    days: int | None = None
