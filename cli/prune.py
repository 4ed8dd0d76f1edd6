"""`chartferry prune`: deletes old versions, quarantine and units; the present stays. The tables' owner runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cli.choosing import choose_tenant
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.in_store import in_store
from cli.invocation import invocation_of
from cli.render import emit_json, print_line, print_table

EXAMPLES = (
    "chartferry prune --history 2y --runs 1y --quarantine 90d --dry-run",
    "chartferry prune --history 2y --runs 1y --quarantine 90d",
)
_AGE = re.compile(r"([1-9][0-9]{0,4})([dy])")
AGE = "AGE"


def prune(
    context: typer.Context,
    *,
    history: Annotated[
        str | None,
        typer.Option(
            "--history",
            metavar=AGE,
            help="Delete versions that were replaced at least this long ago: 2y, 90d.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        str | None,
        typer.Option(
            "--runs",
            metavar=AGE,
            help="Delete the units of runs that ended at least this long ago, their holes too.",
            show_default=False,
        ),
    ] = None,
    quarantine: Annotated[
        str | None,
        typer.Option(
            "--quarantine",
            metavar=AGE,
            help="Delete input that was quarantined at least this long ago.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; say how much would be deleted.")] = False,
) -> int:
    """Delete old versions, quarantined input and the units of old runs.

    Earlier moments can no longer be read; the present and its tombstones stay.

    If it is stopped, run it again: it continues.

    Exit codes: 0 deleted, 4 nothing is that old, 5 failed.
    """
    if history is None and quarantine is None and runs is None:
        raise typer.BadParameter("say what to delete: --history AGE, --runs AGE, --quarantine AGE, or several of them")
    now = datetime.now(UTC)
    before = {
        "history": _before("--history", history, now),
        "quarantine": _before("--quarantine", quarantine, now),
        "runs": _before("--runs", runs, now),
    }
    invocation = invocation_of(context)
    settings = settings_of(invocation)
    pruned = in_store(
        invocation,
        settings,
        choose_tenant(settings, invocation.tenant),
        lambda store: store.prune(**before, dry_run=dry_run),
    )
    return _report_pruned(pruned.rows, pruned.kept_from, dry_run=dry_run, json=invocation.json)


def _report_pruned(rows: Mapping[str, int], kept_from: Mapping[str, int], *, dry_run: bool, json: bool) -> ExitCode:
    code = ExitCode.COMPLETE if rows or kept_from else ExitCode.NOTHING
    if json:
        emit_json(
            {
                "status": "complete" if code == ExitCode.COMPLETE else "nothing",
                "dry_run": dry_run,
                "rows": dict(rows),
                "kept_from": dict(kept_from),
            }
        )
        return code
    if rows:
        print_table(("would delete from" if dry_run else "deleted from", "rows#"), list(rows.items()))
    else:
        print_line("nothing is that old")
    for name, run in kept_from.items():
        print_line(f"{name}: the first moment that can be read {'would be' if dry_run else 'is'} run {run}")
    return code


def _before(option: str, age: str | None, now: datetime) -> datetime | None:
    """Return the moment that is so long ago; a usage error names the option."""
    if age is None:
        return None
    found = _AGE.fullmatch(age)
    if found is None:
        raise typer.BadParameter(f"{option} {age}: a number of days or years, such as 90d or 2y")
    count = int(found[1])
    try:
        return (
            now - timedelta(days=count) if found[2] == "d" else now.replace(year=now.year - count, day=min(now.day, 28))
        )
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{option} {age}: that is before the year 1") from None
