"""Run as a process of its own: migrates all tenants and says the name of each that is done; somebody kills it."""

from __future__ import annotations

import sys

import anyio

from snapshots.tenants import open_tenants
from tests.fix_store import TESTER


async def main(url: str) -> None:
    async with open_tenants(url, TESTER) as there:
        async for one in there.migrate():
            sys.stdout.write(f"{one.name}\n")
            sys.stdout.flush()


anyio.run(main, sys.argv[1])
