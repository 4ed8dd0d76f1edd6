"""The use case: writes what differs between two moments of a selection to a stream, in a form that the caller gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import BinaryIO, NamedTuple, Protocol

import msgspec

from exports.delivery.shown_late import deliver_late
from exports.element_changes import ElementChange, element_changes
from exports.snapshot_port import RowChunks, Snapshot

CHANGES = ("added", "changed", "deleted")
_CHUNK_BYTES = 256 * 1024
Counts = Mapping[str, Mapping[str, int]]


class Difference(NamedTuple):
    """One resource that differs."""

    resource_type: str
    id: str
    patient: str | None
    change: str  # one of CHANGES
    elements: tuple[ElementChange, ...]  # of what has changed


class DifferenceForm(Protocol):
    """How differences are written."""

    def head(self) -> bytes:
        """Return what comes before the first."""

    def line(self, difference: Difference) -> bytes:
        """Return one of them."""

    def tail(self, counts: Counts) -> bytes:
        """Return what comes after the last: they were so many, by type and change."""


async def deliver_differences(snapshot: Snapshot, out: BinaryIO, form: DifferenceForm) -> Counts:
    """Write what differs from the snapshot's `changed_since`, once the read is in the audit; return how much, by type and change.

    Memory does not grow with the number of differences.
    """
    content = _Content(await snapshot.differences(), form)
    await deliver_late(content, out, end=snapshot.end, kind="differences")
    return content.counts


class _Content:
    """The bytes, and once they are read to the end, how many differences are in them."""

    def __init__(self, chunks: RowChunks, form: DifferenceForm) -> None:
        self._chunks = chunks
        self._form = form
        self.counts: dict[str, Counter[str]] = {}
        self.rows = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        waiting = bytearray(self._form.head())
        rest = b""
        async for chunk in self._chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                one = _difference(line)
                if one.change == "changed" and not one.elements:  # an encrypted store writes equal values differently
                    continue
                self.counts.setdefault(one.resource_type, Counter())[one.change] += 1
                self.rows += 1
                waiting += self._form.line(one)
                if len(waiting) >= _CHUNK_BYTES:
                    yield bytes(waiting)
                    waiting.clear()
        yield bytes(waiting) + self._form.tail(self.counts)


class _Row(msgspec.Struct):
    """A line of `Snapshot.differences`."""

    type: str
    id: str
    patient: str | None
    change: str
    old: str | None
    new: str | None


_LINES = msgspec.json.Decoder(_Row)


def _difference(line: bytes) -> Difference:
    row = _LINES.decode(line)
    elements = () if row.old is None or row.new is None else tuple(element_changes(row.old, row.new))
    return Difference(row.type, row.id, row.patient, row.change, elements)
