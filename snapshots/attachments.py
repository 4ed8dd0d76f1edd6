"""Documents attached to resources: where they are attached, which are due, their bytes (each content once), their text.

The connector decides what to fetch and how; this module makes sure that unchanged documents are not fetched again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any

import orjson
from psycopg import AsyncConnection

from snapshots.errors import SealedValueError
from snapshots.record import Record
from snapshots.referred import AttachmentUse, Document
from snapshots.run_session import RunSession
from snapshots.sealed_values import MARK, Place, Sealer
from snapshots.sql import load
from snapshots.stored_documents import TABLE, TEXT
from snapshots.wire import bytea_array, encoded, int_array, text_array

_SQL = load("attachments")
_AROUND = 4096  # characters of an encrypted value beside its content: its place, nonce and tag


class StoredAttachments:
    """The attachments of one open run."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._conn = session.conn

    async def due(self, *, fresh: timedelta, limit: int, leftovers: bool) -> list[AttachmentUse]:
        """Return attachments to fetch by URL or to decide on; `leftovers`: also those that earlier runs could not fetch."""
        async with self._session.transaction("reading attachments") as own:
            values = {**own, "fresh": fresh, "limit": limit, "leftovers": leftovers}
            return [AttachmentUse(*row) async for row in await self._conn.execute(_SQL["due"], values)]

    async def note_requested(self, uses: Sequence[AttachmentUse]) -> None:
        """Note that units request these by their URLs."""
        async with self._session.transaction("noting attachments") as own:
            columns = {
                "types": text_array([one.resource_type.encode() for one in uses]),
                "ids": text_array([one.resource_id.encode() for one in uses]),
                "places": int_array([one.place for one in uses]),
            }
            await self._conn.execute(_SQL["note_requested"], {**own, **columns})

    async def inline(
        self, paths: Mapping[str, str], *, most: int, together: int, leftovers: bool
    ) -> list[tuple[AttachmentUse, str | None]]:
        """Return some inline attachments, with their base64 (None: longer than `most` characters)."""
        async with self._session.transaction("reading attachments") as own:
            sealer = self._session.session.sealer
            longest = most if sealer is None else most * 4 // 3 + _AROUND
            values = {**own, "paths": orjson.dumps(dict(paths)).decode(), "most": longest, "together": together}
            found = await self._conn.execute(_SQL["inline"], {**values, "leftovers": leftovers})
            rows = [(AttachmentUse(*row[:-1]), row[-1]) async for row in found]
        if sealer is None:
            return rows
        opened = [(use, _opened(use, data, sealer)) for use, data in rows]
        return [(use, data if data is None or len(data) <= most else None) for use, data in opened]

    async def outcome(self) -> list[tuple[str, str, int]]:
        """Return (state, note, count) of what this run wanted, or fetched of what earlier runs left; "" means no note."""
        async with self._session.transaction("reading attachments") as own:
            return [(row[0], row[1], row[2]) async for row in await self._conn.execute(_SQL["outcome"], own)]


async def note_attached(
    conn: AsyncConnection[Any],
    records: Sequence[Record],
    merged: Collection[bytes],
    own: Mapping[str, Any],
) -> None:
    """Note the attachments of a batch that was just stored. The caller holds the transaction.

    `merged` are the hashes of records that differed from the store; `own` are the run and its connection.
    """
    bearers = {(one.resource_type, one.id, one.content_hash): one for one in records if one.attached is not None}
    given = [(record, one) for record in bearers.values() for one in record.attached or ()]
    replaced = {record.content_hash for record in bearers.values() if record.content_hash in merged}
    if given:
        values = {
            **own,
            **_keys([record for record, _ in given]),
            "hashes": bytea_array([record.content_hash for record, _ in given]),
            "merged": [record.content_hash in merged for record, _ in given],
            "places": int_array([one.place for _, one in given]),
            "content_types": text_array([encoded(one.content_type) for _, one in given]),
            "urls": text_array([encoded(one.url) for _, one in given]),
            "inline": [one.inline for _, one in given],
            "sizes": [one.size for _, one in given],
            "claimed": text_array([encoded(one.hash) for _, one in given]),
        }
        row = await (await conn.execute(_SQL["note_attached"], values, prepare=True)).fetchone()
        replaced.update(given[position - 1][0].content_hash for position in (row and row[0]) or ())
    if replaced:
        kept = [(record, one.place) for record, one in given if record.content_hash in replaced]
        kept += [(one, -1) for one in bearers.values() if not one.attached and one.content_hash in replaced]
        places = int_array([place for _, place in kept])
        values = {**own, **_keys([record for record, _ in kept]), "places": places}
        await conn.execute(_SQL["detach"], values, prepare=True)


def _keys(records: Sequence[Record]) -> dict[str, Any]:
    return {
        "types": text_array([record.resource_type.encode() for record in records]),
        "ids": text_array([record.id.encode() for record in records]),
    }


async def keep_documents(session: RunSession, documents: Sequence[Document]) -> None:
    """Store new contents, and note the result of each attachment. The caller holds the transaction.

    In an encrypted store contents, texts and hashes are encrypted, or keyed.
    """
    conn, sealer = session.conn, session.session.sealer
    digests = [None if one.content is None else _digest(one.content, sealer) for one in documents]
    kept = {digest: one for digest, one in zip(digests, documents, strict=True) if digest is not None}
    if kept:
        contents = [one.content or b"" for one in kept.values()]
        columns = {
            "digests": bytea_array(list(kept)),
            "sizes": [len(content) for content in contents],
            "content_types": text_array([one.content_type.encode() for one in kept.values()]),
            "contents": bytea_array([_sealed(*one, sealer) for one in zip(kept, contents, strict=True)]),
            "texts": text_array([_sealed_text(digest, one.text, sealer) for digest, one in kept.items()]),
            "unread": text_array([encoded(one.unread) for one in kept.values()]),
        }
        await conn.execute(_SQL["keep"], columns)
    values = {
        "connection": session.open.connection,
        "run": session.open.run,
        "at": session.clock(),
        "types": text_array([one.resource_type.encode() for one in documents]),
        "ids": text_array([one.resource_id.encode() for one in documents]),
        "places": int_array([one.place for one in documents]),
        "states": text_array([one.state.encode() for one in documents]),
        "notes": text_array([encoded(one.note) for one in documents]),
        "digests": bytea_array(digests),
    }
    await conn.execute(_SQL["attach"], values)


def _digest(content: bytes, sealer: Sealer | None) -> bytes:
    plain = sha256(content).digest()
    return plain if sealer is None else sealer.digest(plain, len(plain))


def _place(digest: bytes, column: str) -> Place:
    return Place(TABLE, digest.hex(), column)


def _sealed(digest: bytes, content: bytes, sealer: Sealer | None) -> bytes:
    return content if sealer is None else sealer.seal_whole(content, _place(digest, "content"))


def _sealed_text(digest: bytes, text: str | None, sealer: Sealer | None) -> bytes | None:
    plain = encoded(text)
    return plain if plain is None or sealer is None else sealer.seal(plain, _place(digest, TEXT))


def sealed_document(content: bytes, text: str | None, sealer: Sealer) -> tuple[bytes, bytes, bytes | None]:
    """Return hash, content and text of a document as an encrypted store has them."""
    digest = _digest(content, sealer)
    return digest, _sealed(digest, content, sealer), _sealed_text(digest, text, sealer)


def is_sealed_document(digest: bytes, content: bytes, sealer: Sealer) -> bool:
    """Whether a stored content is encrypted: its key says so, whatever the content starts with."""
    try:
        sealer.unseal_whole(content, _place(digest, "content"))
    except SealedValueError:
        return False
    return True


def _opened(use: AttachmentUse, data: str | None, sealer: Sealer) -> str | None:
    """The base64 of an inline attachment, which the store has as one encrypted value."""
    if data is None or not data.startswith(MARK.decode()):
        return data
    plain, place = sealer.unseal(data.encode(), use.resource_type)
    if place.id != use.resource_id:
        raise SealedValueError(f"{sealer.name_of(place)} was moved to another row.")
    found = orjson.loads(plain)
    return found if isinstance(found, str) else str(found)
