"""`chartferry tenants list|add|migrate|export|import|drop`: the tenants of a store. The store's owner runs these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cli.acting import actor_of
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.invocation import Invocation, invocation_of
from cli.render import emit_json, print_line, print_message, print_table, size
from cli.supervise import supervise
from config.how_many import how_many
from snapshots.moving import export_tenant, import_tenants
from snapshots.tenants import Migrated, Tenant, Tenants, open_tenants

LIST_EXAMPLES = ("chartferry tenants list",)
ADD_EXAMPLES = ("chartferry tenants add mercy",)
MIGRATE_EXAMPLES = ("chartferry tenants migrate",)
EXPORT_EXAMPLES = ("chartferry tenants export mercy --out mercy.dump",)
IMPORT_EXAMPLES = ("chartferry tenants import mercy.dump --config new.toml",)
DROP_EXAMPLES = ("chartferry tenants drop mercy --yes",)
T = TypeVar("T")
Programs = Annotated[
    Path | None,
    typer.Option(
        "--programs",
        metavar="DIR",
        help="Folder with the programs of the server's Postgres; default: the embedded server's, or those on the PATH.",
        show_default=False,
    ),
]


def list_tenants(context: typer.Context) -> int:
    """List the store's tenants: size, migration, whether their walls stand, and what was opened in them.

    Exit codes: 0 listed, 4 no tenants.
    """
    invocation = invocation_of(context)
    found = _on_tenants(invocation, lambda tenants: tenants.existing())
    if invocation.json:
        rows = [
            {
                "name": one.name,
                "migration": one.version,
                "current": one.is_current,
                "bytes": one.size,
                "breaches": one.breaches,
            }
            for one in found
        ]
        emit_json({"status": "complete" if found else "nothing", "tenants": rows})
    elif found:
        cells = [(one.name, str(one.version), _state(one), size(one.size)) for one in found]
        print_table(("tenant", "migration#", "", "size#"), cells)
        for one in found:
            if one.breaches:
                print_line(
                    f"{one.name}: somebody has opened its walls; the owner, or a superuser, must run: {'; '.join(one.breaches)}"
                )
    else:
        print_line("the store has no tenants yet: the first sync creates one, or `chartferry tenants add`")
    return ExitCode.COMPLETE if found else ExitCode.NOTHING


def _state(tenant: Tenant) -> str:
    if not tenant.is_current:
        return "migrate is due"
    return "opened" if tenant.breaches else ""


def add(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new tenant.")]
) -> int:
    """Create a tenant's schema, its roles and policies; a tenant's first sync does it too.

    Exit codes: 0 created, 4 it exists already, 5 failed.
    """
    invocation = invocation_of(context)

    async def work(tenants: Tenants) -> tuple[bool, list[str]]:
        return await tenants.add(name), await tenants.without_walls([name])

    made, without_walls = _on_tenants(invocation, work)
    if invocation.json:
        emit_json({"status": "complete" if made else "nothing", "tenant": name, "without_walls": without_walls})
    else:
        print_line(f"made tenant {name}" if made else f"tenant {name} exists already")
        _warn(without_walls)
    return ExitCode.COMPLETE if made else ExitCode.NOTHING


def migrate(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Default: all tenants.")] = None,
) -> int:
    """Bring the tenants' schemas and walls up to date, each in its own transaction; run it again to finish.

    Exit codes: 0 all are up to date, 3 some failed, 4 no tenants, 5 the store cannot be opened.
    """
    invocation = invocation_of(context)

    async def work(tenants: Tenants) -> tuple[list[Migrated], list[str]]:
        done = [one async for one in tenants.migrate(names or ())]
        return done, await tenants.without_walls([one.name for one in done if one.error is None])

    done, without_walls = _on_tenants(invocation, work)
    failed = [one for one in done if one.error is not None]
    changed = [one.name for one in done if one.changed]
    status = "nothing" if not done else "partial" if failed else "complete"
    if invocation.json:
        failures = [{"tenant": one.name, "error": str(one.error)} for one in failed]
        found = {"status": status, "tenants": len(done), "migrated": changed, "failed": failures}
        emit_json({**found, "without_walls": without_walls})
    else:
        for one in failed:
            print_message(f"{one.name}: {one.error}")
        current = len(done) - len(changed) - len(failed)
        print_line(
            f"{how_many(len(done), 'tenant')}: {len(changed)} migrated, {current} up to date, {len(failed)} failed"
        )
        _warn(without_walls)
    return {"nothing": ExitCode.NOTHING, "partial": ExitCode.PARTIAL}.get(status, ExitCode.COMPLETE)


def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the tenant.")],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.", show_default=False)],
    programs: Programs = None,
) -> int:
    """Write a whole tenant to one file, as of one moment, for `tenants import` into another store.

    The file has charts in plain text, except for values that the store encrypts. The tenant's audit notes the export.

    Exit codes: 0 written, 5 failed.
    """
    invocation = invocation_of(context)
    settings = settings_of(invocation)
    actor = actor_of(invocation, settings, reads_charts=True, opens_values=False)
    file, where = out.absolute(), _absolute(programs)
    written = supervise(
        lambda: export_tenant(settings.store_url, name, file, actor, where), resume="nothing was written"
    )
    if invocation.json:
        emit_json({"status": "complete", "tenant": name, "file": str(out), "bytes": written})
    else:
        print_line(f"{out}: {size(written)}, tenant {name}")
    return ExitCode.COMPLETE


def import_file(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that `tenants export` wrote.", show_default=False)
    ],
    programs: Programs = None,
) -> int:
    """Restore a tenant from a file into a store that has none of that name, and build its walls.

    Import only files that you trust: what is in them runs as the tables' owner.

    Exit codes: 0 restored, 5 failed.
    """
    invocation = invocation_of(context)
    settings = settings_of(invocation)
    actor = actor_of(invocation, settings, reads_charts=False)
    where = _absolute(programs)
    names, without_walls = supervise(
        lambda: import_tenants(settings.store_url, file.absolute(), actor, where),
        resume="run the same command again; if the tenant is there then, `chartferry tenants migrate` finishes the import",
    )
    if invocation.json:
        emit_json({"status": "complete", "tenants": names, "without_walls": without_walls})
    else:
        print_line(f"restored {how_many(len(names), 'tenant')} from {file}: {', '.join(names)}")
        print_line("next     `chartferry tenants list` and `chartferry audit verify` check what was restored")
        _warn(without_walls)
    return ExitCode.COMPLETE


def _warn(without_walls: list[str]) -> None:
    for name in without_walls:
        print_message(
            f"tenant {name} has no walls, because this login may not create its roles: `chartferry config check --connect` "
            "prints what a superuser must run"
        )


def _absolute(programs: Path | None) -> Path | None:
    return None if programs is None else programs.absolute()


def drop(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the tenant.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm: only a backup can bring it back.")] = False,
) -> int:
    """Delete a tenant: all its charts, their history, its audit, and its roles.

    Exit codes: 0 deleted, 2 without --yes, 5 failed, 6 a run is in progress.
    """
    if not yes:
        raise typer.BadParameter(
            f"this deletes all charts of tenant {name}, their history and the audit; repeat it with --yes"
        )
    invocation = invocation_of(context)
    left = _on_tenants(invocation, lambda tenants: tenants.drop(name))
    if invocation.json:
        emit_json({"status": "complete", "tenant": name, "roles_left": left})
    else:
        print_line(f"deleted tenant {name}")
        for role in left:
            print_message(
                f"the role {role} stays, because it has rights in another database, or this login may not drop it"
            )
    return ExitCode.COMPLETE


def _on_tenants(invocation: Invocation, work: Callable[[Tenants], Awaitable[T]]) -> T:
    settings = settings_of(invocation)
    actor = actor_of(invocation, settings, reads_charts=False)

    async def done() -> T:
        async with open_tenants(settings.store_url, actor) as tenants:
            return await work(tenants)

    return supervise(done, resume="run the same command again")
