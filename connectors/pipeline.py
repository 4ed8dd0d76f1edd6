"""Moves what fetchers find into the store: many fetchers, one bounded stream, one writer that gathers batches.

Data commits with, or before, the result of its unit; memory is bounded by the stream's length and the batch's size. What is
fetched is `crawl`'s and `bulk`'s business; how it is stored, the store's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from connectors.errors import FetchError, UnsafeLinkError
from connectors.store_port import RunStore
from snapshots.record import Alias, Batch, Deletion, Document, Quarantined, Record, Unit, UnitResult, UnitState

# One transaction's size: large enough that its fixed cost vanishes, small enough that three of them stay far below the
# 200 MB that a process may take.
BATCH_BYTES = 8_000_000
BATCH_RECORDS = 8_000
# How long a batch waits for company. Small pages that trickle in would each pay for a transaction, 1 ms of CPU here and more than
# the request; a crash costs this much more work at the most.
LINGER_S = 0.2
ENOUGH_BYTES = 500_000  # worth a transaction at once


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A piece of what one unit gave; the last piece carries its result."""

    records: Sequence[Record] = ()
    deletions: Sequence[Deletion] = ()
    quarantined: Sequence[Quarantined] = ()
    documents: Sequence[Document] = ()
    aliases: Sequence[Alias] = ()
    result: UnitResult | None = None
    size: int = 0  # bytes of bodies


Emit = Callable[[Fetched], Awaitable[None]]
FetchUnit = Callable[[Unit, Emit], Awaitable[UnitResult]]
Inspect = Callable[[Sequence[Record]], None]
OnBatch = Callable[[Sequence[UnitResult], int], None]  # how units ended, records written


async def run_units(
    units: Sequence[Unit],
    fetch: FetchUnit,
    store: RunStore,
    *,
    workers: int,
    buffer: int = 32,
    on_batch: OnBatch = lambda results, records: None,
    inspect: Inspect = lambda records: None,
) -> None:
    """Fetch every unit, `workers` at a time, and settle each in the store.

    One unit's FetchError or unsafe link is its own hole; every other error stops all: what was committed stays, and the run
    can be resumed.
    """
    if not units:
        return
    waiting = iter(units)
    send, receive = anyio.create_memory_object_stream[Fetched](buffer)

    async def work(out: MemoryObjectSendStream[Fetched]) -> None:
        async with out:
            for unit in waiting:
                try:
                    result = await fetch(unit, out.send)
                except (FetchError, UnsafeLinkError) as error:
                    result = UnitResult(key=unit.key, state=UnitState.FAILED, reason=str(error))
                await out.send(Fetched(result=result))

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write_all, receive, store, on_batch, inspect)
            async with send:
                for _ in range(min(workers, len(units))):
                    tasks.start_soon(work, send.clone())
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that stopped the tasks: the group's others are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _write_all(
    receive: MemoryObjectReceiveStream[Fetched], store: RunStore, on_batch: OnBatch, inspect: Inspect
) -> None:
    async with receive:
        async for first in receive:
            pieces = await _gathered(first, receive)
            records = [record for piece in pieces for record in piece.records]
            inspect(records)
            results = [piece.result for piece in pieces if piece.result is not None]
            await store.write(
                Batch(
                    records=records,
                    deletions=[deletion for piece in pieces for deletion in piece.deletions],
                    quarantined=[item for piece in pieces for item in piece.quarantined],
                    results=results,
                    documents=[document for piece in pieces for document in piece.documents],
                    aliases=[alias for piece in pieces for alias in piece.aliases],
                )
            )
            on_batch(results, len(records))


async def _gathered(first: Fetched, receive: MemoryObjectReceiveStream[Fetched]) -> list[Fetched]:
    """What is there, up to a full batch; and where that is little, what comes within LINGER_S."""
    pieces, size, count = [first], first.size, len(first.records)
    with anyio.move_on_after(LINGER_S):
        while size < BATCH_BYTES and count < BATCH_RECORDS:
            try:
                piece = receive.receive_nowait() if size >= ENOUGH_BYTES else await receive.receive()
            except (anyio.EndOfStream, anyio.WouldBlock):
                break
            pieces.append(piece)
            size += piece.size
            count += len(piece.records)
    return pieces
