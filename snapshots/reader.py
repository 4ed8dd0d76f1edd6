"""Reads the store: one consistent moment of a selection, as counts, NDJSON, CSV, or a subquery.

A `Snapshot` is one REPEATABLE READ transaction of its tenant; the audit notes whose data it has read. It shows what ended runs
left, and names runs that have not ended. `opening` makes it, `copy_stream` reads the bytes, exports packs the files.
"""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, sql

from snapshots.comparison import Comparison, difference_opened_by
from snapshots.copy_stream import LINES_A_STRETCH, ROWS_A_STRETCH, CopyStream, narrow
from snapshots.copying import Opened, Sessions
from snapshots.errors import store_border
from snapshots.identifying import SealedElements
from snapshots.read_runs import ReadRuns, ShownRun, UnendedRun
from snapshots.reading import Reading, ReadSoFar, WhatWasRead, named_patients, reading_beside
from snapshots.sealed_values import Sealer
from snapshots.sealing import MASK, masked_row, opened_row
from snapshots.selected_rows import SelectedRows
from snapshots.selection import Selection
from snapshots.sql import load
from snapshots.stored_documents import ONCE_BY_KEY, PLAIN_BODY, TEXT_PATHS, opened, with_document
from snapshots.tenancy import TenantSession

_SQL = load("reader")
Lend = Callable[[], AbstractAsyncContextManager[TenantSession]]  # a session for the length of a block


class Snapshot:
    """One consistent moment of a selection, made by `Store.snapshot`. Read one stream of it at a time: more need `beside`."""

    def __init__(
        self,
        conn: AsyncConnection[Any],
        selection: Selection,
        runs: ReadRuns,
        *,
        before: Snapshot | None = None,
        audited: Reading | None = None,
        lend: Lend | None = None,
        sealer: Sealer | None = None,
        masks: bool = False,
    ) -> None:
        """`before`: the same selection as it was when `changed_since` had ended. `masks`: no decrypted value is returned."""
        self.sessions = Sessions(conn)  # its own, and those beside it
        self._runs = runs
        self._before = before
        self._audited = audited
        self._lend = lend
        self._sealer = sealer
        self._masks = masks
        self._limit: int | None = None
        self._read = ReadSoFar()
        self._of = SelectedRows(
            selection=selection,
            connections=runs.numbers,
            later=runs.left_out,
            before=None if before is None else before.left_out,
        )

    async def narrow(
        self,
        *,
        keep: Mapping[str, sql.Composable] | None = None,
        sample: int | None = None,
        seed: int = 0,
        limit: int | None = None,
    ) -> None:
        """Narrow the selection, before anything is read of it.

        `keep`: by type, a condition on the row `r` of `resource` that its rows must meet. `sample`: the number of patients to
        keep of those that are left, with what their charts refer to; chosen only by `seed` and their ids. `limit`: the most rows
        that a stream returns.
        """
        self._of = replace(self._of, kept=dict(keep or {}))
        self._limit = limit
        if sample is not None:
            patients = tuple(row[0] for row in await self.fetch(self._of.sampled(sample, seed)))
            self._of = replace(self._of, selection=replace(self._of.selection, patients=patients, mentioned=True))
            await self.find_mentioned()

    async def find_mentioned(self) -> None:
        """Find what the selected patients' charts refer to, if the selection asks for it."""
        if self._of.selection.mentioned and self._of.selection.patients is not None:
            await self.fetch(sql.SQL(_SQL["little_memory"]))
            found = await self.fetch(self._of.mentioned_by_charts())
            await self.fetch(sql.SQL(_SQL["settings"]))
            self._of = replace(self._of, mentioned=tuple((row[0], row[1], row[2]) for row in found))

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Snapshot]:
        """Yield a snapshot of the same rows and moment in a second session, to be read at the same time.

        The audit notes what it reads with this one's reads, so it ends before this one does.

        Raises:
            StoreUnavailableError: the server allows no further session.
        """
        assert self._audited is not None
        assert self._lend is not None
        async with AsyncExitStack() as opened:
            session = await opened.enter_async_context(self._lend())
            with store_border("opening a second session"):
                await opened.enter_async_context(reading_beside(session, self._audited))
                await session.conn.execute(_SQL["settings"])
            second = copy.copy(self)
            second._audited = None  # noqa: SLF001 - a snapshot as well
            with store_border("reading in a second session"):
                async with self.sessions.beside(session.conn) as second.sessions:
                    yield second

    def lent(self) -> AbstractAsyncContextManager[None]:
        """Lend this session to the other snapshots' streams until the end of the block; this one reads nothing meanwhile."""
        return self.sessions.own.lent()

    @property
    def as_of(self) -> datetime:
        """When the newest included run began; the epoch if none has finished. Never the time of reading."""
        return self._runs.as_of

    @property
    def runs(self) -> tuple[int, ...]:
        """The newest finished run of each connection that left anything, ascending."""
        return tuple(one.run for one in self.shown)

    @property
    def left_by(self) -> int | None:
        """The one of these runs that ended last, for the next `changed_since`; None: no run."""
        return self._runs.left_by

    @property
    def shown(self) -> tuple[ShownRun, ...]:
        """The same runs, and how they ended."""
        return self._runs.shown

    @property
    def not_included(self) -> tuple[UnendedRun, ...]:
        """The runs of these connections that have not ended, ascending; what they have written so far is left out."""
        return self._runs.unended

    @property
    def left_out(self) -> tuple[int, ...]:
        """All runs whose work is left out: open ones, and those that ended after the selection's moment."""
        return self._runs.left_out

    def is_behind(self, other: Snapshot) -> bool:
        """Whether the other shows a run that this one leaves out."""
        return self._runs.are_behind(other._runs)

    @property
    def connections(self) -> tuple[str, ...]:
        """The connections that are read, in order."""
        return tuple(one.name for one in self._runs.sources)

    async def types(self) -> dict[str, int]:
        """Count the selection's live resources by type, in the order of names; types without any are left out."""
        rows = await self.fetch(sql.SQL(_SQL["types"]).format(rows=self._of.rows(), selected=self._of.selected()))
        if self._of.selection.patients is not None:  # the count has shown which types they have
            self._read.types.update(row[0] for row in rows)
        return {row[0]: row[1] for row in rows}

    async def present(self) -> dict[str, int | None]:
        """Return the types that the selection contains, by name, with the approximate number of rows; None: not known.

        Fast, whereas `types` reads everything: for deciding what to read, and for progress.
        """
        of = {"rows": self._of.rows(), "selected": self._of.selected()}
        numbers = sql.Literal([*self._runs.numbers])
        rows = await self.fetch(sql.SQL(_SQL["present"]).format(connections=numbers, **of))
        whole = self._of.selection.patients is None and self._before is None and self._limit is None
        return {row[0]: row[1] if whole and row[0] not in self._of.kept else None for row in rows}

    async def not_stored(self) -> tuple[int, int]:
        """Return how many of the patients that the selection names have no Patient at this moment, and how many it names."""
        if self._of.selection.patients is None:
            return 0, 0
        [(missing, named)] = await self.fetch(self._of.not_stored())
        return missing, named

    def ndjson(self, resource_type: str) -> CopyStream:
        """Return the type's live resources as NDJSON, ordered by (connection name, id), each as Postgres writes jsonb.

        As a JSON value that equals what the EHR sent, with numbers in their written form (1.0 stays 1.0, 1e2 becomes 100) and
        keys in jsonb's own order.
        """
        return self._of_type("ndjson", resource_type)

    def entries(self, resource_type: str) -> CopyStream:
        """Return the same resources as entries of a Bundle, one a line: `resource`, and `fullUrl` below the EHR's base."""
        return self._of_type("entries", resource_type)

    def _of_type(self, statement: str, resource_type: str) -> CopyStream:
        self._read.types.add(resource_type)
        of = {
            "key": sql.SQL("" if self._sealer is None else _SQL["row_key"]),
            "resource_type": sql.Literal(resource_type),
            **self._rows_to_read(documents=False, divisible=True),
        }
        queries = [
            sql.SQL(_SQL[statement]).format(
                base=sql.Literal(one.base_url.rstrip("/")), connection=sql.Literal(one.number), **of
            )
            for one in self._runs.sources
        ]
        opened = self._opened(resource_type, below="/resource" if statement == "entries" else "")
        by_key = self._of.cuts(resource_type, LINES_A_STRETCH)
        return CopyStream(self.sessions, queries, of_json=True, opened=opened, by_key=by_key, limit=self._limit)

    def _rows_to_read(self, *, documents: bool, divisible: bool) -> dict[str, sql.Composable]:
        rows, selected = self._of.rows(), self._of.selected(documents=documents)
        return {"rows": rows, "selected": selected, "of_stretch": self._of.of_stretch(divisible=divisible)}

    def _opened(self, resource_type: str, below: str) -> Opened | None:
        sealer = self._sealer
        if sealer is None:
            return None
        if self._masks:
            return lambda id_, text: masked_row(text)
        return lambda id_, text: opened_row(text, resource_type, id_, sealer, below)

    @property
    def sealed(self) -> SealedElements | None:
        """The elements that SQL sees encrypted; None: none, the store is plain."""
        return None if self._sealer is None else SealedElements(self._sealer.paths | TEXT_PATHS)

    @property
    def mask(self) -> str | None:
        """What the reader sees instead of each encrypted value; None: the value."""
        return MASK if self.sealed and self._masks else None

    def unsealed(self, token: bytes, resource_type: str) -> bytes:
        """Return an encrypted value of a row of this type as JSON, in jsonb's form, or its mask. Any row of the type will do.

        Raises:
            SealedValueError: it was altered, or is of another type or tenant.
        """
        assert self._sealer is not None
        return f'"{MASK}"'.encode() if self._masks else opened(token, resource_type, self._sealer)

    @property
    def changed_since(self) -> int | None:
        """The run since which rows have changed; None: the snapshot has all rows."""
        return self._of.selection.changed_since

    @property
    def changed_from(self) -> datetime | None:
        """What `as_of` was when `changed_since` had ended."""
        return None if self._before is None else self._before.as_of

    @property
    def changed_from_run(self) -> int | None:
        """What `left_by` was when `changed_since` had ended."""
        return None if self._before is None else self._before.left_by

    @property
    def erasures(self) -> int:
        """How many patients of these connections have been erased; what was read before an erasure contains that chart."""
        return sum(one.erasures for one in self._runs.sources)

    @property
    def erased_since(self) -> tuple[str, ...]:
        """The connections in which a patient was erased after `changed_since` had ended; changes cannot say whose chart."""
        before = () if self._before is None else self._before._runs.sources  # noqa: SLF001 - a snapshot as well
        return tuple(one.name for one in before if one.has_erased_since)

    def removed(self) -> CopyStream:
        """Return the keys that the selection has lost since `changed_since`, as lines of JSON {"id": …, "type": …}.

        They are deleted, or no longer the selected patients'. Ordered by (connection name, type, id); empty without
        `changed_since`.
        """
        comparisons = self._comparisons()
        self._read.removed = bool(comparisons)
        return CopyStream(self.sessions, [one.removed() for one in comparisons], of_json=True)

    async def differences(self) -> CopyStream:
        """Return what differs from the moment of `changed_since`, as lines of JSON; empty without it.

        Each has `type`, `id`, `patient` (null: of none) and `change` ("added", "changed", "deleted"); if changed, `old` and `new`
        as texts. Ordered by (connection name, patient, type, id). What is no longer the selected patients' counts as deleted.
        """
        comparisons = self._comparisons()
        self._read.types.update(await self.present() if comparisons else ())
        self._read.removed = self._read.before = bool(comparisons)
        queries = [one.differences(with_id=self.sealed is not None) for one in comparisons]
        return CopyStream(
            self.sessions, queries, of_json=True, opened=difference_opened_by(self._sealer, masks=self._masks)
        )

    def _comparisons(self) -> list[Comparison]:
        """Return, of each connection, the selection as it was when `changed_since` had ended, and as it is."""
        before = self._before
        if before is None:
            return []
        sides = {"before": before._of.side(), "now": self._of.side()}  # noqa: SLF001 - a snapshot as well
        of, since, changed = self._of.selection.patients, before.left_out, self._of.selected()
        return [
            Comparison(connection=one.number, patients=of, since=since, changed=changed, **sides)
            for one in self._runs.sources
        ]

    def sources(
        self, resource_type: str, *, documents: bool = False, divisible: bool = False
    ) -> tuple[sql.Composable, ...]:
        """Return subqueries (connection text, id text, body jsonb) of the type's live rows, one a connection by name, by key.

        `documents`: bodies include the text of their documents (`stored_documents`), and a document's new outcome counts as a
        change. `divisible`: `csv` may read them by stretches of ids.
        """
        self._read.types.add(resource_type)
        self._read.documents |= documents
        return tuple(
            sql.SQL(_SQL["source_of_connection"]).format(
                body=self._body(documents=documents),
                once=ONCE_BY_KEY if documents else sql.SQL(""),
                resource_type=sql.Literal(resource_type),
                name=sql.Literal(one.name),
                connection=sql.Literal(one.number),
                **self._rows_to_read(documents=documents, divisible=divisible),
            )
            for one in self._runs.sources
        )

    def _body(self, *, documents: bool) -> sql.Composable:
        if not documents:
            return PLAIN_BODY
        return with_document(sql.Literal(list(self._runs.left_out)) if self._runs.left_out else None)

    def csv(self, *queries: sql.Composable, resource_type: str | None = None) -> CopyStream:
        """Return the rows of queries with equal columns as CSV (RFC 4180, header first, UTF-8), one after the other.

        `resource_type`: the queries are one per each of its divisible `sources`, ordered by id, so that sessions may share them.
        """
        by_key = self._of.cuts(resource_type, ROWS_A_STRETCH)
        return CopyStream(self.sessions, queries, by_key=by_key, limit=self._limit)

    def table(self, query: sql.Composable) -> CopyStream:
        """Return the rows of any query as CSV, with a header; Postgres chooses how to read them."""
        return CopyStream(self.sessions, [query], limit=self._limit)

    async def columns(self, query: sql.Composable) -> list[tuple[str, str]]:
        """Return the names and SQL types of a query's columns, without their modifiers: ("n", "int8"), ("ids", "text[]")."""
        with store_border("describing a query"):
            found = await self.sessions.own.conn.execute(sql.SQL(_SQL["described"]).format(query=query))
            return [(one.name, re.sub(r"\(.*?\)", "", one.type_display)) for one in found.description or ()]

    async def limit(self, *, seconds: int, memory_mb: int) -> None:
        """Limit each further statement: its time, the memory of each of its sorts and hashes, and its temporary files.

        The last needs a login that may set it, such as a superuser.
        """
        values = {"milliseconds": str(seconds * 1000), "memory": f"{memory_mb}MB", "disk": f"{memory_mb * 64}MB"}
        with store_border("setting a query's limits"):
            await self.sessions.own.conn.execute(_SQL["limits"], values)

    async def fetch(self, query: sql.Composable, values: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
        """Return all rows of a query: for counts and checks, not for data. `values` are bound and never part of the statement."""
        with store_border("reading a snapshot"):
            await narrow(self.sessions.own, None)
            found = await self.sessions.own.conn.execute(sql.Composed([query]), values)
            rows: list[tuple[Any, ...]] = await found.fetchall()
            return rows

    def what_was_read(self) -> WhatWasRead:
        """Return what was read so far, for the audit: whose rows of which types, and whose were removed."""
        types = sorted(self._read.types)
        selected = self._of.selected(documents=self._read.documents)
        of = {"types": sql.Literal(types), "rows": self._of.rows(), "selected": selected}
        patients: list[sql.Composable] = []
        if types:
            patients += [
                sql.SQL(_SQL["patients_of_rows"]).format(**of),
                sql.SQL(_SQL["members_of_rows"]).format(**of, members=self._of.members()),
            ]
        if self._read.removed:
            patients += [one.patients_of_lost() for one in self._comparisons()]
        if self._read.before:
            patients += [one.patients_of_differing() for one in self._comparisons()]
            # an answer without differences says something about the named patient too
            patients += [named_patients(one, self._of.selection.patients or ()) for one in self.connections]
        return WhatWasRead(connections=self.connections, types=types, runs=self.runs, patients=patients)

    async def end(self) -> None:
        """Note in the audit what was read, and commit. From then on it may be shown, and nothing more can be read."""
        if self._audited is not None:
            audited, self._audited = self._audited, None
            with store_border("noting what was read"):
                await audited.end_reads()
                await self.sessions.own.conn.execute(_SQL["by_hash"])
                await audited.note(self.what_was_read())
                await audited.end()
