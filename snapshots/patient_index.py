"""The blind index: finds a connection's patients by exact terms that nobody can read out of it.

Each term becomes a token, an HMAC. Its key is derived from the tenant's secret, for this tenant, connection and kind of term; new
encryption keys do not change the secret, and in a plain store it is no secret. A Patient is indexed when it is written; Patients
that an earlier chartferry wrote are indexed before the first search. `patient_terms` says what a term is.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

from snapshots.patient_terms import Kind, Term, terms_of
from snapshots.record import Record
from snapshots.rights import require_writing
from snapshots.sealing import opened_row
from snapshots.sealing_keys import sealer_of_moment
from snapshots.sql import load
from snapshots.tenancy import TenantSession
from snapshots.wire import bytea_array, register_arrays, text_array

_SQL = load("patient_index")
_AT_ONCE = 1000  # Patients in memory, and in one transaction
_TOKEN_BYTES = 16
_PATIENT = "Patient"


class _Tokens:
    """Makes the tokens of one connection."""

    def __init__(self, session: TenantSession, connection: str) -> None:
        bound = [f"{session.tenant}\n{connection}\n{kind}" for kind in Kind]
        sealer = session.sealer
        keys = [one.encode() if sealer is None else sealer.derived(f"blind index 1\n{one}") for one in bound]
        self._keys = dict(zip(Kind, keys, strict=True))

    def of(self, term: Term) -> bytes:
        words = [word.encode("utf-8", "surrogatepass") for word in term.words]
        content = b"".join(len(word).to_bytes(8, "big") + word for word in words)
        return hmac.digest(self._keys[term.kind], content, "sha256")[:_TOKEN_BYTES]


async def index_records(session: TenantSession, number: int, connection: str, records: Sequence[Record]) -> None:
    """Index the Patients of a batch that was just stored, as they are stored now. In the transaction that stored them."""
    ids = list({one.id for one in records if one.resource_type == _PATIENT})
    if ids:
        values = {"connection": number, "ids": text_array([one.encode() for one in ids])}
        rows = await (await session.conn.execute(_SQL["unindexed_of"], values, prepare=True)).fetchall()
        await _index(session, number, connection, rows)


async def index_missing(session: TenantSession, connection: str) -> bool:
    """Index the Patients that are not indexed yet, a thousand per transaction; after an interruption, the next call continues.

    Return whether the connection ever ran.

    Raises:
        MissingRightsError: some are not indexed, and this login may not write.
        StoreKeyError: the store has become an encrypted one since it was opened without keys.
    """
    register_arrays(session.conn)
    async with session.transaction():
        await sealer_of_moment(session)  # who opened the store while it was plain would add plain hashes
        row = await (await session.conn.execute(_SQL["number"], {"connection": connection})).fetchone()
        if row is None:
            return False
        (number,) = row
        rows = await _unindexed(session, number, "")
    if rows:
        await require_writing(session)
    while rows:
        async with session.transaction(writes=True):
            await _index(session, number, connection, rows)
            rows = await _unindexed(session, number, rows[-1][0])
    return True


async def find_patients(session: TenantSession, connection: str, term: Term) -> list[str]:
    """Return the ids of the connection's live patients who have a term, in order. In a transaction."""
    values = {"connection": connection, "token": _Tokens(session, connection).of(term)}
    return [row[0] async for row in await session.conn.execute(_SQL["find"], values)]


async def _unindexed(session: TenantSession, number: int, after: str) -> list[tuple[Any, ...]]:
    values = {"connection": number, "after": after, "limit": _AT_ONCE}
    return await (await session.conn.execute(_SQL["unindexed"], values)).fetchall()


async def _index(session: TenantSession, number: int, connection: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Index Patients, given as (id, content hash, JSON as it is stored)."""
    if not rows:
        return
    sealer, make, pairs = session.sealer, _Tokens(session, connection), []
    for id_, _, body in rows:
        plain = body.encode() if sealer is None else opened_row(body.encode(), _PATIENT, id_, sealer)
        pairs += [(id_.encode(), make.of(term)) for term in terms_of(plain)]
    values = {
        "connection": number,
        "ids": text_array([id_.encode() for id_, _, _ in rows]),
        "hashes": bytea_array([bytes(digest) for _, digest, _ in rows]),
        "owners": text_array([id_ for id_, _ in pairs]),
        "tokens": bytea_array([token for _, token in pairs]),
    }
    await session.conn.execute(_SQL["forget"], values)
    await session.conn.execute(_SQL["index"], values)
