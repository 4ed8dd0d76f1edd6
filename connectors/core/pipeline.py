"""Moves what fetchers find into the store: many fetchers, one bounded queue, one writer that forms batches.

Data commit with the result of their unit, or before it. The bytes in the queue and the size of a batch bound the memory. Each
source fetches; the store stores.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import anyio

from connectors.core.errors import AuthError, FetchError, LoginRefusedError
from connectors.core.store_port import RunStore
from snapshots.patient import Alias
from snapshots.record import Batch, Quarantined, Record
from snapshots.referred import Document, ReferenceTarget
from snapshots.unit import Counted, Unit, UnitResult, UnitState
from snapshots.witness import Deletion

# One transaction's size: large enough that its fixed cost vanishes, small enough that three of them stay far below the
# 200 MB that a process may take.
BATCH_BYTES = 8_000_000
BATCH_RECORDS = 8_000
# How long a batch waits for more pieces. Otherwise each small page would pay for its own transaction, 1 ms of CPU here and more
# than the request; a crash costs at most this much more work.
LINGER_S = 0.2
ENOUGH_BYTES = 500_000  # worth a transaction at once
# What may wait in the queue for the writer. Bytes, not pieces: while a batch commits (some 30 ms), small pages must not stop the
# fetchers, and large ones must not fill the memory.
LINE_BYTES = 8_000_000
_PIECE_BYTES = 1_000  # what a piece weighs beside its bodies
_COUNTED = "counted"  # in a unit's place: what was noticed up to there
_REFUSED_AT_MOST = 3  # refusals in a row: then the client is refused, not these patients


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A piece of one unit's data; the last piece has its result."""

    records: Sequence[Record] = ()
    deletions: Sequence[Deletion] = ()
    quarantined: Sequence[Quarantined] = ()
    documents: Sequence[Document] = ()
    aliases: Sequence[Alias] = ()
    mentions: Sequence[ReferenceTarget] = ()
    result: UnitResult | None = None
    place: tuple[str, Mapping[str, Any]] | None = None  # a unit's key, and its progress with this piece
    size: int = 0  # bytes of bodies


class Noticed(NamedTuple):
    """Records on their way to the store, with what was noticed as they passed by."""

    records: Sequence[Record]
    mentions: Sequence[ReferenceTarget] = ()
    counted: Mapping[Counted, int] = MappingProxyType({})


Emit = Callable[[Fetched], Awaitable[None]]
FetchUnit = Callable[[Unit, Emit], Awaitable[UnitResult]]
Notice = Callable[[Sequence[Record]], Noticed]
OnBatch = Callable[[Sequence[UnitResult], int], None]  # how units ended, records written


async def run_units(
    units: Sequence[Unit],
    fetch: FetchUnit,
    store: RunStore,
    *,
    workers: int,
    on_batch: OnBatch = lambda results, records: None,
    notice: Notice = Noticed,
    let_in: bool = False,
) -> None:
    """Fetch every unit, `workers` at a time, and settle each in the store.

    A FetchError makes a hole of its own unit. So does a login that is refused for one patient or one resource
    while others are accepted (`let_in`: this run's login was accepted before). Every other error stops everything: committed data
    stay, and the run can be resumed.
    """
    if not units:
        return
    waiting = iter(units)
    line = _Line()
    refusals = _Refusals(let_in=let_in)

    async def work() -> None:
        for unit in waiting:
            passage = _Passage(unit, line, notice)
            try:
                result = await fetch(unit, passage.put)
            except FetchError as error:
                result = UnitResult(key=unit.key, state=UnitState.FAILED, reason=str(error))
            except AuthError as error:
                refusals.note(unit, error)
                result = UnitResult(key=unit.key, state=UnitState.FAILED, reason=str(error))
            else:
                refusals.forget()
            await line.put(Fetched(result=passage.ended(result)))

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write_all, line, store, on_batch)
            async with anyio.create_task_group() as fetchers:
                for _ in range(min(workers, len(units))):
                    fetchers.start_soon(work)
            line.end()
    except BaseExceptionGroup as group:
        raise _first(group) from None
    refusals.end()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that stopped the tasks; the others in the group are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Passage:
    """Lets one unit's pieces through to the writer, and counts what is noticed in them."""

    def __init__(self, unit: Unit, line: _Line, notice: Notice) -> None:
        self._line = line
        self._notice = notice
        self._counted = Counter(_counted_before(unit))

    async def put(self, piece: Fetched) -> None:
        """Have a piece's records noticed, here and not by the writer: the store is at work meanwhile."""
        if piece.records:
            noticed = self._notice(piece.records)
            if noticed.counted:
                self._counted.update(noticed.counted)
            piece = replace(piece, records=noticed.records, mentions=noticed.mentions)
        if piece.place is not None and self._counted:
            key, place = piece.place
            counted = [[*one, number] for one, number in self._counted.items()]
            piece = replace(piece, place=(key, {**place, _COUNTED: counted}))
        await self._line.put(piece)

    def ended(self, result: UnitResult) -> UnitResult:
        """Return the unit's result, with what was counted."""
        return replace(result, counted=self._counted) if self._counted else result


def _counted_before(unit: Unit) -> dict[Counted, int]:
    """What an interrupted run had counted in as much of the unit as need not come again."""
    return {Counted(*one): number for *one, number in (unit.reached or {}).get(_COUNTED, ())}


class _Refusals:
    """Distinguishes data that the source withholds, from one patient or of one kind, from a client that it refuses."""

    def __init__(self, *, let_in: bool) -> None:
        self._refused: set[str] = set()
        self._let_in = let_in
        self._last: AuthError | None = None

    def forget(self) -> None:
        """Note that a request was accepted."""
        self._refused.clear()
        self._let_in = True

    def note(self, unit: Unit, error: AuthError) -> None:
        """Note a refusal; raise it unless it concerns only one patient or one resource."""
        if isinstance(error, LoginRefusedError) and unit.patient_id is None:
            raise error
        self._last = error
        self._refused.add(unit.patient_id or unit.key)
        if len(self._refused) >= _REFUSED_AT_MOST:
            raise error

    def end(self) -> None:
        """Raise the last refusal of a client that was accepted nowhere."""
        if self._last is not None and not self._let_in and not isinstance(self._last, LoginRefusedError):
            raise self._last


class _Line:
    """The queue of pieces for the one writer, first in, first out. Half the CPU of anyio's stream, and bounded by bytes."""

    def __init__(self) -> None:
        self._pieces: deque[Fetched] = deque()
        self._size = 0
        self._ended = False
        self._room: anyio.Event | None = None
        self._news: anyio.Event | None = None

    async def put(self, piece: Fetched) -> None:
        """Add a piece, once there is room."""
        while self._size >= LINE_BYTES:
            self._room = self._room or anyio.Event()
            await self._room.wait()
        self._pieces.append(piece)
        self._size += piece.size + _PIECE_BYTES
        self._wake()

    def end(self) -> None:
        """Declare that no more pieces will come."""
        self._ended = True
        self._wake()

    def take(self) -> Fetched | None:
        """Return the next piece, if there is one."""
        if not self._pieces:
            return None
        piece = self._pieces.popleft()
        self._size -= piece.size + _PIECE_BYTES
        if self._room is not None and self._size < LINE_BYTES:
            self._room.set()
            self._room = None
        return piece

    async def filled(self) -> bool:
        """Wait for a piece; False: none will come any more."""
        while not self._pieces and not self._ended:
            self._news = self._news or anyio.Event()
            await self._news.wait()
        return bool(self._pieces)

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None


async def _write_all(line: _Line, store: RunStore, on_batch: OnBatch) -> None:
    while await line.filled():
        pieces = await _gathered(line)
        records = [record for piece in pieces for record in piece.records]
        results = [piece.result for piece in pieces if piece.result is not None]
        await store.write(
            Batch(
                records=records,
                mentions=[target for piece in pieces for target in piece.mentions],
                deletions=[deletion for piece in pieces for deletion in piece.deletions],
                quarantined=[item for piece in pieces for item in piece.quarantined],
                results=results,
                places=dict(piece.place for piece in pieces if piece.place is not None),
                documents=[document for piece in pieces for document in piece.documents],
                aliases=[alias for piece in pieces for alias in piece.aliases],
            )
        )
        on_batch(results, len(records))


async def _gathered(line: _Line) -> list[Fetched]:
    """Return the waiting pieces, up to a full batch; if they are few, also what comes within LINGER_S."""
    pieces: list[Fetched] = []
    size = count = 0
    with anyio.move_on_after(LINGER_S):
        while size < BATCH_BYTES and count < BATCH_RECORDS:
            piece = line.take()
            if piece is not None:
                pieces.append(piece)
                size += piece.size
                count += len(piece.records)
            elif size >= ENOUGH_BYTES or not await line.filled():
                break
    return pieces
