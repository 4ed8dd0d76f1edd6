"""Splits a stream of bytes into NDJSON lines. Pure; tolerant of BOM, CRLF, blank lines, no last newline and zeros at the end.

Memory is bounded by one line, and a line by `max_line`: a longer one is cut off, counted, and its head kept for quarantine.
"""

from __future__ import annotations

from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"
_KEPT_OF_OVERLONG = 65_536


@dataclass(frozen=True, slots=True)
class OverlongLine:
    """A line over the limit: its number and its first bytes."""

    number: int
    head: bytes


Line = tuple[int, bytes]


class LineSplitter:
    """Feed it chunks, get whole lines as (number, bytes); at the end call `finish` for a last line without newline."""

    def __init__(self, max_line: int = 256 * 1024 * 1024, *, number: int = 0) -> None:
        self._max_line = max_line
        self._parts: list[bytes] = []
        self._held = 0
        self._number = number
        self._skipping = False
        # zeros followed the last line: block devices leave them, and so do blocks that were never written
        self.padded = False

    @property
    def number(self) -> int:
        """How many lines were complete, blank ones included."""
        return self._number

    @property
    def held(self) -> int:
        """Bytes of a line that is not complete yet; -1 within a line that is too long to be kept."""
        return -1 if self._skipping else self._held

    def feed(self, chunk: bytes) -> list[Line | OverlongLine]:
        """Give every line that `chunk` completes, without its line end; blank lines are counted and left out."""
        found: list[Line | OverlongLine] = []
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            self._number += 1
            line = part
            if self._skipping or self._parts:
                if self._skipping:
                    self._skipping = False
                    continue
                line = b"".join((*self._parts, part))
                self._parts, self._held = [], 0
            if len(line) > self._max_line:
                found.append(OverlongLine(self._number, line[:_KEPT_OF_OVERLONG]))
            elif line := self._bare(line):
                found.append((self._number, line))
        if rest and not self._skipping:
            self._parts.append(rest)
            self._held += len(rest)
            if self._held > self._max_line:
                found.append(OverlongLine(self._number + 1, b"".join(self._parts)[:_KEPT_OF_OVERLONG]))
                self._parts, self._held, self._skipping = [], 0, True
        return found

    def finish(self) -> list[Line | OverlongLine]:
        """Give the last line, if the stream ended without a newline (legal). Zeros after it, no JSON, are left out."""
        raw = b"".join(self._parts)
        line = raw.rstrip(b"\0")
        self.padded = line != raw
        self._parts, self._held = [], 0
        self._number += 1
        return [(self._number, line)] if (line := self._bare(line)) else []

    def _bare(self, line: bytes) -> bytes:
        if self._number == 1 and line.startswith(_BOM):
            line = line[len(_BOM) :]
        return line.strip(b" \t\r")
