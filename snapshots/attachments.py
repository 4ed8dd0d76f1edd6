"""Documents that resources have attached: where they stand, which are due, their bytes once a content, their text.

What is wanted and how it is asked for is the connector's; that unchanged ones are not asked again is kept here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import orjson
from psycopg import AsyncConnection

from snapshots.record import AttachmentUse, Document
from snapshots.run_session import RunSession
from snapshots.sql import load

_SQL = load("attachments")
_CLOSING = load("closing")


class StoredAttachments:
    """The attachments of one open run."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._conn = session.conn

    async def collect(self, paths: Mapping[str, str]) -> None:
        """Note what this run's resources have attached; `paths` maps their types to the jsonpath of an attachment."""
        async with self._session.transaction("finding attachments") as own:
            await self._conn.execute(_CLOSING["plan_freely"])
            for source, path in paths.items():
                values = {**own, "source": source, "path": path}
                await self._conn.execute(_SQL["collect"], values)
                await self._conn.execute(_SQL["detach"], values)

    async def due(self, *, fresh: timedelta, limit: int, leftovers: bool) -> list[AttachmentUse]:
        """Give attachments to get by URL or to decide on; `leftovers`: also what earlier runs could not get."""
        async with self._session.transaction("reading attachments") as own:
            values = {**own, "fresh": fresh, "limit": limit, "leftovers": leftovers}
            return [AttachmentUse(*row) async for row in await self._conn.execute(_SQL["due"], values)]

    async def inline(
        self, paths: Mapping[str, str], *, most: int, together: int, leftovers: bool
    ) -> list[tuple[AttachmentUse, str | None]]:
        """Give some attachments that stand in their resource, with their base64 (None: longer than `most` characters)."""
        async with self._session.transaction("reading attachments") as own:
            values = {**own, "paths": orjson.dumps(dict(paths)).decode(), "most": most, "together": together}
            found = await self._conn.execute(_SQL["inline"], {**values, "leftovers": leftovers})
            return [(AttachmentUse(*row[:-1]), row[-1]) async for row in found]

    async def outcome(self) -> list[tuple[str, str, int]]:
        """Give (state, note, how many) of what this run wanted, or got of what earlier ones left over; "" is no note."""
        async with self._session.transaction("reading attachments") as own:
            return [(row[0], row[1], row[2]) async for row in await self._conn.execute(_SQL["outcome"], own)]


async def keep_documents(
    conn: AsyncConnection[Any], connection: int, run: int, documents: Sequence[Document], *, at: datetime
) -> None:
    """Store contents that are new, and note what became of each attachment. The caller holds the transaction."""
    digests = [None if one.content is None else sha256(one.content).digest() for one in documents]
    kept = {
        digest: {
            "sha256": digest,
            "size": len(one.content),
            "content_type": one.content_type,
            "content": one.content,
            "text": one.text,
            "unread": one.unread,
        }
        for digest, one in zip(digests, documents, strict=True)
        if digest is not None and one.content is not None
    }
    async with conn.cursor() as cursor:
        await cursor.executemany(_SQL["keep"], list(kept.values()))
    values = {
        "connection": connection,
        "run": run,
        "at": at,
        "types": [one.resource_type for one in documents],
        "ids": [one.resource_id for one in documents],
        "places": [one.place for one in documents],
        "states": [one.state for one in documents],
        "notes": [one.note for one in documents],
        "digests": digests,
    }
    await conn.execute(_SQL["attach"], values)
