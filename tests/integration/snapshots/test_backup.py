"""A backup reads every chart of every tenant, and each tenant's audit says so."""

from __future__ import annotations

import fcntl
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import psycopg
import pytest

from snapshots.actor import Actor
from snapshots.audit_event import Action, ReadEvent
from snapshots.backup import back_up
from snapshots.embedded import embedded_postgres
from snapshots.errors import StoreError
from snapshots.store import open_store
from tests.integration.snapshots.stored import full_run, person, scope, search
from tests.user_site import until

ANA = Actor(name="ana", login="root", reason="nightly backup")
TENANTS = ("mercy", "south")


@pytest.fixture
def directory() -> Iterator[Path]:
    """The embedded store of two tenants, in a folder through which the server's account may pass."""
    made = Path(tempfile.mkdtemp(prefix="cf-", dir="/dev/shm"))
    made.chmod(0o755)
    with embedded_postgres(made / "store"):
        anyio.run(_fill, made / "store")
        yield made / "store"
    shutil.rmtree(made)


async def _fill(directory: Path) -> None:
    for tenant in TENANTS:
        async with open_store(f"embedded:{directory}", tenant, ANA) as store:
            await full_run(await store.begin_run(scope(connection=tenant)), [person("p1")], [search()])


async def _who_saw(directory: Path, tenant: str) -> list[ReadEvent]:
    async with open_store(f"embedded:{directory}", tenant, ANA) as store:
        assert (await store.audit.verify()).faults == ()
        return await store.audit.who_saw("p1")


def test_a_backup_is_in_the_audit_of_each_tenant_for_everyone_with_who_and_why(directory: Path) -> None:
    back_up(directory, directory.parent / "charts.dump", ANA)
    for tenant in TENANTS:
        (event,) = anyio.run(_who_saw, directory, tenant)
        assert (event.action, event.connections, event.everyone) == (Action.BACKUP, (tenant,), True)
        assert (event.actor, event.reason) == ("ana", "nightly backup")


def test_a_backup_that_a_tenants_audit_cannot_note_leaves_no_file(directory: Path) -> None:
    with embedded_postgres(directory) as url, psycopg.connect(url) as conn:
        conn.execute("DELETE FROM tenant_south.schema_migration WHERE version >= 36")
    with pytest.raises(StoreError, match=r"audit of tenant south cannot note a backup.*tenants migrate"):
        back_up(directory, directory.parent / "charts.dump", ANA)
    assert [one.name for one in directory.parent.iterdir()] == ["store"]


BACKING_UP = """
import sys
from pathlib import Path
from snapshots.actor import Actor
from snapshots.backup import back_up
back_up(Path(sys.argv[1]), Path(sys.argv[2]), Actor(name="ana"))
"""
DUMPING = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'"


def test_a_killed_backup_is_in_the_audit_and_the_next_one_deletes_what_it_left(directory: Path) -> None:
    file = directory.parent / "charts.dump"
    (another := file.with_name(".charts.dump.x.backup-part")).touch()
    command = [sys.executable, "-c", BACKING_UP, str(directory), str(file)]
    with embedded_postgres(directory) as url, psycopg.connect(url, autocommit=True) as watch, another.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        watch.execute("CREATE TABLE ours ()")
        with psycopg.connect(url) as conn, subprocess.Popen(command) as killed:
            conn.execute("LOCK TABLE ours")
            until(lambda: watch.execute(DUMPING).fetchone(), killed)
            killed.kill()
            watch.execute(f"SELECT pg_terminate_backend(pid) FROM ({DUMPING}) dumping (pid)")
        (left,) = set(directory.parent.glob(".charts.dump.*")) - {another}
        assert stat.S_IMODE(left.stat().st_mode) == 0o600
        for tenant in TENANTS:
            assert [(one.action, one.actor) for one in anyio.run(_who_saw, directory, tenant)][:1] == [
                (Action.BACKUP, "ana")
            ]
        back_up(directory, file, ANA)
    assert {one.name for one in directory.parent.iterdir()} == {"store", "charts.dump", another.name}


def test_a_backup_whose_file_cannot_get_its_name_is_in_the_audit_because_charts_were_read(directory: Path) -> None:
    file = directory.parent / "charts.dump"
    command = [sys.executable, "-c", BACKING_UP, str(directory), str(file)]
    with embedded_postgres(directory) as url, psycopg.connect(url, autocommit=True) as watch:
        watch.execute("CREATE TABLE ours ()")
        with subprocess.Popen(command, stderr=subprocess.PIPE) as backing_up:
            with psycopg.connect(url) as conn:
                conn.execute("LOCK TABLE ours")
                until(lambda: watch.execute(DUMPING).fetchone(), backing_up)
                file.mkdir()
            _, said = backing_up.communicate()
    assert b"Is a directory" in said
    assert [one.action for one in anyio.run(_who_saw, directory, "mercy")] == [Action.BACKUP]


def test_a_folder_is_refused_as_the_file_before_any_chart_is_read(directory: Path) -> None:
    with pytest.raises(StoreError, match="is a folder: name the file to write"):
        back_up(directory, directory.parent, ANA)
    assert anyio.run(_who_saw, directory, "mercy") == []
