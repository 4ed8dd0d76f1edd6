"""`chartferry views create|drop|refresh`: SQL views in the tenant's schema, for psql and BI tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from cli.choosing import choose_tenant
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.in_store import in_store
from cli.invocation import Invocation, invocation_of
from cli.render import emit_json, print_line, print_message, print_table
from exports.catalogue import builtin_names, load_views
from exports.typed_rows import typed_rows
from exports.view_check import compiled_over_nothing
from snapshots.sql_views import SqlView, SqlViews, rows_of
from snapshots.store import Store

CREATE_EXAMPLES = (
    "chartferry views create",
    "chartferry views create observation my_view.json --materialized",
)
DROP_EXAMPLES = ("chartferry views drop observation",)
REFRESH_EXAMPLES = ("chartferry views refresh",)


def create(
    context: typer.Context,
    views: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|FILE", help="Built-in views or ViewDefinitions' files; default: all built-in."),
    ] = None,
    *,
    materialized: Annotated[
        bool, typer.Option("--materialized", help="Store the rows: quicker to read, and as of the last refresh.")
    ] = False,
) -> int:
    """Create SQL views in the tenant's schema, or replace those that chartferry created before.

    Either all that are named are created, or none. Columns that a view no longer has are named. Exit codes: 0 created,
    2 a view is wrong, 5 failed.
    """
    invocation = invocation_of(context)
    loaded = load_views(tuple(dict.fromkeys(views or builtin_names())))
    if twice := sorted(name for name, times in Counter(view.name for view in loaded).items() if times > 1):
        raise typer.BadParameter(f"several views have the name {', '.join(twice)}")
    notes = [f"view {view.name!r}, {note}" for view in loaded for note in compiled_over_nothing(view).notes]

    async def work(sql_views: SqlViews) -> list[SqlView]:
        queries = [
            (view, typed_rows(view, rows_of(view.resource, documents=view.reads_documents), sealed=sql_views.sealed))
            for view in loaded
        ]
        async with sql_views.all_or_none():
            return [
                await sql_views.create(view.name, query, digest=view.digest, materialized=materialized)
                for view, query in queries
            ]

    done = _on_views(invocation, work)
    for note in notes:
        print_message(note)
    for view in done:
        if view.dropped:
            print_message(f"{view.name} no longer has the columns {', '.join(view.dropped)}")
    return _report(done, "created", json=invocation.json)


def drop(
    context: typer.Context,
    views: Annotated[list[str], typer.Argument(metavar="NAME...", help="Views that chartferry created.")],
) -> int:
    """Drop SQL views that chartferry created, all or none.

    Exit codes: 0 dropped, 5 a view does not exist, or others depend on it.
    """
    invocation = invocation_of(context)
    return _report(_on_views(invocation, lambda sql_views: sql_views.drop(views)), "dropped", json=invocation.json)


def refresh(
    context: typer.Context,
    views: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Materialised views; default: all.")] = None,
) -> int:
    """Refresh the rows of materialised views. `refresh_views = true` in the section export does it after each sync.

    Exit codes: 0 refreshed, 4 no such view, 5 failed.
    """
    invocation = invocation_of(context)
    refreshed = _on_views(invocation, lambda sql_views: sql_views.refresh(views or ()))
    return _report(refreshed, "refreshed", json=invocation.json)


def _on_views(invocation: Invocation, work: Callable[[SqlViews], Awaitable[list[SqlView]]]) -> list[SqlView]:

    async def with_views(store: Store) -> list[SqlView]:
        async with store.sql_views() as sql_views:
            return await work(sql_views)

    settings = settings_of(invocation)
    return in_store(invocation, settings, choose_tenant(settings, invocation.tenant), with_views)


def _report(views: list[SqlView], what: str, *, json: bool) -> int:
    rows = [
        {
            "name": view.name,
            "materialized": view.materialized,
            "columns": len(view.columns),
            "dropped_columns": list(view.dropped),
            "as_of": view.as_of.isoformat() if view.as_of else None,
        }
        for view in views
    ]
    if json:
        emit_json({"status": "complete" if views else "nothing", what: rows})
    elif views:
        cells = [(view.name, "materialised" if view.materialized else "", str(len(view.columns))) for view in views]
        print_table((what, "", "columns#"), cells)
    else:
        print_line("chartferry has no materialised view: `chartferry views create --materialized` creates one")
    return ExitCode.COMPLETE if views else ExitCode.NOTHING
