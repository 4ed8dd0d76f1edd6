"""Run as a separate process: begins a run, commits one batch, leaves a second one open, says so and waits to be killed."""

from __future__ import annotations

import sys

import anyio

from snapshots.record import Batch
from tests.fix_store import opened_store
from tests.integration.snapshots.stored import record, scope, search, settled


async def main(url: str) -> None:
    async with opened_store(url) as store, await store.begin_run(scope()) as run:
        first, second, third = (search(patient=f"p{n}") for n in (1, 2, 3))
        await run.plan([first, second, third])
        await run.write(Batch(records=[record("a", 1), record("b", 1)], results=[settled(first)]))
        async with run._session.session.transaction(writes=True):
            await run._conn.execute("UPDATE unit SET state = 'settled'")
            sys.stdout.write(f"{run.id}\n")
            sys.stdout.flush()
            await anyio.sleep_forever()


anyio.run(main, sys.argv[1])
