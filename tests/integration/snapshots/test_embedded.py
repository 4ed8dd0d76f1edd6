"""The embedded server's life: shared by processes, survives their deaths, leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import psutil
import psycopg
import pytest
from psycopg import conninfo, sql

from snapshots.embedded import MAX_SOCKET_PATH, SERVER_USER, embedded_postgres, shared_buffers_mb
from snapshots.errors import StoreUnavailableError
from snapshots.selection import Selection
from tests.fix_store import opened_store

ROOT = Path(__file__).parents[3]
NOBODY = 65534


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short directory of this test's own, in a folder that every account may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    yield folder / "store"
    shutil.rmtree(folder)


@contextmanager
def client(directory: Path, *args: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that holds the server; gives what it says of it: URL, when the server started, where its data is."""
    command = [sys.executable, "-m", "tests.integration.snapshots.embedded_client", str(directory), *args]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        yield process, process.stdout.readline().rstrip("\n").split("\t")
        assert process.stdin is not None
        process.stdin.close()


def runs(directory: Path) -> bool:
    return (directory / "data" / "postmaster.pid").exists()


def test_processes_share_a_server_and_the_last_one_stops_it(directory: Path):
    with client(directory) as (_, first):
        with client(directory) as (_, second):
            assert first == second
        assert runs(directory)
    assert not runs(directory)


def test_the_server_outlives_a_killed_client_and_the_next_one_stops_it(directory: Path):
    with client(directory) as (process, first):
        process.kill()
        process.wait()
        assert runs(directory)
    with client(directory) as (_, second):
        assert first == second
    assert not runs(directory)


def test_a_server_that_was_killed_recovers_at_the_next_start(directory: Path):
    with embedded_postgres(directory) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
        number = int((directory / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(number, 9)
        _until_deaf(url)
        with psycopg.connect(_revived(directory), autocommit=True) as conn:
            assert conn.execute("SELECT n FROM kept").fetchone() == (7,)
    assert not runs(directory)


def _until_deaf(url: str) -> None:
    """Wait until the killed server's socket refuses: signals arrive when they arrive."""
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(f"{conninfo.conninfo_to_dict(url)['host']}/.s.PGSQL.5432")
            except OSError:
                return


def _revived(directory: Path) -> str:
    with embedded_postgres(directory) as url:
        return url


def test_a_stale_pid_file_naming_a_foreign_process_does_not_prevent_the_start(directory: Path):
    with embedded_postgres(directory):
        text = (directory / "data" / "postmaster.pid").read_text()
    lines = text.splitlines()
    lines[0] = str(os.getppid())
    (directory / "data" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    with embedded_postgres(directory) as url, psycopg.connect(url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_an_unfinished_first_start_is_restarted(directory: Path):
    (directory / "making").mkdir(parents=True)
    (directory / "making" / "PG_VERSION").write_text("18\n")
    with embedded_postgres(directory) as url, psycopg.connect(url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_long_directory_gets_a_private_socket_elsewhere(directory: Path):
    deep = directory / ("d" * 60) / ("e" * 60)
    with embedded_postgres(deep) as url, psycopg.connect(url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        folder = Path(str(conninfo.conninfo_to_dict(url)["host"]))
        assert len(str(folder)) < MAX_SOCKET_PATH
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    shutil.rmtree(folder)


def test_durability_is_on_and_errors_in_the_log_quote_no_data(directory: Path):
    with embedded_postgres(directory) as url, psycopg.connect(url, autocommit=True) as conn:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert conn.execute("SELECT current_setting(%s)", (name,)).fetchone() == ("on",)
        with pytest.raises(psycopg.DataError):
            conn.execute("""SELECT '{"name": Jane}'::jsonb""")
    assert "Jane" not in (directory / "server.log").read_text()


LOGIN = """
SELECT session_user, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls, rolinherit, current_setting('temp_file_limit'),
    ARRAY(SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = l.oid ORDER BY 1)
FROM pg_roles l WHERE l.rolname = session_user
"""


def test_a_tenants_sessions_log_in_as_it_and_never_as_the_superuser(directory: Path):
    async def look() -> None:
        for tenant in ("north", "south"):
            async with opened_store(f"embedded:{directory}", tenant) as store, store.snapshot(Selection()) as snapshot:
                login, may_more, inherits, limit, roles = (await snapshot.fetch(sql.SQL(LOGIN)))[0]
                names = [f"cf_{kind}_{tenant}_{login[-8:]}" for kind in "rw"]
                assert (login, may_more, inherits, roles) == (f"cf_l_{tenant}_{login[-8:]}", False, False, names)
                await snapshot.limit(seconds=9, memory_mb=1)
                assert (await snapshot.fetch(sql.SQL("SHOW temp_file_limit")), limit) == ([("64MB",)], "-1")

    anyio.run(look)


def test_an_ordinary_user_runs_the_server_as_itself(directory: Path):
    directory.parent.chmod(0o777)
    user = [str(NOBODY)] if os.geteuid() == 0 else []
    with client(directory, *user) as (_, words):
        assert words[2] == str(directory / "data")
        assert (directory / "data").stat().st_uid == (NOBODY if user else os.geteuid())
    assert not runs(directory)


def test_the_server_runs_as_the_user_or_for_root_as_another_account(directory: Path):
    with embedded_postgres(directory):
        number = int((directory / "data" / "postmaster.pid").read_text().split()[0])
        root = os.geteuid() == 0
        expected = pwd.getpwnam(SERVER_USER).pw_uid if root else os.geteuid()
        assert expected != 0
        assert psutil.Process(number).uids().effective == (directory / "data").stat().st_uid == expected


def test_a_directory_that_cannot_be_created_is_reported_with_the_next_step(directory: Path):
    directory.parent.joinpath("file").touch()
    with (
        pytest.raises(StoreUnavailableError, match="embedded:DIR"),
        embedded_postgres(directory.parent / "file" / "store"),
    ):
        pass


def test_the_server_sizes_its_buffers_by_the_machine(directory: Path):
    with embedded_postgres(directory) as url, psycopg.connect(url) as conn:
        row = conn.execute("SELECT setting::int * 8 / 1024 FROM pg_settings WHERE name = 'shared_buffers'").fetchone()
    memory = psutil.virtual_memory().total
    assert row is not None
    assert 128 <= row[0] <= shared_buffers_mb(memory)  # a container may use less than the machine has
