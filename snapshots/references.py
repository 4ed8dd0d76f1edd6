"""What resources refer to: which references a run found, which of them are due, how the EHR answered for them.

Which paths are looked at, how a reference is read and what is asked together is the connector's; that a resource which is still
mentioned is no tombstone, `closing`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from snapshots.record import ReferencePath, ReferenceTarget
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
        """Note what resources `depth` steps from a listing refer to (0: those that this run listed); tell if there is anything.

        `resolve` reads a reference and gives None where it cannot be followed. What came with this run anyway, or has been
        noted by it before, is left out; memory does not grow with what is found.
        """
        by_source: dict[str, list[ReferencePath]] = {}
        for path in paths:
            by_source.setdefault(path.source, []).append(path)
        async with self._session.transaction("finding references") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            row = await (await self._conn.execute(_SQL["listings"], own)).fetchone()
            listed, news = row or ([], [])
            noting = {**own, "depth": depth + 1, "fresh": fresh, "listed": listed, "news": news}
            for source, some in by_source.items():
                values = {**own, "source": source, "paths": [path.path for path in some], "depth": depth}
                query = _SQL["in_referenced" if depth else "in_listings"]
                async with self._conn.cursor(name="found") as found:
                    await found.execute(query, values)
                    while rows := await found.fetchmany(_AT_ONCE):
                        await self._mention(_targets(rows, some, resolve), noting)
            left = await (await self._conn.execute(_SQL["at_depth"], {**own, "depth": depth + 1})).fetchone()
        return bool(left and left[0])

    async def _mention(self, targets: Sequence[ReferenceTarget], noting: Mapping[str, Any]) -> None:
        if targets:
            columns = {
                "types": text_array([target.resource_type.encode() for target in targets]),
                "ids": text_array([target.id.encode() for target in targets]),
                "patients": text_array([encoded(target.patient_id) for target in targets]),
            }
            await self._conn.execute(_SQL["mention"], {**noting, **columns})

    async def due(
        self, types: Collection[str], *, depth: int, fresh: timedelta, limit: int, leftovers: bool
    ) -> list[ReferenceTarget]:
        """Give what is to be asked and in no unit yet, by type and patient; `leftovers`: also what earlier runs could not get."""
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

    async def note_asked(self, *, depth: int) -> None:
        """Note what the run's units ask for; `depth` is given to what earlier runs had left over."""
        async with self._session.transaction("noting references") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            await self._conn.execute(_SQL["note_asked"], {**own, "depth": depth})

    async def note_answers(self) -> Mapping[str, Mapping[str, int]]:
        """Note how settled units were answered; give by type how many are found, missing, restricted, still wanted."""
        outcome: dict[str, dict[str, int]] = {}
        async with self._session.transaction("noting references") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            await self._conn.execute(_SQL["note_answers"], own)
            async for resource_type, state, count in await self._conn.execute(_SQL["outcome"], own):
                outcome.setdefault(resource_type, {})[state] = count
        return outcome


def _targets(
    rows: Sequence[tuple[Any, ...]], paths: Sequence[ReferencePath], resolve: Resolve
) -> list[ReferenceTarget]:
    targets = []
    for number, text, patient in rows:
        target = resolve(text)
        if target is not None and target.resource_type in paths[number - 1].targets:
            targets.append(target._replace(patient_id=patient))
    return targets
