"""`chartferry export --publish`: keeps a published dataset current, and prints what was done. `export` reads the command line."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from cli.exit_codes import ExitCode
from cli.progress import file_progress
from cli.render import emit_json, number, print_line, print_table
from exports.delivery.destination import Destination
from exports.delivery.manifest import instant
from exports.publishing.publish import Published, PublishRequest, publish
from snapshots.selection import Selection
from snapshots.store import Store


async def run_publish(
    opening: AbstractAsyncContextManager[Store], request: PublishRequest, destination: Destination, *, terminal: bool
) -> Published:
    """Publish from the store, with progress on stderr."""
    with file_progress(terminal=terminal) as show:
        async with opening as store:
            return await publish(
                request,
                destination,
                lambda since: store.snapshot(
                    Selection(
                        connections=request.connections,
                        patients=request.patients,
                        types=request.types,
                        changed_since=since,
                    )
                ),
                on_progress=show,
            )


def show_published(done: Published, destination: Destination, *, json: bool) -> int:
    """Print what was published, and return the exit code."""
    if json:
        emit_json(_as_json(done, destination))
        return ExitCode.NOTHING if done.what == "nothing" else ExitCode.COMPLETE
    if done.output or done.deleted:
        entries = [*done.output, *done.deleted]
        print_table(("file", "rows#"), [(entry.url, number(entry.count or 0)) for entry in entries])
    if done.why is not None:
        print_line(f"a new snapshot was made, because {done.why}")
    for note in done.notes:
        print_line(note)
    if done.not_included:
        print_line(f"not included: {', '.join(f'run {one.run} of {one.connection}' for one in done.not_included)}")
    if done.moment is None:
        print_line("no run has ended yet: there is nothing to publish")
        return ExitCode.NOTHING
    upto = f"up to run {done.moment.run}, as of {done.moment.as_of.isoformat()}"
    what = "nothing has changed" if done.what == "unchanged" else f"{done.what} published"
    print_line(f"{destination}: {what}, {upto}")
    return ExitCode.COMPLETE


def _as_json(done: Published, destination: Destination) -> dict[str, object]:
    return {
        "status": "nothing" if done.what == "nothing" else "complete",
        "published": done.what,
        "destination": str(destination),
        "run": None if done.moment is None else done.moment.run,
        "as_of": None if done.moment is None else instant(done.moment.as_of),
        "why": done.why,
        "notes": list(done.notes),
        "not_included": [{"run": one.run, "connection": one.connection} for one in done.not_included],
        "output": [{"type": one.type, "url": one.url, "count": one.count} for one in done.output],
        "deleted": [{"url": one.url, "count": one.count} for one in done.deleted],
    }
