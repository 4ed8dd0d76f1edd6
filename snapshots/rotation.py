"""Encrypts again, with the current key, what older keys have encrypted, so that these can be removed.

It also encrypts plain values whose paths the configuration has added since. A whole plain store is first encrypted by
`encrypting`.

No run of the tenant works meanwhile. Rows keep their runs and their hashes, which are keyed by the tenant's secret, so the next
run finds unchanged resources unchanged. Each table is processed block by block, some blocks per transaction; after an
interruption, the next call continues. `sealing_keys` decides which keys open a store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

from psycopg import sql

from snapshots.beginning import lock_connection
from snapshots.encrypting import connections_of, encrypt_plain, parts_of
from snapshots.errors import SealedValueError, StoreKeyError, store_border
from snapshots.rights import require_owning
from snapshots.sealed_values import Place, Sealer
from snapshots.sealing import resealed_row
from snapshots.sql import load
from snapshots.stale_seals import patterns
from snapshots.tenancy import TenantSession

_SQL = load("rotation")
_BLOCKS = 64  # of 8 kB, in one transaction
_AT_ONCE = 200  # rows in memory
_TOGETHER = 4 << 20  # bytes on the disk that these have, at most, but for one row


class Rotated(NamedTuple):
    """What was re-encrypted."""

    rows: Mapping[str, int]  # by table, of its further columns by their names as well, those without any left out
    damaged: int  # values that no key decrypts: they stay, and the store still lists its older keys
    was_plain: bool  # the store was, all of it or what an earlier call had left


class _Column(NamedTuple):
    """A column with encrypted values: how its rows are found, and how one is re-encrypted."""

    name: LiteralString
    type: LiteralString
    kind: LiteralString  # of the place that a value is bound to, as SQL
    id: LiteralString
    older: LiteralString  # condition: the row has values under older keys, or may have plain ones to encrypt
    resealed: Callable[[bytes, str, str, Sealer], bytes]


def _whole(pointer: str) -> Callable[[bytes, str, str, Sealer], bytes]:
    def resealed(content: bytes, kind: str, id_: str, sealer: Sealer) -> bytes:
        place = Place(kind, id_, pointer)
        return sealer.seal_whole(sealer.unseal_whole(content, place), place)

    return resealed


def _text(content: bytes, kind: str, id_: str, sealer: Sealer) -> bytes:
    place = Place(kind, id_, "text")
    plain, found = sealer.unseal(content, kind)
    if found != place:
        raise SealedValueError(f"{sealer.name_of(place)} was moved from another row.")
    return sealer.seal(plain, place)


_BODY = _Column("body", "jsonb", "resource_type", "id", _SQL["older_in_resource"], resealed_row)
_COLUMNS: Mapping[str, tuple[_Column, ...]] = {
    "resource": (_BODY,),
    "resource_history": (_BODY,),
    "rival": (_BODY._replace(type="text"),),
    "quarantine": (_Column("raw", "bytea", "'quarantine'", "source", _SQL["older_as_a_whole"], _whole("")),),
    "attachment": (
        _Column(
            "content", "bytea", "'attachment'", "encode(sha256, 'hex')", _SQL["older_as_a_whole"], _whole("content")
        ),
        _Column("text", "text", "'attachment'", "encode(sha256, 'hex')", _SQL["older_in_text"], _text),
    ),
}


async def rotate(session: TenantSession) -> Rotated:
    """Encrypt everything with the current key; the session is the owner's. `Store.rotate` says what it raises."""
    sealer = session.sealer
    if sealer is None:
        raise StoreKeyError(
            f"the store of tenant {session.tenant} is plain, and there are no keys to encrypt it with: name them in "
            "[encryption] keys."
        )
    rows, damaged, locked, was_plain = Counter[str](), 0, set[str](), False
    with store_border("encrypting the store"):
        await require_owning(session, "encrypt again")
        while True:
            names = await connections_of(session)
            for name in sorted(names - locked):
                await lock_connection(session, name)
            locked |= names
            if (encrypted := await encrypt_plain(session, sealer)) is not None:
                was_plain = True
                rows.update(encrypted)
            damaged = 0
            for table, columns in _COLUMNS.items():
                for part in await parts_of(session, table):
                    for column in columns:
                        done, failed = await _of_table(session, part, column, sealer)
                        rows[table if column is columns[0] else f"{table} {column.name}"] += done
                        damaged += failed
            if await _ended(session, sealer, locked, forget=not damaged):
                return Rotated({table: count for table, count in sorted(rows.items()) if count}, damaged, was_plain)


async def _of_table(session: TenantSession, table: str, column: _Column, sealer: Sealer) -> tuple[int, int]:
    """Re-encrypt a column; return the number of its rows, and of those that no key opens."""
    async with session.transaction():
        row = await (await session.conn.execute(_SQL["blocks"], {"table": table})).fetchone()
    done = failed = 0
    # rows that are written again may come to lie behind: there they are current
    for first in range(0, row[0] if row else 0, _BLOCKS):
        async with session.transaction():
            some, bad = await _of_blocks(session, table, column, sealer, first)
        done += some
        failed += bad
    return done, failed


async def _of_blocks(
    session: TenantSession, table: str, column: _Column, sealer: Sealer, first: int
) -> tuple[int, int]:
    names: dict[str, sql.Composable] = {
        "table": sql.Identifier(table),
        "column": sql.Identifier(column.name),
        "type": sql.SQL(column.type),
        "kind": sql.SQL(column.kind),
        "id": sql.SQL(column.id),
        "shown": sql.SQL("::text" if column.type == "jsonb" else ""),
    }
    values = {
        "first": f"({first},0)",
        "behind": f"({first + _BLOCKS},0)",
        **patterns(sealer),
        "current": f"~sealed:1:{sealer.current}:".encode(),
    }
    older = sql.SQL(column.older).format(**names)
    found = await (await session.conn.execute(sql.SQL(_SQL["older"]).format(older=older, **names), values)).fetchall()
    done = failed = 0
    for some in _few(found):
        rows = await (await session.conn.execute(sql.SQL(_SQL["at"]).format(**names), {"places": some})).fetchall()
        places, contents = [], []
        for place, kind, id_, content in rows:
            try:
                given = content.encode() if isinstance(content, str) else bytes(content)
                sealed = column.resealed(given, kind, id_, sealer)
            except SealedValueError:
                failed += 1
                continue
            if sealed != given:
                places.append(place)
                contents.append(sealed.decode() if isinstance(content, str) else sealed)
        if places:
            write: dict[str, Any] = {"places": places, "contents": contents}
            done += (await session.conn.execute(sql.SQL(_SQL["write"]).format(**names), write)).rowcount
    return done, failed


def _few(found: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """The places of rows of which few are large, given with their bytes."""
    some, size = list[str](), 0
    for place, more in found:
        if some and (len(some) == _AT_ONCE or size + more > _TOGETHER):
            yield some
            some, size = [], 0
        some.append(place)
        size += more
    if some:
        yield some


async def _ended(session: TenantSession, sealer: Sealer, locked: set[str], *, forget: bool) -> bool:
    """End it, unless there is a connection meanwhile that could have written with an older key."""
    async with session.transaction():
        await session.conn.execute(_SQL["shut_out"])
        if await connections_of(session) - locked:
            return False
        if forget:
            await session.conn.execute(_SQL["forget_older"], {"current": sealer.current})
    return True
