"""A site's own Postgres: its settings, its encoding, its roles, and a pooler in front of it."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

from snapshots import sessions
from snapshots.errors import MissingRightsError, StoreUnavailableError
from snapshots.inquiry import inquire_store
from snapshots.migrate import migrations
from snapshots.record import Batch
from snapshots.selection import Selection
from snapshots.store import Store
from tests.fix_store import database, opened_store, url_of
from tests.integration.snapshots.pooler import pooler
from tests.integration.snapshots.stored import lines, person, record, rows, scope, search, settled

pytestmark = pytest.mark.anyio

# what a database may set, and what our sessions have nevertheless
ODD = {
    "datestyle": ("SQL, DMY", "ISO, MDY"),
    "intervalstyle": ("iso_8601", "postgres"),
    "timezone": ("Asia/Kathmandu", "UTC"),
    "client_encoding": ("LATIN1", "UTF8"),
    "standard_conforming_strings": ("off", "on"),
    "bytea_output": ("escape", "hex"),
    "extra_float_digits": ("-15", "1"),
    "array_nulls": ("off", "on"),
    "transform_null_equals": ("on", "off"),
    "default_transaction_isolation": ("serializable", "read committed"),
    "default_transaction_read_only": ("on", "off"),
    "default_transaction_deferrable": ("on", "off"),
    "statement_timeout": ("1h", "0"),
    "lock_timeout": ("1h", "10min"),
    "idle_in_transaction_session_timeout": ("1h", "0"),
    "idle_session_timeout": ("1h", "0"),
    "synchronous_commit": ("off", "on"),
    "jit": ("on", "off"),
    "row_security": ("off", "on"),
    "restrict_nonsystem_relation_kind": ("view", ""),
}


def admin(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as conn:
        conn.execute(statement)  # type: ignore[call-overload]  # a test's own


@pytest.fixture
def odd_url(store_url: str) -> str:
    """A database that says something else than usual of everything."""
    name = str(psycopg.conninfo.conninfo_to_dict(store_url)["dbname"])
    admin(store_url, "; ".join(f"ALTER DATABASE {name} SET {setting} = '{odd}'" for setting, (odd, _) in ODD.items()))
    return store_url


async def settings(url: str) -> dict[str, str]:
    async with await sessions.connect(url) as conn:
        found = await conn.execute(
            "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS s (name)", [list(ODD)]
        )
        return dict(await found.fetchall())


async def test_a_session_has_the_required_settings_whatever_the_database_sets(odd_url: str):
    assert await settings(odd_url) == {setting: ours for setting, (_, ours) in ODD.items()}


async def test_a_session_has_the_required_settings_whatever_the_url_and_environment_set(
    store_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    found = await settings(f"{store_url}&client_encoding=sql_ascii&options=-c%20statement_timeout%3D5s")
    assert found == {setting: ours for setting, (_, ours) in ODD.items()}


async def test_a_stricter_commit_setting_is_kept(store_url: str):
    conn = await sessions.connect(f"{store_url}&options=-c%20synchronous_commit%3Dremote_apply")
    async with conn:
        assert await (await conn.execute("SHOW synchronous_commit")).fetchone() == ("remote_apply",)


async def written(store: Store) -> None:
    async with await store.begin_run(scope(types=("Patient", "Observation"))) as run:
        await run.plan([search()])
        given = [person("p1"), record("o", "Zürich, 東京", updated="2024-05-06T07:08:09+05:45")]
        await run.write(Batch(records=given, results=[settled(search(), records=2)]))
        await run.fail(reason="only wrote")


@pytest.mark.quick
async def test_a_run_and_an_export_work_the_same_on_an_unusual_database(odd_url: str, store_server: str, migrated: str):
    with database(store_server, f"usual_{secrets.token_hex(4)}", f"TEMPLATE {migrated}") as usual_url:
        async with opened_store(odd_url) as odd, opened_store(usual_url) as usual:
            for store in (odd, usual):
                await written(store)
            assert await lines(odd) == await lines(usual)
            async with odd.snapshot(Selection()) as snapshot:
                assert snapshot.as_of.utcoffset() == UTC.utcoffset(None)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
async def test_an_encoding_that_cannot_hold_fhir_is_refused_by_name(store_server: str, encoding: str):
    how = f"ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    with (
        database(store_server, f"enc_{secrets.token_hex(4)}", how) as url,
        pytest.raises(StoreUnavailableError, match=rf"has the encoding {encoding}, which cannot hold FHIR.*UTF8"),
    ):
        async with opened_store(url):
            pass


@pytest.fixture
def role(store_server: str) -> Iterator[str]:
    """A login that may do nothing but what everybody may; its name wants quotes. Its password is its name."""
    name = f"Chart role {secrets.token_hex(4)}"
    named = sql.Identifier(name)
    with psycopg.connect(store_server, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(named, sql.Literal(name)))
        yield name
        conn.execute(sql.SQL("DROP ROLE {}").format(named))


@pytest.fixture
def bare(store_server: str, role: str) -> Iterator[tuple[str, str]]:
    """A database in which everybody's rights are revoked: its URL for a superuser and for the role."""
    name = f"Bare {secrets.token_hex(4)}"
    with database(store_server, name) as url:
        admin(url, f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        yield url, url_of(store_server, name, user=role, password=role)


async def advised(url: str, role_url: str, error: type[Exception]) -> str:
    """Do as role what needs everything, until it works or is refused; do as the refusal says."""
    try:
        async with opened_store(role_url) as store:
            await written(store)
    except error as refused:
        statements = re.findall(r"(?:GRANT|CREATE DATABASE) [^;]+", str(refused))
        for statement in statements:
            admin(url, statement)
        return " ".join(statements)
    return ""


async def test_each_missing_right_is_reported_with_the_grant_that_gives_it(bare: tuple[str, str], role: str):
    url, role_url = bare
    assert (await advised(url, role_url, StoreUnavailableError)).startswith('GRANT CONNECT ON DATABASE "Bare ')
    assert (await advised(url, role_url, MissingRightsError)).startswith('GRANT CREATE ON DATABASE "Bare ')
    assert (await advised(url, role_url, MissingRightsError)).startswith('GRANT TEMPORARY ON DATABASE "Bare ')
    assert await advised(url, role_url, MissingRightsError) == ""


async def test_a_role_needs_no_create_right_if_its_schema_exists(bare: tuple[str, str], role: str):
    url, role_url = bare
    await advised(url, role_url, StoreUnavailableError)
    admin(url, f'CREATE SCHEMA tenant_default AUTHORIZATION "{role}"')
    async with opened_store(role_url) as store:
        assert await store.runs() == []


async def test_a_schema_of_another_owner_is_refused_with_the_statement_that_hands_it_over(
    bare: tuple[str, str], role: str
):
    url, role_url = bare
    await advised(url, role_url, StoreUnavailableError)
    admin(url, f'CREATE SCHEMA tenant_default; GRANT CREATE, USAGE ON SCHEMA tenant_default TO "{role}"')
    checked = (await inquire_store(role_url, ["default"]))[-1]
    handed_over = f'ALTER SCHEMA tenant_default OWNER TO "{role}"'
    assert (checked.name, checked.verdict, handed_over in checked.advice) == ("rights", "fail", True)
    with pytest.raises(MissingRightsError, match=re.escape(handed_over)):
        async with opened_store(role_url):
            pass
    admin(url, handed_over)
    async with opened_store(role_url) as store:
        assert await store.runs() == []


async def test_a_refused_login_is_distinguished_from_an_unreachable_server(store_server: str, role: str):
    admin(store_server, f'ALTER ROLE "{role}" CONNECTION LIMIT 0')
    given = url_of(store_server, "postgres", user=role, password=role)
    with pytest.raises(StoreUnavailableError, match=r"server is up, but does not serve this login: .* connections"):
        await sessions.connect(given)
    with pytest.raises(StoreUnavailableError, match=r"Check host, port and the ssl… parameters in store"):
        await sessions.connect("postgresql://somebody@127.0.0.1:1/postgres")


async def test_an_owner_without_createrole_works_without_walls_and_the_check_says_how_to_add_them(
    bare: tuple[str, str], role: str
):
    url, role_url = bare
    for right in ("CONNECT", "CREATE", "TEMPORARY"):
        admin(url, f'GRANT {right} ON DATABASE "{psycopg.conninfo.conninfo_to_dict(url)["dbname"]}" TO "{role}"')
    async with opened_store(role_url) as store:
        await written(store)
        before = await lines(store)
    step = (await inquire_store(role_url, ["default"]))[-1]
    assert (step.name, step.verdict) == ("walls", "warn")
    for statement in re.findall(r"(?:CREATE ROLE|GRANT) [^;]+", step.advice):
        admin(url, statement)
    async with opened_store(role_url) as store:
        await written(store)
        assert await lines(store) == before
    step = (await inquire_store(role_url, ["default"]))[-1]
    assert (step.name, step.verdict) == ("walls", "ok")
    assert re.search(r"reads as cf_r_default_\w+, and writes as cf_w_default_", step.found)


async def refused(doing: Callable[[], AbstractAsyncContextManager[object]], advice: str) -> str:
    """The statements that a refusal names."""
    with pytest.raises(MissingRightsError, match=advice) as caught:
        async with doing():
            pass
    return "; ".join(re.findall(r"GRANT [^;]+", str(caught.value)))


async def test_a_login_without_a_tenants_role_is_refused_with_the_role_to_grant(store_url: str, role: str):
    role_url = url_of(store_url, str(psycopg.conninfo.conninfo_to_dict(store_url)["dbname"]), user=role, password=role)
    async with opened_store(store_url) as owner:
        await written(owner)
        reading = await refused(lambda: opened_store(role_url), "may not read schema tenant_default")
        assert re.fullmatch(r'GRANT cf_r_default_[0-9a-f]{8} TO "Chart role [0-9a-f]+"', reading)
        admin(store_url, reading)
        async with opened_store(role_url) as reader:
            assert await lines(reader) == await lines(owner)
            assert len(await reader.runs()) == 1
            with pytest.raises(
                MissingRightsError, match=r'may not write.*GRANT cf_w_default_[0-9a-f]{8} TO "Chart role'
            ) as no:
                await reader.begin_run(scope())
            writing = await refused(lambda: reader.proof("mercy"), "may not write")
            assert writing in str(no.value)
        admin(store_url, writing)
        async with opened_store(role_url) as writer:
            await written(writer)


async def test_for_a_tenant_without_roles_the_message_says_who_creates_them_and_not_table_rights(
    bare: tuple[str, str], store_server: str, role: str
):
    url, _ = bare
    database = str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
    owner = f"plain_{secrets.token_hex(4)}"  # may create no roles
    admin(url, f"CREATE ROLE {owner} LOGIN PASSWORD '{owner}'")
    admin(
        url,
        f'GRANT CONNECT, CREATE, TEMPORARY ON DATABASE "{database}" TO {owner};'
        f'GRANT CONNECT ON DATABASE "{database}" TO "{role}"',
    )
    async with opened_store(url_of(store_server, database, user=owner, password=owner)) as store:
        await written(store)
    advice = f"Its owner, {owner}, must run: chartferry tenants migrate default"
    with pytest.raises(MissingRightsError, match=advice) as caught:
        async with opened_store(url_of(store_server, database, user=role, password=role)):
            pass
    assert "GRANT" not in str(caught.value)
    admin(url, f'DROP OWNED BY {owner} CASCADE; DROP OWNED BY "{role}"; DROP ROLE {owner}')


async def test_a_login_with_rights_of_its_own_needs_no_role_of_the_tenants(store_url: str, role: str):
    role_url = url_of(store_url, str(psycopg.conninfo.conninfo_to_dict(store_url)["dbname"]), user=role, password=role)
    for rights in ("USAGE ON SCHEMA", "SELECT ON ALL TABLES IN SCHEMA", "INSERT ON ALL TABLES IN SCHEMA"):
        admin(store_url, f'GRANT {rights} tenant_default TO "{role}"')
    async with opened_store(store_url) as owner, opened_store(role_url) as reader:
        await written(owner)
        assert await lines(reader) == await lines(owner)
    admin(store_url, f'DROP OWNED BY "{role}"')


async def test_a_role_that_does_not_own_the_tables_is_refused_with_who_may_upgrade_them(store_url: str, role: str):
    role_url = url_of(store_url, str(psycopg.conninfo.conninfo_to_dict(store_url)["dbname"]), user=role, password=role)
    admin(store_url, f'GRANT ALL ON SCHEMA tenant_default TO "{role}"')
    admin(store_url, f'GRANT ALL ON ALL TABLES IN SCHEMA tenant_default TO "{role}"')
    owner = rows(store_url, "SELECT current_user")[0][0]
    admin(store_url, f"DELETE FROM tenant_default.schema_migration WHERE version = {len(migrations())}")
    advice = f"only its owner, {owner}, may upgrade it.*run: chartferry tenants migrate default"
    with pytest.raises(MissingRightsError, match=advice) as caught:
        async with opened_store(role_url):
            pass
    assert "GRANT" not in str(caught.value)
    admin(store_url, f'DROP OWNED BY "{role}"')


async def test_a_login_that_does_not_own_the_tables_is_refused_to_prune_with_the_owner_named(store_url: str, role: str):
    role_url = url_of(store_url, str(psycopg.conninfo.conninfo_to_dict(store_url)["dbname"]), user=role, password=role)
    owner = rows(store_url, "SELECT current_user")[0][0]
    for rights in ("USAGE ON SCHEMA", "SELECT, DELETE ON ALL TABLES IN SCHEMA"):
        admin(store_url, f'GRANT {rights} tenant_default TO "{role}"')
    async with opened_store(role_url) as store:
        with pytest.raises(MissingRightsError, match=f"may not prune .* only its owner, {owner}, may") as caught:
            await store.prune(history=datetime.now(UTC))
    assert "GRANT" not in str(caught.value)
    admin(store_url, f'DROP OWNED BY "{role}"')


async def test_a_missing_database_is_reported_with_the_statement_that_creates_it(store_server: str):
    name = f"not_there_{secrets.token_hex(4)}"
    try:
        advice = await advised(store_server, url_of(store_server, name), StoreUnavailableError)
        assert f"CREATE DATABASE {name} OWNER " in advice
        async with opened_store(url_of(store_server, name)) as store:
            assert await store.runs() == []
    finally:
        admin(store_server, f"DROP DATABASE IF EXISTS {name}")


async def test_a_standby_is_refused_for_writing_and_for_reads_that_cannot_be_audited(
    store_url: str,
):
    async with pooler(store_url, lends=False, says={"in_hot_standby": "on"}) as url, opened_store(url) as store:
        assert await store.runs() == []
        with pytest.raises(StoreUnavailableError, match=r"is a read-only standby.*noted in the audit"):
            await lines(store)
        with pytest.raises(StoreUnavailableError, match=r"is a read-only standby.*primary in store\.url"):
            await store.begin_run(scope())


@asynccontextmanager
async def opened(url: str, *, lends: bool, most: int = 20) -> AsyncIterator[Store]:
    async with pooler(url, lends=lends, most=most) as pooled, opened_store(pooled) as store:
        yield store


async def test_a_transaction_pooler_is_refused_with_the_next_step(store_url: str):
    with pytest.raises(StoreUnavailableError, match="pool_mode = session"):
        async with opened(store_url, lends=True):
            pass


async def test_a_transaction_pooler_with_one_server_process_is_refused_too(store_url: str):
    with pytest.raises(StoreUnavailableError, match="pool_mode = session"):
        async with opened(store_url, lends=True, most=1):
            pass


async def test_a_session_pooler_works_like_a_direct_connection(store_url: str):
    async with opened(store_url, lends=False) as store:
        async with await store.begin_run(scope()) as run:
            await run.plan([search()])
            await run.fail(reason="only asked")
        assert [report.status for report in await store.runs()] == ["failed"]


async def test_a_pooler_of_one_session_is_refused(store_url: str):
    async with pooler(store_url, lends=False, most=1) as url, await sessions.connect(url) as conn:
        with pytest.raises(StoreUnavailableError, match=r"provides one session.*pool_size"):
            await sessions.check_server(conn, url, wait_s=0.1)


async def test_a_second_session_is_refused_at_once_by_a_server_that_has_none_left(store_server: str, role: str) -> None:
    admin(store_server, f'ALTER ROLE "{role}" CREATEROLE CONNECTION LIMIT 2')
    name = f"short_{secrets.token_hex(4)}"
    with database(store_server, name, f'OWNER "{role}"'):
        given = url_of(store_server, name, user=role, password=role)
        async with opened_store(given) as store, store.snapshot(Selection()) as snapshot, snapshot.beside():
            with pytest.raises(StoreUnavailableError, match="too many connections for role"):
                async with snapshot.beside():
                    pass
