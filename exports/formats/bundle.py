"""Turns a stream of entries, one per line, into a FHIR Bundle of type collection.

Each line stays as it is, byte for byte: numbers keep their written form, and no whole line is held in memory.
"""

from __future__ import annotations

HEAD = b'{"resourceType":"Bundle","type":"collection","entry":[\n'
TAIL = b"\n]}\n"


class BundleEntries:
    """Puts separators between entries, which come in chunks of any size."""

    def __init__(self) -> None:
        self._due = b""  # before the next entry
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """Return the Bundle's bytes for a chunk of entries."""
        parts: list[bytes] = []
        lines = chunk.split(b"\n")
        for at, line in enumerate(lines):
            if line:
                if self._at_line_start:
                    parts.append(self._due)
                    self._due, self._at_line_start = b",\n", False
                parts.append(line)
            if at < len(lines) - 1:
                self._at_line_start = True
        return b"".join(parts)
