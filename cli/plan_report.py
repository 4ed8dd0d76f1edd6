"""`sync --plan`: prints for each connection how it would be fetched, for which patients, and with how many requests at least."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict

from cli.acting import actor_of
from cli.exit_codes import ExitCode, explain
from cli.in_store import opened_store
from cli.invocation import Invocation
from cli.log_lines import start_logging
from cli.preview import Preview
from cli.progress import Show, run_progress
from cli.render import by_type, emit_json, print_line
from cli.run_options import RunOptions
from cli.supervise import supervise
from cli.wiring import preview_connection
from config.connections import Connection
from config.how_many import how_many
from config.settings import Settings
from snapshots.errors import StoreError
from snapshots.store_url import store_exists

MANY = 100  # types to name before "… more"


def preview_all(
    settings: Settings, connections: Sequence[Connection], options: RunOptions, invocation: Invocation
) -> list[Preview]:
    """Plan each connection's run, one after another; a connection that cannot be planned says why."""
    actor = actor_of(invocation, settings, reads_charts=False)

    async def one(connection: Connection, show: Show) -> Preview:
        unread = ""
        async with AsyncExitStack() as stack:
            store = None
            try:
                if store_exists(settings.store_url):
                    store = await stack.enter_async_context(opened_store(settings, connection.tenant, actor))
            except StoreError as exc:
                unread = f"planned as a first run, because the knowledge of earlier runs cannot be read: {exc}"
            try:
                preview = await preview_connection(connection, options, store, show)
            except Exception as exc:  # noqa: BLE001  ends here: the error becomes this connection's plan and the exit code
                preview = Preview(connection=connection.name, error=explain(exc)[1])
        preview.notes = (*preview.notes, unread) if unread else preview.notes
        return preview

    with run_progress(terminal=invocation.terminal) as show:
        start_logging(invocation)
        return [
            supervise(lambda connection=connection: one(connection, show), resume="nothing was changed")  # type: ignore[misc]
            for connection in connections
        ]


def show_plans(previews: Sequence[Preview], *, json: bool) -> ExitCode:
    """Print the plans; return FAILED if one could not be made."""
    code = ExitCode.COMPLETE if previews else ExitCode.NOTHING
    if any(preview.error for preview in previews):
        code = ExitCode.FAILED
    if json:
        status = {ExitCode.COMPLETE: "complete", ExitCode.NOTHING: "nothing"}.get(code, "failed")
        emit_json({"status": status, "plans": [asdict(preview) for preview in previews]})
        return code
    for preview in previews:
        print_line(_describe(preview))
    if not previews:
        print_line("nothing to plan: no connection is configured")
    return code


def _since(preview: Preview) -> list[str]:
    """Return since when each type is requested; patients who are new or behind have their own start."""
    if not preview.since:
        return ["  everything, without _since: a full listing"]
    by_instant: dict[str, list[str]] = {}
    for resource_type, instant in preview.since.items():
        by_instant.setdefault(instant, []).append(resource_type)
    return [f"  since {instant}: {', '.join(sorted(types))}" for instant, types in sorted(by_instant.items())]


def _of_open_run(preview: Preview) -> list[str]:
    """Return what becomes of a run that has not ended: the plan below it is a new run's."""
    found = preview.open_run
    if found is None:
        return []
    start = f"{preview.connection}: run {found.run}, which began {found.began:%Y-%m-%d %H:%M} UTC, "
    if found.fate == "in progress":
        return [
            f"{start}is in progress: a sync now would stop at once (exit code {ExitCode.BUSY.value}). After it, a new run:"
        ]
    if found.fate == "given up":
        return [
            f"{start}is open, but has another request or address, or is too old: the next sync gives it up and starts a new run:"
        ]
    left = sum(found.left.values())
    what = (
        f"{left:,} of its {found.units:,} units are left ({by_type(found.left)})"
        if left
        else "none of its units are left"
    )
    if not found.units:
        what = "it has planned nothing yet"
    job = ", and continues its export at the server" if found.has_export else ""
    return [f"{start}is open: the next sync resumes it{job}; {what}. A new run would be:"]


def _extent(preview: Preview) -> str:
    total = sum(preview.units.values())
    if preview.patients is None:
        return f"{preview.mode}, {how_many(total, 'unit')}"
    searches = how_many(total, "search", "searches")
    return f"crawl of {how_many(preview.patients, 'patient')} in {searches}, one page or more each"


def _describe(preview: Preview) -> str:
    lines = _of_open_run(preview)
    if preview.error:
        lines.append(f"{preview.connection}: cannot be planned: {preview.error}")
    elif preview.request:
        types = ", ".join(filter(None, preview.types)) or "whatever the server exports"
        since = f"_since={preview.since['*']}" if preview.since else "everything, without _since"
        lines.append(f"{preview.connection}: bulk export by {preview.request}; types: {types}; {since}")
    else:
        lines.append(f"{preview.connection}: {_extent(preview)}")
        lines.append(f"  {by_type(preview.units, most=MANY)}")
        lines += _since(preview) if preview.mode == "crawl" else ()
    lines += [f"  note: {note}" for note in preview.notes]
    return "\n".join(lines)
