"""Fetches pending units until none are left: some thousand at a time, since a ledger may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Collection

from connectors.core.errors import ConnectorError
from connectors.core.pipeline import FetchUnit, Notice, Noticed, run_units
from connectors.core.run import Run
from snapshots.unit import Unit, UnitKind

AT_ONCE = 20_000  # of the ledger in memory, 1 kB each; between two such parts the connections idle for 0.2 s


async def fetch_pending(
    run: Run,
    kinds: Collection[UnitKind],
    fetch: FetchUnit,
    *,
    doing: str | None,
    workers: int,
    let_in: Callable[[], bool],
    notice: Notice = Noticed,
    on_pending: Callable[[int], None] = lambda number: None,
) -> bool:
    """Fetch all units of these kinds, including those found meanwhile; return whether there were any.

    `doing` is shown to the user; `let_in`: whether this run's login was accepted before (`run_units`).

    Raises:
        ConnectorError: the store returns the same units again, although it should have settled them.
    """
    before: list[Unit] = []
    while pending := await run.store.pending(AT_ONCE, kinds):
        if pending == before:
            raise ConnectorError("The store did not settle the fetched units: they are pending again.")
        run.progress.units = max(run.progress.units, run.progress.units_done + len(pending))
        if doing is not None:
            run.show(doing)
        if not before:
            on_pending(len(pending))
        await run_units(
            pending, fetch, run.store, workers=workers, on_batch=run.settled, notice=notice, let_in=let_in()
        )
        before = pending
    return bool(before)
