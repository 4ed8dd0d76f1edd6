"""What a Postgres server writes into its own log on a bad night: nothing of any patient."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import psycopg
import pytest
from psycopg import sql

from exports.delivery.destination import LocalFolder
from exports.plan import ExportRequest
from exports.run import export
from exports.safe_harbor.deidentify import SafeHarbor
from snapshots.errors import StoreError
from snapshots.inquiry import inquire_store
from snapshots.record import Batch, Record
from snapshots.selection import Selection
from snapshots.store import Store
from tests.fix_store import database, opened_store, url_of
from tests.integration.exports.charts import table_of
from tests.integration.snapshots.stored import full_run, record, scope, search, settled
from tests.passing_postgres import passing_postgres

pytestmark = pytest.mark.anyio
PATIENT = "zq-patient-7391"
VALUES = ("Zebrowskilog", "987-65-4320", "4711.25")
FAMILY = VALUES[0]
UNIT = search(patient=PATIENT)
HOSTILE = {
    "log_min_messages": "info",
    "log_min_error_statement": "error",
    "log_error_verbosity": "verbose",
    "log_parameter_max_length_on_error": "-1",
    "log_parameter_max_length": "-1",
    "log_statement": "mod",  # what changes rows
}
USUAL = {
    "log_min_messages": "warning",
    "log_min_error_statement": "error",
    "log_error_verbosity": "default",
    "log_parameter_max_length_on_error": "-1",  # which every login may set
}
ALLOWED = "log_min_messages, log_min_error_statement, log_error_verbosity, log_parameter_max_length"


class Server:
    """A server and its log, which a superuser reaches by `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        with psycopg.connect(url) as conn:
            row = conn.execute("SHOW data_directory").fetchone()
        assert row is not None
        self.directory = Path(row[0]).parent
        self._log = self.directory / "server.log"
        self._from = 0

    def forget(self) -> None:
        self._from = self._log.stat().st_size

    def log(self) -> str:
        return self._log.read_bytes()[self._from :].decode(errors="replace")


@pytest.fixture(scope="module")
def started() -> Iterator[Server]:
    with passing_postgres() as url:
        yield Server(url)


@pytest.fixture
def server(started: Server) -> Server:
    started.forget()
    return started


@asynccontextmanager
async def login(server: Server, settings: dict[str, str], *, may_set: str | None) -> AsyncIterator[str]:
    """The URL of a database with these settings, for its owner, who is no superuser but may set the named parameters."""
    name, role = f"logged_{secrets.token_hex(4)}", f"owner_{secrets.token_hex(4)}"
    with psycopg.connect(server.url, autocommit=True) as conn, database(server.url, name):
        statements = [f"CREATE ROLE {role} LOGIN CREATEROLE", f"ALTER DATABASE {name} OWNER TO {role}"]
        statements += [f"ALTER DATABASE {name} SET {setting} = '{value}'" for setting, value in settings.items()]
        statements += [f"GRANT SET ON PARAMETER {may_set} TO {role}"] if may_set else []
        for statement in statements:
            conn.execute(statement)  # type: ignore[call-overload]  # a test's own
        yield url_of(server.url, name, user=role)


def patient(identity: str, body: bytes | None = None) -> Record:
    plain = b'{"resourceType":"Patient","id":"%b","name":[{"family":"%b"}],"identifier":[{"value":"%b"}]}'
    given = body or plain % (identity.encode(), FAMILY.encode(), VALUES[1].encode())
    return record(identity, given, kind="Patient", patient=identity)


def poisoned(number: int, poison: bytes) -> Record:
    body = b'{"resourceType":"Patient","id":"bad","name":[{"family":"%b"}],"x":%b,"weight":4711.25}'
    return patient(f"bad{number}", body % (FAMILY.encode(), poison))


POISON = (rb'"a\u0000b"', rb'"\ud800"', b"1e999999", b'"\xff"', b'"\x00"', b"[" * 20_000 + b"]" * 20_000)


async def fails(doing: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(StoreError):
        await doing()


async def while_it_waits(admin_url: str, table: str, signal: str, doing: Callable[[], Awaitable[object]]) -> None:
    """Do what uses a table while somebody locks it; then end what waits, by its server process."""
    async with await psycopg.AsyncConnection.connect(admin_url) as conn, anyio.create_task_group() as group:
        await conn.execute(f"LOCK TABLE tenant_default.{table} IN ACCESS EXCLUSIVE MODE")  # type: ignore[call-overload]
        group.start_soon(fails, doing)
        hit = None
        while hit is None:
            found = await conn.execute(
                f"SELECT {signal}(pid) FROM pg_locks WHERE NOT granted"  # type: ignore[call-overload]
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            hit = await found.fetchone()
            await anyio.lowlevel.checkpoint()


async def night(store: Store, admin_url: str) -> None:
    """What can go wrong between us and the server while values are at hand; but for queries that somebody wrote."""
    bad = [poisoned(number, one) for number, one in enumerate(POISON)]
    await full_run(await store.begin_run(scope(types=("Patient",))), [*bad, patient(PATIENT)], [UNIT])
    again = [patient(PATIENT, b'{"name":"%b","x":"\\u0000"}' % FAMILY.encode())]  # in a version that changed
    await full_run(await store.begin_run(scope(types=("Patient",))), again, [UNIT])
    async with await store.begin_run(scope(connection="other")) as run:
        await run.plan([UNIT])
        await run.write(Batch(records=[patient(PATIENT)]))
        await run.write(Batch(records=[patient(PATIENT)]))  # violates the key where everything was new
        await fails(lambda: run.write(Batch(records=[patient("new1")], results=[settled(search(patient="unknown"))])))
        await while_it_waits(
            admin_url, "resource_stored", "pg_cancel_backend", lambda: run.write(Batch(records=[patient("new2")]))
        )
        await while_it_waits(
            admin_url, "resource_stored", "pg_terminate_backend", lambda: run.write(Batch(records=[patient("new3")]))
        )
    for signal in ("pg_cancel_backend", "pg_terminate_backend"):
        await while_it_waits(admin_url, "resource", signal, lambda: _exported(store))
    await _refused_copy(store, admin_url)


async def _exported(store: Store) -> None:
    async with store.snapshot(Selection(patients=(PATIENT,))) as snapshot:
        async for _ in snapshot.ndjson("Patient"):
            pass


async def _a_query_that_takes_names_for_numbers(store: Store) -> None:
    async with store.snapshot(Selection()) as snapshot:
        async for _ in snapshot.csv(sql.SQL("SELECT (body #>> '{{name,0,family}}')::int FROM resource").format()):
            pass


async def _refused_copy(store: Store, admin_url: str) -> None:
    async with await store.begin_run(scope(connection="third")) as run:
        await run.plan([UNIT])
        with psycopg.connect(admin_url, autocommit=True) as conn:
            found = conn.execute(
                "SELECT rolname FROM pg_roles WHERE rolname LIKE 'cf\\_w%'"
                " AND has_table_privilege(oid, 'tenant_default.resource_stored', 'INSERT')"
            )
            for (role,) in found.fetchall():
                revoked = sql.SQL("REVOKE INSERT ON tenant_default.resource_stored FROM {}").format(
                    sql.Identifier(role)
                )
                conn.execute(revoked)
        await fails(lambda: run.write(Batch(records=[patient("new4")])))


async def test_the_embedded_servers_log_has_no_value_of_a_patient_after_a_night_of_faults(server: Server):
    async with opened_store(f"embedded:{server.directory}") as store:
        await night(store, server.url)
        await fails(lambda: _a_query_that_takes_names_for_numbers(store))
    log = server.log()
    assert "terminating connection" in log  # it is the log of this night
    assert [value for value in (*VALUES, PATIENT) if value in log] == []


async def test_a_server_that_logs_everything_logs_no_value_if_the_login_may_prevent_it(server: Server):
    async with login(server, HOSTILE, may_set=ALLOWED) as url, opened_store(url) as store:
        await night(store, url_of(url, urlsplit(url).path[1:], user="postgres"))
        await fails(lambda: _a_query_that_takes_names_for_numbers(store))
    log = server.log()
    assert "terminating connection" in log
    assert [value for value in (*VALUES, PATIENT) if value in log] == []


async def test_a_deidentified_export_leaves_no_line_in_a_log_of_all_statements(server: Server, tmp_path: Path):
    settings = {**HOSTILE, "log_statement": "all", "log_min_duration_statement": "0"}
    wanted = ExportRequest(
        out=LocalFolder(tmp_path), formats=("csv",), views=("patient",), safe_harbor=SafeHarbor(b"k" * 32, 2026)
    )
    async with login(server, settings, may_set=ALLOWED) as url, opened_store(url) as store:
        await full_run(await store.begin_run(scope(types=("Patient",))), [patient(PATIENT)], [UNIT])
        async with store.snapshot(Selection()) as snapshot:
            await export(wanted, snapshot)
    (row,) = table_of(tmp_path / "patient.csv.gz")
    log = server.log()
    assert "chartferry.deidentified" in log  # the statement is there
    assert [value for value in (*VALUES, row["key"]) if value in log] == []


async def test_a_default_server_logs_no_chart_content_for_a_login_without_rights_to_set(server: Server):
    async with login(server, USUAL, may_set=None) as url, opened_store(url) as store:
        await night(store, url_of(url, urlsplit(url).path[1:], user="postgres"))
    log = server.log()
    assert "canceling statement" in log
    assert [value for value in VALUES if value in log] == []


async def test_the_check_names_the_grant_that_keeps_values_out_of_a_servers_log(server: Server):
    async with login(server, USUAL, may_set=None) as url:
        (warned,) = [step for step in await inquire_store(url, ["default"]) if step.name == "log"]
        (grant,) = re.findall(r"GRANT SET [^;]+", warned.advice)
        with psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute(grant)  # type: ignore[call-overload]  # its advice
        (well,) = [step for step in await inquire_store(url, ["default"]) if step.name == "log"]
    assert (warned.verdict, well.verdict) == ("warn", "ok")
