"""Up to when a selection is known to be complete: the real `connectors.fhir.memories.Knowledge`.

`closing` moves watermarks; `roster` keeps the patients who are behind them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal

from snapshots.run_session import RunSession
from snapshots.sql import load

_SQL = load("knowledge")


class StoredKnowledge:
    """What is known about one run's selection, by the way it is listed. Every call is one transaction."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._conn = session.conn
        self._open = session.open

    async def speak_for(self, knowledge: str, granted: Collection[str], *, notes_dates: bool | None = None) -> None:
        """Set whose watermarks the run reads and moves, and what its login may read: known once the run is planned.

        `notes_dates`: whether this session looks at rows' dates; None: it is no crawl.
        """
        self._open.knowledge = knowledge
        async with self._session.transaction("noting what is asked") as own:
            await self._conn.execute(_SQL["speak_for"], {**own, "granted": sorted(granted), "notes_dates": notes_dates})

    def request_since(self, marks: Mapping[str, str]) -> None:
        """Set which types (or "*") are requested only for news, and since when."""
        self._open.marks = dict(marks)

    async def watermarks(self, *, held_back: bool = False) -> Mapping[str, str]:
        """Return, per resource type, the instant up to which the connection and selection are known to be complete.

        `held_back`: only of types whose rows' dates could hold it back.
        """
        async with self._session.transaction("reading watermarks") as own:
            values = {**own, "held_back": held_back}
            return {row[0]: row[1] async for row in await self._conn.execute(_SQL["watermarks"], values)}

    async def unlisted_types(self) -> Sequence[str]:
        """Return the types that exports of this selection have listed since the last full one, but none in full yet, in order."""
        async with self._session.transaction("reading watermarks") as own:
            return sorted([row[0] async for row in await self._conn.execute(_SQL["unlisted_types"], own)])

    async def listed_patients(self, patients: Sequence[str]) -> frozenset[str]:
        """Return those of these patients whose Patient this run has listed."""
        async with self._session.transaction("reading who was listed") as own:
            rows = await self._conn.execute(_SQL["listed_patients"], {**own, "patients": list(patients)})
            return frozenset([row[0] async for row in rows])

    async def forget(self) -> None:
        """Forget the selection's watermarks, so that its next run lists everything."""
        async with self._session.transaction("forgetting watermarks") as own:
            await self._conn.execute(_SQL["forget"], own)

    async def received_types(self) -> frozenset[str]:
        """Return the types that the connection has ever sent."""
        async with self._session.transaction("reading what came before") as own:
            return frozenset([row[0] async for row in await self._conn.execute(_SQL["received_types"], own)])

    async def empty_types(self) -> frozenset[str]:
        """Return the types for which this run's searches were answered, and of which the connection has never sent anything."""
        async with self._session.transaction("reading what came") as own:
            return frozenset([row[0] async for row in await self._conn.execute(_SQL["empty_types"], own)])

    async def last_full_listing(self, granted: Collection[str]) -> datetime | None:
        """Return when the last run started that listed the whole selection this way, with a login that could read as much."""
        values = {"granted": list(granted), "types": list(self._open.scope.types)}
        async with self._session.transaction("reading watermarks") as own:
            row = await (await self._conn.execute(_SQL["last_full_listing"], {**own, **values})).fetchone()
        return row[0] if row else None

    async def last_mode(self) -> Literal["bulk", "crawl"] | None:
        """Return how the selection's last sync went that ended complete or partial."""
        async with self._session.transaction("reading what came before") as own:
            row = await (await self._conn.execute(_SQL["last_mode"], own)).fetchone()
        return row[0] if row else None

    async def namesakes(self) -> Sequence[str]:
        """Return other connections with the same base_url, if this run is its connection's first."""
        async with self._session.transaction("comparing connections") as own:
            return [row[0] async for row in await self._conn.execute(_SQL["namesakes"], own)]
