"""Takes one tenant to another server: writes its schema to a file with pg_dump, and restores it from there with pg_restore.

The programs are those of the server's own Postgres: another version's dump may not restore (docs/store.md). `tenants` knows
the tenants, `backup` has the whole embedded store.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import anyio
from psycopg import conninfo

from snapshots.actor import Actor
from snapshots.dump_file import file_border, part_of, require_dump, require_new_file
from snapshots.embedded import programs_of
from snapshots.errors import MigrationError, StoreError, StoreUnavailableError
from snapshots.migrate import migrations
from snapshots.sessions import full_conninfo
from snapshots.store_url import embedded_directory
from snapshots.tenancy import tenant_schema
from snapshots.tenants import Tenants, open_tenants

_VERSION = re.compile(rb"\(PostgreSQL\) (\d+)")
_SCHEMA = re.compile(r"^\d+; \d+ \d+ SCHEMA - (\S+) ", re.MULTILINE)  # in pg_restore's list of a file
_RECORD = re.compile(r"^\d+; \d+ \d+ TABLE DATA (\S+) schema_migration ", re.MULTILINE)
_MIGRATION = re.compile(rb"^(\d+)\t", re.MULTILINE)  # in that table's rows
_TENANT = re.compile(rf"{tenant_schema('x')[:-1]}([a-z][a-z0-9_-]*)")
_LOCK_WAIT = "60s"
# secrets of a libpq URL for which libpq reads no environment variable
_HAVE_NO_VARIABLE = frozenset({"sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})


class _Login(NamedTuple):
    """How a program logs in: arguments can be seen by every account of this machine, so secrets are in its environment."""

    database: str
    secret: Mapping[str, str]


class Imported(NamedTuple):
    """What an import restored."""

    names: list[str]
    without_walls: list[str]  # of these tenants: the login may not create their roles


async def export_tenant(url: str, name: str, file: Path, actor: Actor, programs: Path | None = None) -> int:
    """Write all that the store has of a tenant to a file, as of one moment, even while others use it; return its size in bytes.

    The tenant's audit has the export before anything is read. The file appears only when it is whole, and only for this
    account. `programs`: the folder of the server's pg_dump; None: the embedded server's own, or the one on the PATH.

    Raises:
        StoreError: there is no such tenant, its audit cannot note the export, or the file could not be written.
        StoreUnavailableError: there is no server, or no pg_dump of its version.
        MissingRightsError: the login does not own the tenant, or something could hide rows from it.
    """
    require_new_file(file)
    async with open_tenants(url, actor) as there:
        program = await _program("pg_dump", url, there, programs)
        is_subject = await there.require_whole_dump(name)
        with part_of(file) as part:
            await there.note_backup_of(name)
            args = [
                f'--schema="{tenant_schema(name)}"',
                "--format=custom",
                "--compress=1",
                f"--lock-wait-timeout={_LOCK_WAIT}",
            ]
            # the owner too sees rows only in a session that is bound to the tenant
            bound = name if is_subject else None
            row_security = ["--enable-row-security"] if is_subject else []
            done = await _ran(program, *args, *row_security, f"--file={part}", login=_login(there.server, bound))
            if done.returncode:
                raise StoreError(
                    f"pg_dump could not export tenant {name} (exit code {done.returncode}), and nothing was written: the "
                    f"disk may be full, the connection may have been lost, or a session held a lock on the tenant's tables for "
                    f"{_LOCK_WAIT}. Check these, and run the command again."
                )
            with file_border(file):
                with part.open("rb") as written:
                    os.fsync(written.fileno())
                size = part.stat().st_size
                part.replace(file)
    return size


async def import_tenants(url: str, file: Path, actor: Actor, programs: Path | None = None) -> Imported:
    """Restore the tenants of a file into a store that has none of that name, all or none, and build their walls.

    The login owns what it restores. `programs`: the folder of the server's pg_restore, as in `export_tenant`.

    Raises:
        StoreError: the file is damaged, or has something else than tenants, or the store has a tenant of that name. Or the
            tenants are restored and cannot be brought up to date; the message says so.
        StoreUnavailableError: there is no server, or no pg_restore of its version.
        MigrationError: a newer chartferry wrote the tenant.
    """
    require_dump(file, "`chartferry tenants export`")
    async with open_tenants(url, actor) as there:
        program = await _program("pg_restore", url, there, programs)
        names = await _tenants_in(program, file)
        if existing := sorted(set(names) & set(await there.names())):
            raise StoreError(
                f"the store already has tenant {', '.join(existing)}, and nothing was changed: an import never writes over one. "
                f"If an import of it was stopped, `chartferry tenants migrate {' '.join(existing)}` finishes it. `chartferry "
                "tenants drop` deletes a tenant."
            )
        args = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
        done = await _ran(program, *args, str(file), login=_login(there.server))
        if done.returncode:
            raise StoreError(
                f"pg_restore could not restore {file} (exit code {done.returncode}), and nothing was changed: the file may be "
                "damaged, or a newer Postgres wrote it; the disk may be full; the login may lack CREATE on the database; or a "
                "view in the tenant's schema may read what this database does not have. Check these, and run the command again."
            )
        # to the end: one tenant that fails must not keep the others of the file from their walls
        if failed := [one async for one in there.migrate(names) if one.error is not None]:
            wanting = [one.name for one in failed]
            raise StoreError(
                f"tenant {', '.join(names)} is restored, but {', '.join(wanting)} cannot be opened yet: "
                f"{' '.join(f'{one.name}: {one.error}' for one in failed)} Do not import the file again; when that is mended, "
                f"run chartferry tenants migrate {' '.join(wanting)}"
            )
        return Imported(names, await there.without_walls(names))


async def _tenants_in(program: Path, file: Path) -> list[str]:
    """Return the tenants of a file.

    Raises:
        StoreError: the file cannot be read, or has something else than tenants.
        MigrationError: a newer chartferry wrote a tenant.
    """
    listed = await _ran(program, "--list", str(file), reads=True)
    text = listed.stdout.decode(errors="replace")
    schemas = [] if listed.returncode else sorted(_SCHEMA.findall(text))
    if not schemas:
        raise StoreError(
            f"{file} has no tenant that this pg_restore can read: it may be damaged, or a newer Postgres may have written it."
        )
    recorded = set(_RECORD.findall(text))
    names = [found[1] for schema in schemas if schema in recorded and (found := _TENANT.fullmatch(schema))]
    if len(names) != len(schemas):
        raise StoreError(
            f"{file} has a schema that is no tenant of chartferry, and nothing was changed. Import a file that `chartferry "
            "tenants export` wrote, or restore this one with pg_restore."
        )
    newest = len(migrations())
    for name in names:
        only = ("--data-only", f"--schema={tenant_schema(name)}", "--table=schema_migration", "--file=-")
        rows = (await _ran(program, *only, str(file), reads=True)).stdout
        if (version := max(map(int, _MIGRATION.findall(rows)), default=0)) > newest:
            raise MigrationError(
                f"tenant {name} of {file} is at migration {version}, but this chartferry knows only {newest}, and nothing was "
                "changed: a newer one wrote the file. Upgrade this one."
            )
    return names


async def _program(name: str, url: str, there: Tenants, programs: Path | None) -> Path:
    """Return a program of the server's own version."""
    directory = embedded_directory(url)
    if programs is None and directory is not None:
        programs = programs_of(directory)
    found = shutil.which(name, path=None if programs is None else str(programs))
    needed = (
        f"Install the client programs of Postgres {there.major}, or name their folder with --programs (Debian's are in "
        f"/usr/lib/postgresql/{there.major}/bin)."
    )
    if found is None:
        raise StoreUnavailableError(
            f"there is no {name} {'on the PATH' if programs is None else f'in {programs}'}. {needed}"
        )
    version = _VERSION.search((await _ran(Path(found), "--version", reads=True)).stdout)
    if version is None or int(version[1]) != there.major:
        theirs = "an unknown Postgres" if version is None else f"Postgres {int(version[1])}"
        raise StoreUnavailableError(f"{found} is of {theirs}, and the server is Postgres {there.major}. {needed}")
    return Path(found)


def _login(url: str, tenant: str | None = None) -> _Login:
    parts = conninfo.conninfo_to_dict(full_conninfo(url))
    secret = {"PGPASSWORD": str(parts.pop("password"))} if "password" in parts else {}
    if shown := sorted(_HAVE_NO_VARIABLE & parts.keys()):
        raise StoreError(
            f"store.url has {', '.join(shown)}, which would be an argument of pg_dump or pg_restore, and every account of this "
            "machine can read those; nothing was written. Use a client key without a passphrase for this command."
        )
    if tenant is not None:
        parts["options"] = f"{parts.get('options', '')} -c app.current_tenant_id={tenant}".strip()
    return _Login(conninfo.make_conninfo("", **parts), secret)


async def _ran(
    program: Path, *args: str, login: _Login | None = None, reads: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; what it says of errors is not read, since that about a row has the row."""
    logged_in = [] if login is None else [f"--dbname={login.database}", "--no-password"]
    with file_border(program):
        return await anyio.run_process(
            [str(program), *logged_in, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if reads else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            env={**os.environ, **(login.secret if login else {})},
        )
