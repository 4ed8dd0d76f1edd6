"""Two tenants of one server, and who tries to get across. Each attack is stopped by a wall of Postgres', not by our statements.

The attacker runs SQL of his own choice, as the tenant `north`: as a login that can become north's two roles and nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import anyio
import psycopg
import pytest
from psycopg import errors, sql

from snapshots.errors import StoreError, StoreQueryError, store_border
from snapshots.pool import SessionPool
from snapshots.record import Batch
from snapshots.selection import Selection
from snapshots.tenancy import TenantSession, tenant_schema
from snapshots.walls import Walls, find_breaches, find_walls
from tests.fix_store import TESTER, database, opened_store, url_of
from tests.integration.snapshots.stored import person, record, scope, search, settled

pytestmark = pytest.mark.anyio

SECRET = "southern-secret"


@dataclass(frozen=True)
class Site:
    """A database with the tenants north and south, the attacker's URL, and both tenants' walls as the attacker finds them."""

    url: str
    attacker_url: str
    north: Walls
    south: Walls


async def _stored(url: str, tenant: str, content: str) -> None:
    async with opened_store(url, tenant) as store, await store.begin_run(scope()) as run:
        await run.plan([search()])
        brought = [person("p1", content), record("o1", content)]
        await run.write(Batch(records=brought, results=[settled(search(), records=2)]))
        await run.finish(watermark=None)


async def _walls(url: str, tenant: str) -> Walls:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        return await find_walls(conn, tenant_schema(tenant))


@pytest.fixture(scope="module")
def site(store_server: str) -> Iterator[Site]:
    """The tables belong to a login that is no superuser, as on a site's own server."""
    suffix = secrets.token_hex(4)
    owner, attacker = f"owner_{suffix}", f"attacker_{suffix}"
    with psycopg.connect(store_server, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD '{owner}'")  # type: ignore[call-overload]
        admin.execute(f"CREATE ROLE {attacker} LOGIN NOINHERIT PASSWORD '{attacker}'")  # type: ignore[call-overload]
        name = f"walls_{suffix}"
        with database(store_server, name, f"OWNER {owner}") as url:
            admin.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")  # type: ignore[call-overload]
            owner_url = url_of(store_server, name, user=owner, password=owner)
            anyio.run(_stored, owner_url, "north", "northern")
            anyio.run(_stored, owner_url, "south", SECRET)
            walls = [anyio.run(_walls, owner_url, tenant) for tenant in ("north", "south")]
            assert all(one.stand for one in walls)
            names = [role for one in walls for role in (one.names or ())[:2]]
            with psycopg.connect(owner_url, autocommit=True) as conn:
                conn.execute(f'GRANT "{names[0]}", "{names[1]}" TO {attacker}')  # type: ignore[call-overload]
                conn.execute(HOLES.replace("READER", names[0]))  # type: ignore[call-overload]
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("ANALYZE")
            attacker_url = url_of(store_server, name, user=attacker, password=attacker)
            yield Site(url, attacker_url, *[anyio.run(_walls, attacker_url, tenant) for tenant in ("north", "south")])
        for role in [*names, owner, attacker]:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


# what an owner may do by mistake: a view and a function that have the owner's rights, in north's reach
HOLES = """
CREATE VIEW tenant_north.hole AS SELECT * FROM tenant_south.resource;
GRANT SELECT ON tenant_north.hole TO "READER";
CREATE SCHEMA shared;
GRANT USAGE ON SCHEMA shared TO PUBLIC;
CREATE FUNCTION shared.hole() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT body::text FROM tenant_south.resource';
"""


@pytest.fixture
async def attacker(site: Site, anyio_backend: str) -> AsyncIterator[TenantSession]:
    async with (
        SessionPool(site.attacker_url, "north", TESTER, walls=site.north, most=1) as pool,
        pool.session() as session,
    ):
        yield session


async def tried(session: TenantSession, statement: str, *, writes: bool = False) -> list[tuple[object, ...]]:
    """What statements of the attacker's give, one after the other in a transaction of north's."""
    async with session.transaction(writes=writes):
        found = await session.conn.execute(statement)  # type: ignore[call-overload]
        while found.nextset():
            pass
        return await found.fetchall() if found.description else []


def south_of(site: Site, statement: str) -> str:
    names = site.south.names
    assert names is not None
    return statement.replace("SOUTH_READER", f'"{names.reader}"').replace("SOUTH_WRITER", f'"{names.writer}"')


# what is tried, and Postgres refuses, as north's reader and as its writer
REFUSED = {
    "another schema by name": "SELECT body FROM tenant_south.resource",
    "another search_path": "SET LOCAL search_path = tenant_south; SELECT body FROM resource",
    "history by name": "SELECT body FROM tenant_south.resource_history",
    "a copy out": "COPY tenant_south.resource TO STDOUT",
    "the other tenant's role": "SET LOCAL ROLE SOUTH_READER; SELECT 1",
    "the other tenant's writer": "SET LOCAL ROLE SOUTH_WRITER; SELECT 1",
    "another login": "SET SESSION AUTHORIZATION SOUTH_READER; SELECT 1",
    "back to the login, which has no rights": "RESET ROLE; SELECT body FROM tenant_north.resource",
    "a partition of the other tenant": "SELECT body FROM tenant_south.resource_patient",
    "a partition of one's own, which has no policy": "SELECT body FROM resource_patient",
    "what COPY goes to": "SELECT body FROM resource_stored",
    "a sample of a partition": "SELECT body FROM tenant_south.resource_patient TABLESAMPLE SYSTEM (100)",
    "the statistics themselves": "SELECT stavalues1 FROM pg_statistic",
    "no policies": "SET LOCAL row_security = off; SELECT body FROM resource",
    "taking the guard away": "ALTER TABLE resource DISABLE ROW LEVEL SECURITY; SELECT 1",
    "a policy of one's own": "CREATE POLICY mine ON resource USING (true); SELECT 1",
    "a view of one's own": "CREATE VIEW mine AS SELECT 1; SELECT 1",
    "a function of one's own": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; SELECT 1",
    "a role of one's own": "CREATE ROLE mine; SELECT 1",
    "a file of the server": "SELECT pg_read_file('PG_VERSION')",
    "a program of the server": "COPY (SELECT 1) TO PROGRAM 'cat'",
    "altering the audit": "UPDATE audit_event SET actor = 'nobody'",
    "deleting from the audit": "DELETE FROM audit_patient",
    "altering a seal": "UPDATE audit_seal SET hash = ''",
    "an event at a moment of one's own": "INSERT INTO audit_event (at) VALUES ('2020-01-01')",
    "an event of another login": "INSERT INTO audit_event (login) VALUES ('chief')",
    "an event with the last number of all": "INSERT INTO audit_event (id) OVERRIDING SYSTEM VALUE VALUES (9000000000000000000)",
    "an event that says that others were pruned":
        "INSERT INTO audit_event (action, through) VALUES ('prune', 9000000000000000000)",
    "a temporary table of the login's": "RESET ROLE; CREATE TEMPORARY TABLE mine ()",
    "emptying the audit": "TRUNCATE audit_event; SELECT 1",
    "SQL within SQL": "SELECT query_to_xml('SELECT body FROM tenant_south.resource', true, true, '')",
}  # fmt: skip


@pytest.mark.parametrize("writes", [False, True], ids=["as reader", "as writer"])
@pytest.mark.parametrize("attack", REFUSED)
async def test_postgres_refuses_each_attack(site: Site, attacker: TenantSession, attack: str, writes: bool) -> None:
    refusal = errors.UndefinedTable if attack == "another search_path" else errors.InsufficientPrivilege
    with pytest.raises(refusal) as refused:
        await tried(attacker, south_of(site, REFUSED[attack]), writes=writes)
    assert SECRET not in str(refused.value)


async def test_no_toast_table_can_be_read_by_name(site: Site, attacker: TenantSession) -> None:
    with psycopg.connect(site.url) as conn:
        found = conn.execute(
            "SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'resource_patient'"
        ).fetchall()
    for (toast,) in found:
        with pytest.raises(errors.InsufficientPrivilege):
            await tried(attacker, f"SELECT * FROM {toast}")


@pytest.mark.parametrize("writes", [False, True], ids=["as reader", "as writer"])
async def test_a_query_without_its_where_gives_the_tenants_own_rows_only(attacker: TenantSession, writes: bool) -> None:
    found = await tried(attacker, "SELECT body ->> 'value' FROM resource", writes=writes)
    assert found == [("northern",), ("northern",)]


async def test_a_view_and_a_function_with_their_owners_rights_show_nothing_of_another_tenant(
    attacker: TenantSession,
) -> None:
    assert await tried(attacker, "SELECT body FROM hole") == []
    assert await tried(attacker, "SELECT * FROM shared.hole()") == []


async def test_an_error_quotes_no_row_that_a_policy_hides(attacker: TenantSession) -> None:
    """The cast would quote what it cannot read: of a hidden row it is not made."""
    assert await tried(attacker, "SELECT (body ->> 'value')::int FROM hole") == []
    assert await tried(attacker, "SELECT body FROM hole WHERE (body ->> 'value')::int = 1") == []


async def test_an_error_about_own_rows_does_not_quote_them(attacker: TenantSession) -> None:
    with pytest.raises(StoreQueryError) as caught, store_border("reading"):
        await tried(attacker, "SELECT (body ->> 'value')::int FROM resource")
    assert "northern" not in str(caught.value)
    with pytest.raises(StoreQueryError) as caught, store_border("writing"):
        await tried(attacker, "INSERT INTO resource SELECT * FROM resource", writes=True)
    assert "p1" not in str(caught.value)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert "p1" not in str(caught.value.__cause__)  # Postgres itself names no key of a guarded table


async def test_value_statistics_of_other_tenants_and_partitions_are_hidden(site: Site, attacker: TenantSession) -> None:
    with psycopg.connect(site.url) as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_stats WHERE schemaname IN ('tenant_south', 'tenant_north')"
        ).fetchone()
    assert row is not None
    assert row[0] > 0
    shown = await tried(attacker, "SELECT DISTINCT tablename FROM pg_stats WHERE schemaname LIKE 'tenant%'")
    assert shown == []


async def test_a_leaked_role_shows_nothing_in_another_tenants_transaction(site: Site) -> None:
    """Only wall two: a superuser's session becomes south's reader in a transaction that is bound to north."""
    south = site.south.names
    assert south is not None
    with psycopg.connect(site.url) as conn:
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(south.reader)))
        with pytest.raises(errors.UndefinedObject, match=r"app\.current_tenant_id"):
            conn.execute("SELECT body FROM tenant_south.resource")
        conn.rollback()
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(south.reader)))
        conn.execute("SET app.current_tenant_id = 'north'")
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'tenant_south'::regnamespace AND relkind IN ('r', 'p')"
            " AND has_table_privilege(oid, 'SELECT')"
        ).fetchall()
        assert len(tables) > 30
        for (table,) in tables:
            query = sql.SQL("SELECT count(*) FROM tenant_south.{}").format(sql.Identifier(table))
            assert conn.execute(query).fetchone() == (0,), table
        conn.execute("SET app.current_tenant_id = 'south'")
        assert conn.execute("SELECT count(*) FROM tenant_south.resource").fetchone() == (2,)


async def test_every_policy_is_forced_and_no_partition_is_granted(
    site: Site,
) -> None:
    with psycopg.connect(site.url) as conn:
        bare = conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'tenant_south'::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition AND NOT (relrowsecurity AND relforcerowsecurity)"
        ).fetchall()
        granted = conn.execute(
            "SELECT relname FROM pg_class c CROSS JOIN LATERAL aclexplode(relacl) a"
            " WHERE relnamespace = 'tenant_south'::regnamespace AND relispartition AND a.grantee <> c.relowner"
            " AND (relname, privilege_type) <> ('resource_stored', 'INSERT')"
        ).fetchall()
        owned = conn.execute("SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) LIKE 'cf\\_%'").fetchall()
    assert (bare, granted, owned) == ([], [], [])


@pytest.mark.parametrize("by", ["a superuser", "the tenant's login"])
async def test_nothing_is_reported_as_opened_in_walls_that_stand_as_an_ordinary_owner_built_them(
    site: Site, by: str
) -> None:
    """A site's own view that the tenant's reader may read, and a login with the tenant's roles, open nothing."""
    url = site.url if by == "a superuser" else site.attacker_url
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        for tenant in ("north", "south"):
            walls = await find_walls(conn, tenant_schema(tenant))
            assert walls.stand
            assert await find_breaches(conn, tenant_schema(tenant), walls) == []


async def test_copy_into_a_guarded_table_is_refused(
    attacker: TenantSession,
) -> None:
    async with attacker.transaction(writes=True):
        with pytest.raises(errors.FeatureNotSupported, match="row-level security"):
            async with (
                attacker.conn.transaction(),
                attacker.conn.cursor() as cursor,
                cursor.copy("COPY resource FROM STDIN"),
            ):
                pass
        async with attacker.conn.cursor() as cursor, cursor.copy("COPY resource_stored FROM STDIN"):
            pass


EVENT = """
INSERT INTO audit_event (actor, account, roles, origin, action, connections, types, runs)
VALUES ('x', 'x', '{}', 'x', 'export', '{}', '{}', '{}');
"""
PATIENT = "INSERT INTO audit_patient SELECT max(id), 1, 'p' FROM audit_event;"
SEAL = "INSERT INTO audit_seal SELECT NUMBER, now(), 0, LAST, '{}', '{}', '', '' FROM (SELECT max(id) AS id FROM audit_event) e;"


def sealed(number: int, last: str) -> str:
    return SEAL.replace("NUMBER", str(number)).replace("LAST", last)


SPOILING = {
    "a seal on events to come, after which none would be sealed any more": sealed(1, "e.id + 1"),
    "a seal after whose number there is none": sealed((1 << 63) - 1, "e.id"),
    "a patient of an event that is sealed": sealed(1 << 40, "e.id") + PATIENT,  # seal 1 may be another test's
}


@pytest.mark.parametrize("what", SPOILING)
async def test_a_tenants_roles_cannot_add_what_would_spoil_the_audit(attacker: TenantSession, what: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security policy"):
        await tried(attacker, EVENT + PATIENT + SPOILING[what], writes=True)


async def test_a_pooled_session_keeps_no_state_of_its_last_user(site: Site) -> None:
    left = """
        SET app.current_tenant_id = 'south'; SET search_path = tenant_south; SET ROLE "WRITER";
        CREATE TEMPORARY TABLE resource (body text); CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        BEGIN; DECLARE kept CURSOR WITH HOLD FOR SELECT 1; COMMIT; PREPARE theirs AS SELECT 1
    """
    names = site.north.names
    assert names is not None
    async with SessionPool(site.attacker_url, "north", TESTER, walls=site.north, most=1) as pool:
        async with pool.session() as session:
            first = session.conn
            await first.execute(left.replace("WRITER", names.writer))  # type: ignore[call-overload]
        async with pool.session() as session:
            assert session.conn is first
            found = await first.execute(
                "SELECT current_user = session_user, current_setting('app.current_tenant_id', true), to_regclass('resource'),"
                " (SELECT count(*) FROM pg_cursors), to_regproc('pg_temp.f')"
            )
            assert await found.fetchone() == (True, "", None, 0, None)
            assert await tried(session, "SELECT body ->> 'value' FROM resource LIMIT 1") == [("northern",)]


async def test_the_role_ends_with_its_transaction(attacker: TenantSession) -> None:
    names = "SELECT current_user = session_user"
    assert await tried(attacker, names) == [(False,)]
    with pytest.raises(errors.DivisionByZero):
        await tried(attacker, "SELECT 1/0")
    assert await (await attacker.conn.execute(names)).fetchone() == (True,)
    with pytest.raises(errors.InsufficientPrivilege):
        await attacker.conn.execute("SELECT body FROM tenant_north.resource")


async def test_another_tenants_open_run_shows_only_that_it_exists(site: Site, attacker: TenantSession) -> None:
    names = site.south.names
    assert names is not None
    with psycopg.connect(site.url) as conn:
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(names.writer)))
        conn.execute("SET app.current_tenant_id = 'south'")
        conn.execute("INSERT INTO tenant_south.seen VALUES (1, 'Patient', %s)", [SECRET])
        conn.execute(f"SELECT '{SECRET}'")  # type: ignore[call-overload]
        shown = await tried(attacker, f"SELECT query FROM pg_stat_activity WHERE pid = {conn.info.backend_pid}")
        assert shown == [("<insufficient privilege>",)]
        assert await tried(attacker, "SELECT count(*) FROM seen") == [(0,)]
        conn.rollback()


CRAFTED = (
    'south" CASCADE; --',
    "south'; DROP SCHEMA tenant_south; --",
    "../south",
    "South",
    "south ",
    "south\n",
    "\uff53outh",
    "tenant_south, public",
    "pg_temp.x",
    "",
    "a" * 56,
    "%",
)


@pytest.mark.parametrize("name", CRAFTED)
async def test_a_crafted_tenant_name_is_refused_before_it_reaches_a_server(name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a schema"):
        async with opened_store("postgresql://nobody@127.0.0.1:1/nowhere", name):
            pass


async def test_similar_tenant_names_have_separate_roles_and_rows(store_url: str) -> None:
    alike = ("a_b", "a-b", "a" * 54 + "b", "a" * 54 + "c")
    for name in alike:
        async with opened_store(store_url, name) as store, await store.begin_run(scope(connection=name)) as run:
            await run.fail(reason="only looked")
    roles = set()
    for name in alike:
        async with opened_store(store_url, name) as store:
            assert [one.connection for one in await store.runs()] == [name]
        roles.update((await _walls(store_url, name)).names or ())
    assert len(roles) == 3 * len(alike)


async def test_an_export_of_a_tenant_is_the_same_behind_its_walls_as_for_the_owner(site: Site) -> None:
    async with opened_store(site.url, "north") as store, store.snapshot(Selection()) as snapshot:
        assert await snapshot.types() == {"Observation": 1, "Patient": 1}
