"""Run as a separate process: holds the embedded server of a directory until its input ends or it is killed.

With a user's number as second argument it first gives up being root for good.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg

from snapshots.embedded import embedded_postgres


def main(directory: str, user: str | None = None) -> None:
    if user is not None:
        psycopg.connect  # noqa: B018 - what is loaded lazily may be out of reach of an ordinary user afterwards
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    with embedded_postgres(Path(directory)) as url, psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute("SELECT pg_postmaster_start_time()::text, current_setting('data_directory')").fetchone()
        assert row is not None
        sys.stdout.write(f"{url}\t{row[0]}\t{row[1]}\n")
        sys.stdout.flush()
        sys.stdin.read()


main(*sys.argv[1:])
