"""Reads which part of a file an answer contains (RFC 9110, 14.4 and 15.3.7). Pure; `download` acts on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)


@dataclass(frozen=True)
class Part:
    """Bytes `start` to before `end` of a file of `size` bytes."""

    start: int
    end: int
    size: int

    @property
    def is_last(self) -> bool:
        """Whether it goes to the end of the file."""
        return self.end == self.size


def part_of(headers: Mapping[str, str], *, start: int, etag: str, size: int | None) -> Part | str:
    """The part that a 206 holds, or why it does not go on from byte `start` of the file that has `etag`.

    `size` is what is known of the file's. An unknown total (`*`) is no end: without a known size nothing would prove one.
    """
    if headers.get("etag", "") != etag:
        return "the server sent a part of it without saying that it is the same version"
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if found is None:
        return "the server sent a part of it without saying which part"
    first, last = int(found[1]), int(found[2])
    if first != start or last < first:
        return "the server sent another part of it than requested"
    size_stated = size if found[3] == "*" else int(found[3])
    if size_stated is None:
        return "the server sent a part of it without saying how long it is"
    if size_stated <= last or (size is not None and size_stated != size):
        return "the server states two lengths for it"
    length = headers.get("content-length", "").strip()
    if length and length != str(last - first + 1):
        return "the server sent a part of it that is longer or shorter than stated"
    return Part(first, last + 1, size_stated)
