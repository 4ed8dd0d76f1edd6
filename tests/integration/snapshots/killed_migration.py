"""Run as a separate process: migrates all tenants and prints the name of each finished one, until the test kills it."""

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
