"""Stores what resources refer to: which references a run found, which are due, how the EHR answered.

The connector chooses the paths, parses references and forms batches; `closing` makes sure that a resource which is still
mentioned is not a tombstone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection

from snapshots.referred import ReferencePath, ReferenceTarget
from snapshots.run_session import RunSession
from snapshots.sql import load
from snapshots.wire import encoded, text_array

_SQL = load("references")
_CLOSING = load("closing")
_AT_ONCE = 5_000  # references in memory

Resolve = Callable[[str], ReferenceTarget | None]


class StoredReferences:
    """The references of one open run."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._conn = session.conn

    async def follow(self, types: Collection[str]) -> None:
        """Note which types this run follows references to."""
        async with self._session.transaction("following references") as own:
            await self._conn.execute(_SQL["follow"], {**own, "types": list(types)})

    async def collect(self, paths: Sequence[ReferencePath], resolve: Resolve, *, depth: int, fresh: timedelta) -> bool:
        """Note what resources `depth` steps from a listing refer to; return whether there is anything.

        At 0 these are the references in the run's batches; further on, those at `paths` of what was fetched. `resolve` parses a
        reference and returns None if it cannot be followed. References whose target came with this run, or that the run noted
        before, are left out. Memory does not grow with the number found.
        """
        async with self._session.transaction("finding references") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            if depth:
                await self._find(paths, resolve, {**own, "depth": depth})
            row = await (await self._conn.execute(_SQL["listings"], own)).fetchone()
            listed, news = row or ([], [])
            taking = {**own, "depth": depth + 1, "fresh": fresh, "listed": listed, "news": news}
            for resource_type, seen, changed in await (
                await self._conn.execute(_SQL["mentioned_types"], own)
            ).fetchall():
                values = {**taking, "resource_type": resource_type, "reads_seen": seen, "reads_changed": changed}
                await self._conn.execute(_SQL["take"], values)
            await self._conn.execute(_SQL["forget_mentions"], {"runs": [self._session.open.run]})
            left = await (await self._conn.execute(_SQL["at_depth"], {**own, "depth": depth + 1})).fetchone()
        return bool(left and left[0])

    async def _find(self, paths: Sequence[ReferencePath], resolve: Resolve, finding: Mapping[str, Any]) -> None:
        by_source: dict[str, list[ReferencePath]] = {}
        for path in paths:
            by_source.setdefault(path.source, []).append(path)
        sources = await (await self._conn.execute(_SQL["sources_at_depth"], finding)).fetchall()
        for source, some in ((source, by_source[source]) for (source,) in sources if source in by_source):
            values = {**finding, "source": source, "paths": [path.path for path in some]}
            async with self._conn.cursor(name="found") as found:
                await found.execute(_SQL["in_referenced"], values)
                while rows := await found.fetchmany(_AT_ONCE):
                    await note_mentions(self._conn, self._session.open.run, _targets(rows, some, resolve))

    async def due(
        self, types: Collection[str], *, depth: int, fresh: timedelta, limit: int, leftovers: bool
    ) -> list[ReferenceTarget]:
        """Return references to fetch that are in no unit yet, by type and patient; `leftovers`: also those of earlier runs."""
        async with self._session.transaction("reading references") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            values = {
                **own,
                "types": list(types),
                "depth": depth,
                "fresh": fresh,
                "limit": limit,
                "leftovers": leftovers,
            }
            return [ReferenceTarget(*row) async for row in await self._conn.execute(_SQL["due"], values)]

    async def note_requested(self, *, depth: int) -> None:
        """Note what the run's units request; `depth` is set for what earlier runs left."""
        async with self._session.transaction("noting references") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            await self._conn.execute(_SQL["note_requested"], {**own, "depth": depth})

    async def note_answers(self) -> Mapping[str, Mapping[str, int]]:
        """Note the answers of settled units; return by type how many are found, missing, restricted, still wanted."""
        outcome: dict[str, dict[str, int]] = {}
        async with self._session.transaction("noting references") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            await self._conn.execute(_SQL["note_answers"], own)
            async for resource_type, state, count in await self._conn.execute(_SQL["outcome"], own):
                outcome.setdefault(resource_type, {})[state] = count
        return outcome


async def note_mentions(conn: AsyncConnection[Any], run: int, targets: Sequence[ReferenceTarget]) -> None:
    """Store what resources refer to, beside them. The caller holds the transaction."""
    if targets:
        columns = {
            "types": text_array([target.resource_type.encode() for target in targets]),
            "ids": text_array([target.id.encode() for target in targets]),
            "patients": text_array([encoded(target.patient_id) for target in targets]),
        }
        await conn.execute(_SQL["note_mentions"], {"run": run, **columns}, prepare=True)


def _targets(
    rows: Sequence[tuple[Any, ...]], paths: Sequence[ReferencePath], resolve: Resolve
) -> list[ReferenceTarget]:
    targets = []
    for number, text, patient in rows:
        target = resolve(text)
        if target is not None and target.resource_type in paths[number - 1].targets:
            targets.append(target._replace(patient_id=patient))
    return targets
