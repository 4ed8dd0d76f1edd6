"""Backs up an embedded store into one file, restores a store from such a file, and moves a store to a newer Postgres by both.

An administrator backs up any other server with its own tools (docs/store.md). `embedded` runs the server, `tenants` notes a
backup in each audit.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from snapshots.actor import Actor
from snapshots.dump_file import file_border, part_of, require_dump, require_new_file
from snapshots.embedded import (
    DATA,
    FORMER,
    MAJOR,
    check_version,
    embedded_postgres,
    programs_of,
    stop_abandoned,
    unused,
)
from snapshots.errors import StoreError
from snapshots.tenants import open_tenants

_MAKING = ".restoring"


def back_up(directory: Path, file: Path, actor: Actor) -> int:
    """Write the embedded store of a directory to a file, as of one moment, even while others use it; return its size in bytes.

    The audit of each tenant has the backup before anything is read. The file appears only when it is whole, and only for this
    account; a call that was killed leaves a part of it under another name, which the next one deletes. Blocks.

    Raises:
        StoreError: there is no store, the file could not be written, or a tenant's audit cannot note the backup.
    """
    if not (directory / DATA / "PG_VERSION").exists():
        raise StoreError(f"there is no embedded store in {directory} to back up.")
    require_new_file(file)
    with part_of(file) as part:
        with embedded_postgres(directory) as url:
            noted = anyio.run(_note, url, actor, ())
            _dump(programs_of(directory), url, part)
            with file_border(file), part.open("rb") as written:
                os.fsync(written.fileno())
            anyio.run(_note, url, actor, noted)  # tenants that were made meanwhile
        with file_border(file):
            size = part.stat().st_size
            part.replace(file)
    return size


def restore(file: Path, directory: Path) -> None:
    """Restore a backup as an embedded store in a directory, which has no store before and a whole one after. Blocks.

    The next command that opens the store creates the tenants' roles again.

    Raises:
        StoreError: the directory has a store, or another restore makes one; or the file cannot be read, is no backup, or is
            damaged.
    """
    require_dump(file, "`chartferry store backup`")
    with file_border(directory):
        is_used = directory.exists() and any(directory.iterdir())
    if is_used:
        raise StoreError(
            f"{directory} is not empty: a backup is restored beside a store, never over it. Name an empty folder in store.url."
        )
    making = directory.with_name(directory.name + _MAKING)
    with _alone_in(making):
        _make(file, making, directory)


def upgrade(directory: Path, programs: Path | None = None) -> Path | None:
    """Move the embedded store of a directory to this version's Postgres; None: nothing to move.

    The former data stay, in the folder that is returned. A call that was killed has changed nothing, or the next call
    continues it. `programs`: the folder of the programs of the Postgres that wrote the store. Blocks.

    Raises:
        StoreError: there is no store, or somebody uses it.
        StoreUnavailableError: the programs of its Postgres are not at hand.
    """
    data = directory / DATA
    left = sorted(directory.glob(f"{FORMER}*"))
    if left and not data.exists():
        with file_border(directory), unused(directory):
            left[-1].rename(data)
    if not (data / "PG_VERSION").exists():
        raise StoreError(f"there is no embedded store in {directory} to upgrade.")
    version = (data / "PG_VERSION").read_text().strip()
    if version == MAJOR:
        return None
    if programs is not None:
        check_version(programs, version)
    former = directory / f"{FORMER}{version}"
    making = directory.with_name(directory.name + _MAKING)
    with _alone_in(making):
        try:
            with (
                part_of(directory) as dump,
                embedded_postgres(directory, programs) as old,
                embedded_postgres(making) as new,
            ):
                # the server's own pg_dump: Debian's Postgres 15.20 marks each column with an option (pg_attver) that only its
                # pg_dump leaves out, and no other server takes
                _dump(programs or programs_of(directory), old, dump)
                _fill(making, new, dump)
            with file_border(directory), unused(directory):
                data.rename(former)
                (making / DATA).rename(data)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return former


async def _note(url: str, actor: Actor, noted: Collection[str]) -> list[str]:
    async with open_tenants(url, actor) as there:
        return await there.note_backup(noted)


def _dump(programs: Path, url: str, file: Path) -> None:
    _run(programs / "pg_dump", "--format=custom", "--compress=1", f"--file={file}", f"--dbname={url}")


def _fill(directory: Path, url: str, file: Path) -> None:
    _run(
        programs_of(directory) / "pg_restore",
        *("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"),
        *(f"--dbname={url}", str(file)),
    )


def _make(file: Path, making: Path, directory: Path) -> None:
    try:
        with embedded_postgres(making) as url:
            _fill(making, url, file)
        with file_border(directory):
            directory.mkdir(parents=True, exist_ok=True)
            making.replace(directory)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


@contextmanager
def _alone_in(making: Path) -> Iterator[None]:
    """Lock the folder in which a store is made, and empty it of what a killed call left there; the kernel releases the lock."""
    with file_border(making):
        making.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(making, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another restore is in progress in {making}; wait until it ends.") from None
        stop_abandoned(making)
        with file_border(making):
            for left in making.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
        yield
    finally:
        os.close(descriptor)


def _run(program: Path, *args: str) -> None:
    """Run one of the server's programs; its words are not quoted, since those about a row have the row."""
    with file_border(program):
        done = subprocess.run(  # noqa: S603 - the server's own program, arguments without a shell
            [str(program), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            umask=0o077,
            check=False,
        )
    if done.returncode:
        raise StoreError(
            f"{program.name} ended with {done.returncode}: the disk may be full, or the file damaged. Nothing was changed; "
            "check the free space, and run the command again."
        )
