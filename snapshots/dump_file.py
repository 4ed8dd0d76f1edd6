"""The file that a dump of Postgres is written to: it appears only when it is whole, and only for the account that writes it.

`backup` fills it with a whole store, `moving` with one tenant.
"""

from __future__ import annotations

import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snapshots.errors import StoreError

_MAGIC = b"PGDMP"  # how pg_dump's custom format begins
_PART = ".backup-part"


def require_dump(file: Path, writers: str) -> None:
    """Raise StoreError unless the file can be read and is such a dump. `writers`: the commands that write one."""
    with file_border(file), file.open("rb") as read:
        if read.read(len(_MAGIC)) != _MAGIC:
            raise StoreError(f"{file} is not a backup that {writers} wrote.")


def require_new_file(file: Path) -> None:
    """Raise StoreError if a dump cannot get this name, since a folder has it."""
    with file_border(file):
        if file.is_dir():
            raise StoreError(f"{file} is a folder: name the file to write, and nothing was written.")


@contextmanager
def part_of(file: Path) -> Iterator[Path]:
    """An empty file beside another, for this account only, which is gone at the end unless it was renamed.

    Those that killed calls have left there are deleted: nobody holds their locks.
    """
    prefix = f".{file.name}."
    with file_border(file):
        for left in file.parent.glob(f"{glob.escape(prefix)}*{_PART}"):
            _delete_unless_locked(left)
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=_PART, dir=file.parent)  # mode 0600
    with suppress(OSError):  # a file system without locks keeps what is left there
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


def _delete_unless_locked(part: Path) -> None:
    with suppress(OSError):  # another call's, or another account's
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
        finally:
            os.close(descriptor)


@contextmanager
def file_border(path: Path) -> Iterator[None]:
    """Raise StoreError for what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror}. Check the folder and its permissions, and run the command again."
        ) from error
