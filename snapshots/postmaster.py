"""Whether the server of a data directory is alive and ready, by what it leaves behind: postmaster.pid and its socket.

`embedded` starts and stops it; the callers hold its locks.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

START_TIMEOUT_S = 300.0  # crash recovery replays up to max_wal_size before the server is ready
SOCKET_NAME = ".s.PGSQL.5432"
_POLL_S = 0.005
_BIRTH_S = 10.0  # by then a server has written its postmaster.pid, or never will


def is_alive(data: Path) -> bool:
    """Whether the directory's server runs: it listens, or is starting."""
    found = _postmaster(data)
    return found is not None and (_listens(found[1]) or _is_server_of(found[0], data))


def wait_ready(data: Path) -> Path | None:
    """Return the socket folder once the server accepts connections; None if it died or never started."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < START_TIMEOUT_S:
        found = _postmaster(data)
        if found is None and waited > _BIRTH_S:
            return None
        if found is not None and found[2] and _listens(found[1]):
            return found[1]
        if found is not None and not _is_server_of(found[0], data):
            return None
        time.sleep(_POLL_S)
    return None


def clear_stale(data: Path, socket_folder: Path) -> None:
    """Remove the lock files of a dead server whose process id is in use again: Postgres would see a living server and refuse.

    Another program may have the id now, or a zombie that a container's first process never reaps. If the id is free, the file
    stays: then Postgres itself checks that no process of the dead server is left. Here the shared memory shows that.
    """
    found = _postmaster(data)
    if found is not None and _exists(found[0]) and not _is_server_of(found[0], data):
        deadline = time.monotonic() + _BIRTH_S
        while _memory_in_use(data) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if not _memory_in_use(data):
            (data / "postmaster.pid").unlink()
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):  # this folder is the server's own, and it is dead
        (socket_folder / name).unlink(missing_ok=True)


def _postmaster(data: Path) -> tuple[int, Path, bool] | None:
    """Read (process id, socket folder, ready) from postmaster.pid; None if it is missing or incomplete."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), Path(lines[4]), lines[7].strip() == "ready"
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _listens(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(folder / SOCKET_NAME))
        except OSError:
            return False
    return True


def _is_server_of(pid: int, data: Path) -> bool:
    """Whether the process with that id is this directory's server, and not a later process with the same id."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        if Path("/proc/self").exists():
            return False
        command = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False).stdout  # noqa: S603, S607
    return os.fsencode(data) in command


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _memory_in_use(data: Path) -> bool:
    """Whether a process is still attached to the shared memory that postmaster.pid names (line 7: key and id)."""
    try:
        identity = (data / "postmaster.pid").read_text().splitlines()[6].split()[1]
        segments = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    except (OSError, IndexError):
        return False
    return any(fields[1] == identity and fields[6] != "0" for fields in segments)
