"""The owner's work on tenants: making, migrating, moving and deleting them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import anyio
import psycopg
import pytest
from psycopg import sql

from snapshots.errors import ConnectionBusyError, MigrationError, SchemaCommentError, StoreError, StoreUnavailableError
from snapshots.migrate import migrations
from snapshots.selection import Selection
from snapshots.store import Store
from snapshots.tenancy import tenant_schema
from snapshots.tenants import Migrated, Tenants, open_tenants
from snapshots.walls import Walls, find_walls
from tests.fix_store import TESTER, opened_store
from tests.integration.snapshots.stored import full_run, lines, person, record, scope, search
from tests.passing_postgres import PROGRAMS, passing_postgres

pytestmark = pytest.mark.anyio


def owner(url: str, tenant: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(tenant_schema(tenant))))
        for statement in statements:
            conn.execute(statement)  # type: ignore[call-overload]  # a test's own


def roles(url: str, tenant: str) -> int:
    with psycopg.connect(url) as conn:
        found = conn.execute("SELECT count(*) FROM pg_roles WHERE rolname ~ %s", [f"^cf_._{tenant}_"]).fetchone()
    return found[0] if found else 0


def role_of(url: str, tenant: str, kind: str) -> str:
    with psycopg.connect(url) as conn:
        found = conn.execute("SELECT rolname FROM pg_roles WHERE rolname ~ %s", [f"^cf_{kind}_{tenant}_"]).fetchone()
    assert found is not None
    return str(found[0])


def make_as_of_version(url: str, tenant: str, version: int) -> None:
    """Make a tenant's schema what the program of an earlier version left."""
    schema = f'"{tenant_schema(tenant)}"'
    steps = migrations()[:version]
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"CREATE SCHEMA {schema}")  # type: ignore[call-overload]
    record_of_steps = "version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()"
    noted = [f"INSERT INTO schema_migration (version, name) VALUES ({one.version}, '{one.name}')" for one in steps]
    owner(url, tenant, f"CREATE TABLE schema_migration ({record_of_steps})", *(one.statements for one in steps), *noted)


async def migrated(there: Tenants, *names: str) -> list[Migrated]:
    return [one async for one in there.migrate(names)]


async def current(url: str) -> list[str]:
    """The tenants that are migrated, once the server answers again."""
    while True:
        with suppress(StoreError):
            async with open_tenants(url, TESTER) as there:
                return [one.name for one in await there.existing() if one.is_current]


def crash(url: str, condition: str = "pid = pg_backend_pid()") -> bool:
    """Kill a process of the server, if there is one: it ends all others, and recovers from its log."""
    with closing(psycopg.connect(url)) as conn:
        found = conn.execute(f"SELECT pid FROM pg_stat_activity WHERE {condition}").fetchone()  # type: ignore[call-overload]
        if found is not None:
            os.kill(found[0], signal.SIGKILL)
    return found is not None


async def crash_when_it_waits(url: str) -> None:
    while not crash(url, "wait_event_type = 'Lock'"):
        await anyio.lowlevel.checkpoint()


async def test_tenants_migrate_separately_and_an_interrupted_call_continues_with_the_rest(store_url: str) -> None:
    async with open_tenants(store_url, TESTER) as there:
        for name in ("b-newer", "d"):
            assert await there.add(name)
        owner(store_url, "b-newer", "INSERT INTO schema_migration (version, name) VALUES (9999, 'from the future')")
        for name in ("a", "c"):
            make_as_of_version(store_url, name, 9)
        owner(store_url, "d", "ALTER TABLE run DISABLE ROW LEVEL SECURITY")
        assert [one.name for one in await there.existing() if one.is_current] == ["default"]
        async for one in there.migrate():
            assert one == Migrated("a", changed=True)
            break
        done = {one.name: one for one in await migrated(there)}
        assert [name for name, one in done.items() if one.changed] == ["c", "d"]
        assert isinstance(done["b-newer"].error, MigrationError)
        assert not any(one.changed for one in await migrated(there))
        assert [one.name for one in await there.existing() if not one.is_current] == ["b-newer"]
        owner(store_url, "d", "DROP POLICY tenant ON connection")  # of which nothing would be read then
        assert await migrated(there, "d") == [Migrated("d", changed=True)]
        with pytest.raises(StoreError, match=r"no tenant e; there are: a, b-newer, c, d, default"):
            await migrated(there, "a", "e")


async def test_a_killed_migration_has_migrated_whole_tenants_and_the_next_one_finishes(store_url: str) -> None:
    for name in ("a", "b", "c"):
        make_as_of_version(store_url, name, 14)
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'tenant_b.audit_event'::regclass"
    with psycopg.connect(store_url, autocommit=True) as watcher:
        with psycopg.connect(store_url) as reader:
            # the migration then waits in the midst of its statements
            reader.execute("SELECT FROM tenant_b.audit_event")
            command = [sys.executable, "-m", "tests.integration.snapshots.killed_migration", store_url]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: ASYNC220 - it is killed
                assert child.stdout is not None
                assert child.stdout.readline() == "a\n"
                while watcher.execute(blocked).fetchone() == (0,):
                    pass
                child.kill()
        async with open_tenants(store_url, TESTER) as there:
            assert {one.name: one.is_current for one in await there.existing() if one.name != "default"} == {
                "a": True,
                "b": False,
                "c": False,
            }
            assert [one.name for one in await migrated(there) if one.changed] == ["b", "c"]
            assert all(one.is_current for one in await there.existing())


async def test_a_server_that_crashes_between_and_within_tenants_has_migrated_whole_ones_and_the_next_call_finishes() -> (
    None
):
    names = ["a", "b", "c", "d", "e"]
    with passing_postgres() as url:
        for name in names:
            make_as_of_version(url, name, 30)
        async with open_tenants(url, TESTER) as there:
            migrating = there.migrate()
            assert await anext(migrating) == Migrated("a", changed=True)
            crash(url)
            with pytest.raises(StoreUnavailableError):
                await anext(migrating)
        assert await current(url) == ["a"]
        with closing(psycopg.connect(url)) as reader:
            reader.execute("SELECT FROM tenant_c.rival")  # c's migration waits in the midst of its statements
            async with open_tenants(url, TESTER) as there, anyio.create_task_group() as group:
                group.start_soon(crash_when_it_waits, url)
                with pytest.raises(StoreUnavailableError):
                    await migrated(there)
        assert await current(url) == ["a", "b"]
        async with open_tenants(url, TESTER) as there:
            assert [one for one in await migrated(there) if one.changed] == [Migrated(n, changed=True) for n in "cde"]
            assert not any(one.changed or one.error for one in await migrated(there))
        assert await current(url) == names


async def test_a_role_regains_a_lost_right_at_the_owners_next_command(store_url: str) -> None:
    async with open_tenants(store_url, TESTER) as there:
        await there.add("stripped")
        reader = role_of(store_url, "stripped", "r")
        owner(store_url, "stripped", f'REVOKE SELECT ON run FROM "{reader}"')
        await migrated(there, "stripped")
    with psycopg.connect(store_url) as conn:
        assert conn.execute("SELECT has_table_privilege(%s, 'tenant_stripped.run', 'SELECT')", [reader]).fetchone() == (
            True,
        )


async def test_a_foreign_comment_on_a_schema_is_refused_and_not_replaced(store_url: str) -> None:
    async with open_tenants(store_url, TESTER) as there:
        await there.add("d")
        owner(store_url, "d", "COMMENT ON SCHEMA tenant_d IS 'the charts of D'")
        assert [one.name for one in await there.existing() if not one.is_current] == ["d"]
        (failed,) = await migrated(there, "d")
        assert isinstance(failed.error, SchemaCommentError)
        with pytest.raises(SchemaCommentError, match=r'COMMENT ON SCHEMA "tenant_d" IS NULL'):
            await there.drop("d")
        with psycopg.connect(store_url) as conn:
            comment = conn.execute("SELECT obj_description('tenant_d'::regnamespace)").fetchone()
        assert comment == ("the charts of D",)
        owner(store_url, "d", "COMMENT ON SCHEMA tenant_d IS NULL")
        assert await migrated(there, "d") == [Migrated("d", changed=True)]


async def test_sql_views_of_an_earlier_store_read_what_the_policies_guard_after_the_upgrade(store_url: str) -> None:
    make_as_of_version(store_url, "older", 14)
    owner(
        store_url,
        "older",
        "CREATE VIEW mine WITH (security_invoker = true) AS SELECT r.id, r.body FROM resource r WHERE r.deleted_at IS NULL",
    )
    async with opened_store(store_url, "older") as store:
        await full_run(await store.begin_run(scope()), [record("a")], [search()])
    with psycopg.connect(store_url) as conn:
        assert conn.execute("SELECT id FROM tenant_older.mine").fetchall() == [("a",)]
        options = conn.execute("SELECT reloptions FROM pg_class WHERE oid = 'tenant_older.mine'::regclass").fetchone()
        assert options == (["security_invoker=true"],)
        reads = conn.execute(
            "SELECT DISTINCT d.refobjid::regclass::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid"
            " WHERE r.ev_class = 'tenant_older.mine'::regclass AND d.refclassid = 'pg_class'::regclass"
            " AND d.refobjid <> r.ev_class"
        ).fetchall()
    assert reads == [("tenant_older.resource",)]


async def walls_of(url: str, tenant: str = "south") -> Walls:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        return await find_walls(conn, tenant_schema(tenant))


# what an administrator may do by mistake -> how it is closed
BREACHES: dict[str, str | tuple[str, ...]] = {
    "ALTER ROLE {reader} BYPASSRLS": "ALTER ROLE {reader} NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION",
    "ALTER ROLE {writer} REPLICATION": "ALTER ROLE {writer} NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION",
    "ALTER TABLE tenant_south.run OWNER TO {reader}": "ALTER TABLE tenant_south.run OWNER TO {owner}",
    "ALTER SCHEMA tenant_south OWNER TO {northern}": "ALTER SCHEMA tenant_south OWNER TO {owner}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA tenant_south GRANT SELECT, DELETE ON TABLES TO PUBLIC": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA tenant_south REVOKE DELETE, SELECT ON TABLES FROM PUBLIC"
    ),
    "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO PUBLIC": (
        *("ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE USAGE ON SEQUENCES FROM PUBLIC",) * 3,  # of each tenant
    ),
    "GRANT {writer} TO {reader}": "REVOKE {writer} FROM {reader}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA tenant_south TO {reader}": "REVOKE SELECT ON {partitions} FROM {reader}",
    "GRANT SELECT ON tenant_south.resource_patient TO PUBLIC": "REVOKE SELECT ON tenant_south.resource_patient FROM PUBLIC",
    "GRANT DELETE ON tenant_south.audit_event TO {writer}": "REVOKE DELETE ON tenant_south.audit_event FROM {writer}",
    "GRANT USAGE ON SCHEMA tenant_south TO PUBLIC": "REVOKE USAGE ON SCHEMA tenant_south FROM PUBLIC",
    "CREATE POLICY mine ON tenant_south.run USING (true)": "DROP POLICY mine ON tenant_south.run",
    "GRANT UPDATE (reason, actor), INSERT (at, actor) ON tenant_south.audit_event TO {reader}": (
        "REVOKE INSERT (at) ON tenant_south.audit_event FROM {reader}",
        "REVOKE UPDATE (actor, reason) ON tenant_south.audit_event FROM {reader}",
    ),
    "GRANT SELECT (body) ON tenant_south.resource_stored TO PUBLIC": (
        "REVOKE SELECT (body) ON tenant_south.resource_stored FROM PUBLIC"
    ),
    "GRANT INSERT, UPDATE, DELETE ON tenant_south.resource TO {reader}": (
        "REVOKE DELETE ON tenant_south.resource FROM {reader}",
        "REVOKE INSERT ON tenant_south.resource FROM {reader}",
        "REVOKE UPDATE ON tenant_south.resource FROM {reader}",
    ),
    "GRANT INSERT ON tenant_south.audit_event TO {writer}": "REVOKE INSERT ON tenant_south.audit_event FROM {writer}",
    "GRANT UPDATE ON tenant_south.sealing_key TO {writer}": "REVOKE UPDATE ON tenant_south.sealing_key FROM {writer}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA tenant_south TO {reader}": "REVOKE USAGE ON SEQUENCE {sequences} FROM {reader}",
    "GRANT SELECT ON tenant_south.run TO {reader} WITH GRANT OPTION": (
        "REVOKE GRANT OPTION FOR SELECT ON tenant_south.run FROM {reader}"
    ),
    "GRANT CREATE ON SCHEMA tenant_south TO {writer}": "REVOKE CREATE ON SCHEMA tenant_south FROM {writer}",
    "GRANT USAGE ON SCHEMA tenant_south TO {northern}; GRANT SELECT ON tenant_south.resource TO {northern}": (
        "REVOKE SELECT ON tenant_south.resource FROM {northern}",
        "REVOKE USAGE ON SCHEMA tenant_south FROM {northern}",
    ),
    "GRANT {reader} TO {northern}": "REVOKE {reader} FROM {northern}",
}
PARTITIONS = (
    "SELECT string_agg(oid::regclass::text, ', ' ORDER BY oid::regclass::text) FROM pg_class"
    " WHERE relnamespace = 'tenant_south'::regnamespace AND relispartition AND relkind IN ('r', 'p')"
)
SEQUENCES = PARTITIONS.replace("relispartition AND relkind IN ('r', 'p')", "relkind = 'S'")


@pytest.mark.parametrize("mistake", BREACHES)
async def test_what_somebody_opened_in_a_tenants_walls_is_listed_with_what_closes_it(
    fresh_url: str, mistake: str
) -> None:
    bi = f"bi_{os.getpid()}"  # test processes may share an outside server
    async with open_tenants(fresh_url, TESTER) as there:
        await there.add("south")
        await there.add("north")
        with psycopg.connect(fresh_url, autocommit=True) as conn:
            reader, writer, _ = (await walls_of(fresh_url)).names or ("", "", "")
            names = {
                "reader": reader,
                "writer": writer,
                "northern": ((await walls_of(fresh_url, "north")).names or ("",))[0],
                "partitions": (conn.execute(PARTITIONS).fetchone() or ("",))[0],
                "sequences": (conn.execute(SEQUENCES).fetchone() or ("",))[0],
                "owner": (conn.execute("SELECT current_user").fetchone() or ("",))[0],
            }
            conn.execute(mistake.format(**names))  # type: ignore[call-overload]
            conn.execute(
                f"CREATE ROLE {bi}; GRANT USAGE ON SCHEMA tenant_south TO {bi}; GRANT SELECT ON tenant_south.run TO {bi};"
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA tenant_south GRANT SELECT ON TABLES TO {bi}"
            )
            try:
                breaches = [one for tenant in await there.existing() for one in tenant.breaches]
                closing_it = BREACHES[mistake]
                expected = (closing_it,) if isinstance(closing_it, str) else closing_it
                assert breaches == [one.format(**names) for one in expected]
                for statement in breaches:
                    conn.execute(statement)  # type: ignore[call-overload]
                assert {one.breaches for one in await there.existing()} == {()}
            finally:
                conn.execute(f"DROP OWNED BY {bi}; DROP ROLE {bi}")


async def test_a_policy_that_lets_more_rows_pass_than_ours_is_replaced_at_the_owners_next_command(
    fresh_url: str,
) -> None:
    async with open_tenants(fresh_url, TESTER) as there:
        await there.add("south")
        for odd in (
            "ALTER POLICY tenant ON tenant_south.run USING (true)",
            "ALTER POLICY tenant ON tenant_south.run TO CURRENT_USER",
            "ALTER POLICY unsealed ON tenant_south.audit_patient WITH CHECK (true)",
            "ALTER POLICY unsealed ON tenant_south.audit_seal WITH CHECK (number <= last_event)",
            "ALTER POLICY unsealed ON tenant_south.audit_seal TO CURRENT_USER",
        ):
            with psycopg.connect(fresh_url, autocommit=True) as conn:
                conn.execute(odd)  # type: ignore[call-overload]
            assert [one.is_current for one in await there.existing() if one.name == "south"] == [False]
            assert not (await walls_of(fresh_url)).stand
            assert await there.add("south")
            assert (await walls_of(fresh_url)).stand
            assert not await there.add("south")


async def test_a_tenant_is_deleted_with_its_roles_and_the_others_stay(store_url: str) -> None:
    async with open_tenants(store_url, TESTER) as there:
        assert await there.add("gone")
        assert not await there.add("gone")
        assert roles(store_url, "gone") == 2
        assert await there.drop("gone") == []
        assert roles(store_url, "gone") == 0
        assert [one.name for one in await there.existing()] == ["default"]
        with pytest.raises(StoreError, match="no tenant gone"):
            await there.drop("gone")


async def test_a_tenant_whose_deletion_fails_is_unchanged(store_url: str) -> None:
    async with open_tenants(store_url, TESTER) as there:
        await there.add("gone")
        with psycopg.connect(store_url) as other:
            lock = "SELECT pg_advisory_xact_lock(hashtextextended('chartferry shared rights', 0))"
            other.execute(lock)  # held while another tenant is created
            with pytest.raises(ConnectionBusyError, match="nothing was deleted"):
                await there.drop("gone")
        assert [one.name for one in await there.existing() if one.is_current] == ["default", "gone"]
        assert await there.drop("gone") == []
        assert roles(store_url, "gone") == 0


async def test_a_tenant_is_not_deleted_while_a_run_is_in_progress(store_url: str, store: Store) -> None:
    async with open_tenants(store_url, TESTER) as there:
        async with await store.begin_run(scope()) as run:
            with pytest.raises(ConnectionBusyError, match=f"run {run.id} of tenant default is in progress"):
                await there.drop("default")
        assert [one.name for one in await there.existing()] == ["default"]


async def test_a_tenant_is_not_deleted_while_somebody_reads_it(store_url: str, store: Store) -> None:
    await full_run(await store.begin_run(scope()), [record("a")], [search()])
    async with open_tenants(store_url, TESTER) as there:
        async with store.snapshot(Selection()) as snapshot:
            assert await snapshot.types() == {"Observation": 1}
            with pytest.raises(ConnectionBusyError, match="tenant default is in use, and nothing was deleted"):
                await there.drop("default")
        await there.drop("default")
        assert await there.existing() == []


async def test_a_tenant_moves_to_another_server_by_a_dump_of_its_schema(store_url: str, tmp_path: Path) -> None:
    async with opened_store(store_url, "mover") as store:
        await full_run(await store.begin_run(scope()), [person("p1"), record("a", 1.5)], [search()])
    dump = tmp_path / "mover.dump"
    await anyio.run_process([str(PROGRAMS / "pg_dump"), "-Fc", "-n", "tenant_mover", "-f", str(dump), store_url])
    with passing_postgres() as other:
        await anyio.run_process([str(PROGRAMS / "pg_restore"), "--no-owner", "--no-privileges", "-d", other, str(dump)])
        async with open_tenants(other, TESTER) as there:
            assert [(one.name, one.is_current) for one in await there.existing()] == [("mover", False)]
            assert await migrated(there) == [Migrated("mover", changed=True)]
            assert [(one.name, one.is_current) for one in await there.existing()] == [("mover", True)]
        async with opened_store(store_url, "mover") as here, opened_store(other, "mover") as moved:
            assert await lines(moved) == await lines(here)
            assert (await moved.audit.verify()).faults == ()
            await full_run(await moved.begin_run(scope()), [record("b")], [search()])
            assert [one.status for one in await moved.runs()] == ["complete", "complete"]
