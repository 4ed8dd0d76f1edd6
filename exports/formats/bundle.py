"""Turns a stream of NDJSON lines into a FHIR Bundle of type collection.

Each line becomes one entry, byte for byte: numbers keep their written form, and no whole line is held in memory.
"""

from __future__ import annotations

HEAD = b'{"resourceType":"Bundle","type":"collection","entry":[\n'
TAIL = b"\n]}\n"
_ENTRY = b'{"resource":'
_NEXT_ENTRY = b",\n" + _ENTRY


class BundleEntries:
    """Turns chunks of NDJSON, cut anywhere, into the entries of one Bundle."""

    def __init__(self) -> None:
        self._first = True
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """Return the Bundle's bytes for a chunk of NDJSON."""
        parts: list[bytes] = []
        lines = chunk.split(b"\n")
        for at, line in enumerate(lines):
            if line:
                if self._at_line_start:
                    parts.append(_ENTRY if self._first else _NEXT_ENTRY)
                    self._first = self._at_line_start = False
                parts.append(line)
            if at < len(lines) - 1 and not self._at_line_start:
                parts.append(b"}")
                self._at_line_start = True
        return b"".join(parts)
