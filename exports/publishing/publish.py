"""The use case: keeps a published dataset current, by a snapshot or by an increment since what it has.

Follows the paragraph "Publish" of ARCHITECTURE.md: read the chain, decide, files aside, read back, page last. The caller gives
the destination, and opens snapshots of the store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from exports.delivery.destination import Destination
from exports.delivery.files import AtomicFile
from exports.delivery.manifest import instant
from exports.errors import PlanError
from exports.formats.deletions import deletion_bundles
from exports.formats.ndjson import ndjson_rows
from exports.named_patients import patient_notes
from exports.publishing.chain import (
    Chain,
    Journal,
    Links,
    add_increment,
    begin_chain,
    check_written,
    data_name,
    read_chain,
)
from exports.publishing.manifest_page import (
    INCREMENT,
    FileEntry,
    Moment,
    Page,
    dataset_members,
    erasures_of,
    request_of,
)
from exports.run import FileProgress
from exports.snapshot_port import RowChunks, Snapshot, UnendedRun
from snapshots.errors import HistoryPrunedError, RunNotFoundError

MOST_INCREMENTS = 30  # then a new follower would read more pages than a snapshot is worth
DELETED = "deleted"
ERASED = "a patient was erased from the store since the last one"

OpenSnapshot = Callable[[int | None], AbstractAsyncContextManager[Snapshot]]


@dataclass(frozen=True, kw_only=True)
class PublishRequest:
    """What is published: one connection's resources, of these types (empty: all) and patients (None: all).

    `base_url`: where the files will be found, if pages are to name them by absolute URLs. `increments`: after this many, a new
    snapshot is made.
    """

    connections: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None
    base_url: str | None = None
    increments: int = MOST_INCREMENTS

    @property
    def checksum(self) -> str:
        """Return what names the request: another one makes another dataset."""
        patients = None if self.patients is None else sorted(set(self.patients))
        parts = [sorted(set(self.types)), patients, self.base_url]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Published:
    """What was published. `why`: the reason for a new snapshot in the place of an increment, if there was a dataset already.

    `notes`: what its files do not show, such as named patients who are not stored.
    """

    what: Literal["snapshot", "increment", "unchanged", "nothing"]
    moment: Moment | None
    output: tuple[FileEntry, ...] = ()
    deleted: tuple[FileEntry, ...] = ()
    not_included: tuple[UnendedRun, ...] = ()
    why: str | None = None
    notes: tuple[str, ...] = ()


async def publish(
    request: PublishRequest,
    destination: Destination,
    open_snapshot: OpenSnapshot,
    *,
    on_progress: Callable[[FileProgress], None] = lambda _: None,
) -> Published:
    """Bring the dataset at a destination to what ended runs have left; a follower sees it before or after, never between.

    `open_snapshot` opens the selection of the request: whole, or what has changed since a run. An export that is killed leaves
    files that nothing refers to, and the next one takes those that fit.

    Raises:
        PlanError: the selection has several connections, whose ids could be equal.
        DatasetError: the destination has a manifest of another kind.
        DestinationError: it cannot be written, or does not give back what was written.
    """
    with destination.opened() as working:
        chain = read_chain(destination)
        why = _why_restarted(chain, request)
        if chain is not None and chain.moment is not None and why is None:
            try:
                async with open_snapshot(chain.moment.run) as snapshot:
                    if snapshot.erasures != erasures_of(chain.root):
                        why = ERASED
                    elif snapshot.changed_from == chain.moment.as_of:
                        work = _Work(request, destination, working, snapshot, on_progress)
                        notes = await patient_notes(snapshot)
                        return replace(await work.increment(chain, chain.moment), notes=notes)
                    else:
                        why = f"the store's run {chain.moment.run} is not the one that was published"
            except HistoryPrunedError:
                why = f"the history since run {chain.moment.run}, which was published, was pruned from the store"
            except RunNotFoundError:
                why = f"the store has no run {chain.moment.run}, which was published"
        async with open_snapshot(None) as snapshot:
            work = _Work(request, destination, working, snapshot, on_progress)
            notes = await patient_notes(snapshot)
            return replace(await work.snapshot(chain), why=why, notes=notes)


def _why_restarted(chain: Chain | None, request: PublishRequest) -> str | None:
    """Why the dataset cannot, or should not, get an increment; None if it can, or there is none."""
    if chain is None:
        return None
    if chain.broken is not None:
        return chain.broken
    if request_of(chain.root) != request.checksum:
        return "the request differs from what was published"
    increments = len(chain.pages) - 1  # beside the stub
    return f"it has {increments} increments" if increments >= request.increments else None


class _Work:
    """One snapshot of the store on its way into the dataset."""

    def __init__(
        self,
        request: PublishRequest,
        destination: Destination,
        working: Path,
        snapshot: Snapshot,
        on_progress: Callable[[FileProgress], None],
    ) -> None:
        if snapshot.mask is not None:
            raise PlanError(
                "a dataset has whole resources, but encrypted values are masked for you: let somebody in a role that sees "
                "them publish, or lift the mask this once (--break-glass)"
            )
        if len(snapshot.connections) > 1:
            names = ", ".join(snapshot.connections)
            raise PlanError(
                f"a dataset has one connection, because ids are unique only within one; the store has {names}: publish each "
                "into a "
                "folder of its own, with --connection"
            )
        self._request = request
        self._destination = destination
        self._working = working
        self._snapshot = snapshot
        self._on_progress = on_progress
        self._links = Links(request.base_url)

    async def snapshot(self, former: Chain | None) -> Published:
        """Publish everything."""
        moment = self._moment()
        if moment is None:
            return Published("nothing", None, not_included=self._snapshot.not_included)
        journal = Journal(self._destination, self._purpose(moment))
        output = await self._written(journal)
        await self._snapshot.end()
        check_written(self._destination, output)
        (connection,) = self._snapshot.connections
        own = {"version": version("chartferry"), "connection": connection, "request": self._request.checksum}
        page = Page(dataset_members(moment, **own, erasures=self._snapshot.erasures), output)
        has_erased = former is not None and erasures_of(former.root) != self._snapshot.erasures
        begin_chain(self._destination, former, page, moment, self._links, keep_files=not has_erased)
        journal.end()
        return Published("snapshot", moment, output, not_included=self._snapshot.not_included)

    async def increment(self, chain: Chain, since: Moment) -> Published:
        """Publish what has changed since what the chain leads to."""
        moment = self._moment()
        not_included = self._snapshot.not_included
        if moment is None or moment == since:
            return Published("unchanged", since, not_included=not_included)
        journal = Journal(self._destination, self._purpose(moment, since))
        extension = (moment.extension(INCREMENT),)
        output = tuple(replace(entry, extension=extension) for entry in await self._written(journal))
        gone = await self._file(journal, DELETED, None, deletion_bundles(self._snapshot))
        deleted = () if gone is None else (replace(gone, extension=extension),)
        await self._snapshot.end()
        check_written(self._destination, (*output, *deleted))
        if output or deleted:
            page = Page(chain.root.members, output, deleted)
            add_increment(self._destination, chain, page, moment, self._links)
        journal.end()
        what: Literal["increment", "unchanged"] = "increment" if output or deleted else "unchanged"
        return Published(what, moment, output, deleted, not_included)

    def _moment(self) -> Moment | None:
        runs = self._snapshot.runs
        return Moment(runs[-1], self._snapshot.as_of) if runs else None

    def _purpose(self, moment: Moment, since: Moment | None = None) -> dict[str, object]:
        moments = [None if one is None else [one.run, instant(one.as_of)] for one in (moment, since)]
        erasures = self._snapshot.erasures  # a file of before has a chart that is gone
        return {"request": self._request.checksum, "to": moments[0], "since": moments[1], "erasures": erasures}

    async def _written(self, journal: Journal) -> tuple[FileEntry, ...]:
        """Write a file for each type that has rows."""
        present = set(await self._snapshot.present())
        found = [await self._file(journal, one, one, ndjson_rows(self._snapshot, one)) for one in sorted(present)]
        return tuple(entry for entry in found if entry is not None)

    async def _file(self, journal: Journal, subject: str, kind: str | None, chunks: RowChunks) -> FileEntry | None:
        """Write the rows of a subject; None if there are none."""
        if not journal.has(subject):
            journal.note(subject, await self._fill(subject, kind, chunks))
        return journal.entry(subject)

    async def _fill(self, subject: str, kind: str | None, chunks: RowChunks) -> FileEntry | None:
        shown_as = f"{subject}.ndjson"
        with AtomicFile(self._working / shown_as, compress="no") as part:
            async for chunk in chunks:
                part.write(chunk)
                self._on_progress(FileProgress(shown_as, chunks.rows, part.uncompressed_bytes, None, done=False))
            sealed = part.seal(kind="ndjson", rows=chunks.rows)
            self._on_progress(FileProgress(shown_as, chunks.rows, part.uncompressed_bytes, chunks.rows, done=True))
            if not chunks.rows:
                return None
            name = data_name(subject, sealed.sha256)
            self._destination.take(part, name)
        return FileEntry(self._links.to(name), chunks.rows, kind)
