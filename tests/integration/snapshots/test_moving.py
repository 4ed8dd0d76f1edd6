"""A tenant moves to another server: as the file of `tenants export`, which the other store imports."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path
from typing import Any, LiteralString

import anyio
import psycopg
import pytest
from psycopg import conninfo

from snapshots.errors import MigrationError, MissingRightsError, StoreError, StoreKeyError
from snapshots.moving import Imported, export_tenant, import_tenants
from snapshots.sealed_values import Keyring
from snapshots.store import Store
from snapshots.tenants import open_tenants
from tests.fix_store import TESTER, opened_store, url_of
from tests.integration.snapshots.stored import full_run, lines, person, record, scope, search
from tests.passing_postgres import PROGRAMS, passing_postgres

pytestmark = pytest.mark.anyio

KEYS = Keyring(current="k1", keys={"k1": b"1" * 32})


HISTORY = "SELECT to_jsonb(h)::text FROM tenant_mover.resource_history h ORDER BY 1"

ROLES = "SELECT rolname FROM pg_roles WHERE rolname ~ '^cf_r_mover_'"


def query(url: str, statement: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(statement).fetchall()


def major_of(url: str) -> int:
    with psycopg.connect(url) as conn:
        return conn.info.server_version // 10000


def programs_of(url: str) -> Path:
    """The folder of the server's own programs."""
    major = major_of(url)
    return PROGRAMS if PROGRAMS.parent.name == f"pginstall{major}" else Path(f"/usr/lib/postgresql/{major}/bin")


def files(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]


def size_and_mode(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, stat.S_IMODE(found.st_mode)


def pretend(folder: Path, script: str) -> None:
    """Put a script into a folder as its pg_dump."""
    program = folder / "pg_dump"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)


async def actions(store: Store) -> list[str]:
    return [str(read.action) for read in await store.audit.who_saw("p1")]


async def test_an_imported_tenant_is_what_was_exported_with_its_history_audit_and_new_roles_behind_walls(
    store_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "mover.dump"
    async with opened_store(store_url, "mover", keyring=KEYS) as store, opened_store(store_url, "stays"):
        for value in (1, 2):
            await full_run(await store.begin_run(scope()), [person("p1"), record("a", value)], [search()])
    size = await export_tenant(store_url, "mover", file, TESTER, programs_of(store_url))
    assert (size, 0o600) == size_and_mode(file)
    with passing_postgres() as other:
        async with opened_store(other, "there"):
            pass
        assert await import_tenants(other, file, TESTER, PROGRAMS) == Imported(["mover"], without_walls=[])
        async with open_tenants(other, TESTER) as there:
            assert [(one.name, one.is_current, one.breaches) for one in await there.existing()] == [
                ("mover", True, ()),
                ("there", True, ()),
            ]
        assert query(other, ROLES)[0] not in query(store_url, ROLES)
        with pytest.raises(StoreKeyError):
            async with opened_store(other, "mover"):
                pass
        async with (
            opened_store(store_url, "mover", keyring=KEYS) as here,
            opened_store(other, "mover", keyring=KEYS) as moved,
        ):
            assert await lines(moved) == await lines(here)
            assert query(other, HISTORY) == query(store_url, HISTORY)
            assert (await moved.audit.verify()).faults == ()
            assert "backup" in await actions(moved)
            await full_run(await moved.begin_run(scope()), [person("p1"), record("a", 2)], [search()])
        with pytest.raises(StoreError, match=r"already has tenant mover, and nothing was changed"):
            await import_tenants(other, file, TESTER, PROGRAMS)


async def test_an_owner_who_is_no_superuser_exports_all_rows_unless_a_policy_could_hide_some(
    store_url: str, tmp_path: Path
) -> None:
    login = f"exporter_{secrets.token_hex(4)}"
    database = str(conninfo.conninfo_to_dict(store_url)["dbname"])
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {login} LOGIN CREATEROLE PASSWORD 'x'")  # type: ignore[call-overload]
        conn.execute(f'GRANT CREATE, TEMPORARY ON DATABASE "{database}" TO {login} WITH GRANT OPTION')  # type: ignore[call-overload]
    url = url_of(store_url, database, user=login, password="x")
    async with opened_store(url, "mover") as store:
        await full_run(await store.begin_run(scope()), [person("p1"), record("a", 1)], [search()])
        before = await lines(store)
    file = tmp_path / "mover.dump"
    await export_tenant(url, "mover", file, TESTER, programs_of(url))
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute("CREATE POLICY hides ON tenant_mover.resource_history AS RESTRICTIVE USING (false)")
    with pytest.raises(MissingRightsError, match=r"\(hides on resource_history\) could hide rows"):
        await export_tenant(url, "mover", tmp_path / "again.dump", TESTER, programs_of(url))
    assert files(tmp_path) == ["mover.dump"]
    with passing_postgres() as other:
        await import_tenants(other, file, TESTER, PROGRAMS)
        async with opened_store(other, "mover") as moved:
            assert await lines(moved) == before
    async with open_tenants(url, TESTER) as there:
        await there.drop("mover")
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute(f"DROP OWNED BY {login}; DROP ROLE {login}")  # type: ignore[call-overload]


async def test_an_export_that_fails_is_in_the_audit_and_leaves_no_file(store_url: str, tmp_path: Path) -> None:
    pretend(tmp_path, "echo 'pg_dump (PostgreSQL) 9.6.1'")
    async with opened_store(store_url, "mover"):
        pass
    major = major_of(store_url)
    for programs, name, error in (
        (tmp_path, "mover", f"is of Postgres 9, and the server is Postgres {major}"),
        (tmp_path / "none", "mover", "there is no pg_dump in"),
        (programs_of(store_url), "nobody", "the store has no tenant nobody"),
    ):
        with pytest.raises(StoreError, match=error):
            await export_tenant(store_url, name, tmp_path / "mover.dump", TESTER, programs)
    pretend(tmp_path, f"echo 'pg_dump (PostgreSQL) {major}.1'; [ $# = 1 ]")
    with pytest.raises(StoreError, match="could not export tenant mover"):
        await export_tenant(store_url, "mover", tmp_path / "mover.dump", TESTER, tmp_path)
    with pytest.raises(StoreError, match="is a folder: name the file to write"):
        await export_tenant(store_url, "mover", tmp_path, TESTER, tmp_path)
    assert files(tmp_path) == ["pg_dump"]
    async with opened_store(store_url, "mover") as store:
        assert await actions(store) == ["backup"]


async def test_a_secret_that_only_an_argument_could_hand_to_pg_dump_is_refused_without_being_quoted(
    store_url: str, tmp_path: Path
) -> None:
    async with opened_store(store_url, "mover"):
        pass
    url = conninfo.make_conninfo(store_url, sslpassword="open-sesame")
    with pytest.raises(StoreError, match="sslpassword") as refused:
        await export_tenant(url, "mover", tmp_path / "mover.dump", TESTER, programs_of(store_url))
    assert "open-sesame" not in str(refused.value)
    assert files(tmp_path) == []


async def test_a_password_is_in_the_environment_of_pg_dump_and_not_among_its_arguments(
    store_url: str, tmp_path: Path
) -> None:
    async with opened_store(store_url, "mover"):
        pass
    seen = tmp_path / "seen"
    version = f"echo 'pg_dump (PostgreSQL) {major_of(store_url)}.1'"
    pretend(tmp_path, f'{version}; [ $# = 1 ] || {{ echo "$PGPASSWORD"; echo "$@"; }} > {seen}')
    url = conninfo.make_conninfo(store_url, password="open-sesame")
    await export_tenant(url, "mover", tmp_path / "mover.dump", TESTER, tmp_path)
    environment, arguments = (await anyio.Path(seen).read_text()).splitlines()
    assert environment == "open-sesame"
    assert "--dbname=" in arguments
    assert "open-sesame" not in arguments


async def exported(url: str, file: Path, *statements: LiteralString) -> Path:
    """Write a tenant to a file, after these statements of its owner."""
    async with opened_store(url, "mover") as store:
        await full_run(await store.begin_run(scope()), [person("p1"), record("a", 1)], [search()])
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)
    await export_tenant(url, "mover", file, TESTER, programs_of(url))
    return file


async def tenants_of(url: str) -> list[str]:
    async with open_tenants(url, TESTER) as there:
        return await there.names()


async def test_a_file_that_is_cut_restores_nothing(store_url: str, fresh_url: str, tmp_path: Path) -> None:
    file = await exported(store_url, tmp_path / "mover.dump")
    content = await anyio.Path(file).read_bytes()
    await anyio.Path(file).write_bytes(content[:-200])
    with pytest.raises(StoreError, match=r"could not restore .* and nothing was changed"):
        await import_tenants(fresh_url, file, TESTER, programs_of(fresh_url))
    assert query(fresh_url, "SELECT nspname FROM pg_namespace WHERE nspname = 'tenant_mover'") == []


async def test_a_tenant_of_a_newer_chartferry_is_refused_before_it_is_restored(
    store_url: str, fresh_url: str, tmp_path: Path
) -> None:
    newer: LiteralString = "INSERT INTO tenant_mover.schema_migration (version, name) VALUES (9999, 'of the future')"
    file = await exported(store_url, tmp_path / "mover.dump", newer)
    with pytest.raises(MigrationError, match=r"is at migration 9999, .* and nothing was changed"):
        await import_tenants(fresh_url, file, TESTER, programs_of(fresh_url))
    assert "mover" not in await tenants_of(fresh_url)


async def test_a_tenant_that_is_restored_and_cannot_be_opened_says_so(
    store_url: str, fresh_url: str, tmp_path: Path
) -> None:
    file = await exported(store_url, tmp_path / "mover.dump", "COMMENT ON SCHEMA tenant_mover IS 'of ours'")
    with pytest.raises(StoreError, match=r"mover is restored, .* run chartferry tenants migrate mover"):
        await import_tenants(fresh_url, file, TESTER, programs_of(fresh_url))
    assert "mover" in await tenants_of(fresh_url)
    with pytest.raises(StoreError, match="`chartferry tenants migrate mover` finishes it"):
        await import_tenants(fresh_url, file, TESTER, programs_of(fresh_url))


async def test_a_tenant_that_cannot_be_opened_does_not_keep_the_others_of_its_file_from_their_walls(
    store_url: str, fresh_url: str, tmp_path: Path
) -> None:
    for name in ("mover", "other"):
        async with opened_store(store_url, name):
            pass
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute("COMMENT ON SCHEMA tenant_mover IS 'of ours'")
    file = tmp_path / "both.dump"
    program = [str(programs_of(store_url) / "pg_dump"), f"--dbname={store_url}", "--format=custom", f"--file={file}"]
    await anyio.run_process([*program, "--schema=tenant_mover", "--schema=tenant_other"])
    with pytest.raises(StoreError, match=r"mover, other .* but mover cannot be opened yet: .* tenants migrate mover$"):
        await import_tenants(fresh_url, file, TESTER, programs_of(fresh_url))
    async with open_tenants(fresh_url, TESTER) as tenants:
        assert await tenants.without_walls(["other"]) == []


@pytest.mark.parametrize("schema", ["extra", "tenant_junk"])
async def test_a_file_with_a_schema_that_is_no_tenant_restores_nothing(
    schema: str, store_url: str, fresh_url: str, tmp_path: Path
) -> None:
    async with opened_store(store_url, "mover"):
        pass
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute(f"CREATE SCHEMA {schema}")  # type: ignore[call-overload]
    file = tmp_path / "mover.dump"
    schemas = ("--schema=tenant_mover", f"--schema={schema}")
    program = [str(programs_of(store_url) / "pg_dump"), f"--dbname={store_url}", "--format=custom", f"--file={file}"]
    await anyio.run_process([*program, *schemas])
    with pytest.raises(StoreError, match="has a schema that is no tenant of chartferry, and nothing was changed"):
        await import_tenants(fresh_url, file, TESTER, programs_of(fresh_url))
    assert "mover" not in await tenants_of(fresh_url)


async def test_a_login_that_may_create_no_roles_is_told_that_the_imported_tenant_has_no_walls(
    store_url: str, tmp_path: Path
) -> None:
    file = await exported(store_url, tmp_path / "mover.dump")
    with passing_postgres() as other:
        database = str(conninfo.conninfo_to_dict(other)["dbname"])
        with psycopg.connect(other, autocommit=True) as conn:
            conn.execute("CREATE ROLE importer LOGIN")
            conn.execute(f'GRANT CREATE, TEMPORARY ON DATABASE "{database}" TO importer')  # type: ignore[call-overload]
        url = url_of(other, database, user="importer")
        assert await import_tenants(url, file, TESTER, PROGRAMS) == Imported(["mover"], without_walls=["mover"])


async def test_a_table_of_another_role_in_the_schema_is_named_with_its_owner(store_url: str, tmp_path: Path) -> None:
    login = f"exporter_{secrets.token_hex(4)}"
    database = str(conninfo.conninfo_to_dict(store_url)["dbname"])
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {login} LOGIN CREATEROLE PASSWORD 'x'")  # type: ignore[call-overload]
        conn.execute(f'GRANT CREATE, TEMPORARY ON DATABASE "{database}" TO {login} WITH GRANT OPTION')  # type: ignore[call-overload]
        url = url_of(store_url, database, user=login, password="x")
        async with opened_store(url, "mover"):
            pass
        conn.execute("CREATE TABLE tenant_mover.mine (a int)")
        (owner,) = conn.execute("SELECT current_user").fetchone() or ("",)
        with pytest.raises(MissingRightsError, match=rf"other roles own tables in it: mine \(of {owner}\)"):
            await export_tenant(url, "mover", tmp_path / "mover.dump", TESTER, programs_of(url))
        conn.execute("DROP TABLE tenant_mover.mine")
    async with open_tenants(url, TESTER) as there:
        await there.drop("mover")
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute(f"DROP OWNED BY {login}; DROP ROLE {login}")  # type: ignore[call-overload]


async def test_what_is_no_tenants_file_is_not_imported(store_url: str, tmp_path: Path) -> None:
    file = tmp_path / "mover.dump"
    await anyio.Path(file).write_bytes(b"PGDMP and nothing more")
    with pytest.raises(StoreError, match="has no tenant that this pg_restore can read"):
        await import_tenants(store_url, file, TESTER, programs_of(store_url))
    await anyio.Path(file).write_bytes(b"text")
    with pytest.raises(StoreError, match="is not a backup that `chartferry tenants export` wrote"):
        await import_tenants(store_url, file, TESTER, programs_of(store_url))
