"""Encrypts a store of plain charts, which then equals one that was encrypted from its first run on.

`begin_encryption` marks the store; from then on `sealing_keys` opens it for this work only, until `encrypt_plain` has processed
every table. Contents and runs stay the same, and unchanged resources stay unchanged: their hashes are hashed again, with the
tenant's secret as the key. Each transaction covers a few rows; after an interruption, the next call continues. `rotation` calls
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, LiteralString, NamedTuple

from psycopg import sql

from snapshots.attachments import is_sealed_document, sealed_document
from snapshots.beginning import lock_connection
from snapshots.errors import SealedValueError, StoreError, store_border
from snapshots.patient_index import index_missing
from snapshots.record import REFUSED_BY_STORE, Quarantined, Record
from snapshots.rights import require_owning
from snapshots.sealed_values import Keyring, Sealer
from snapshots.sealing import UnsealableError, opened_input, sealed_input, sealed_record
from snapshots.sealing_keys import keep_secret, kept_secrets
from snapshots.sql import load
from snapshots.sql_views import SqlViews
from snapshots.tenancy import OWN_RIGHTS, TenantSession

_SQL, _KEYS = load("encrypting"), load("sealing_keys")
_AT_ONCE = 500  # rows in memory, and in one transaction
_TOGETHER = 4 << 20  # bytes on the disk, at most, but of one row: 27 MB of inline documents took 130 MB of memory
_MOST = {"most": _AT_ONCE, "together": _TOGETHER}
_KEY = ("resource_type", "connection", "id")


class _Hashed(NamedTuple):
    """A table whose hashes do not show whether they are keyed: it is processed in the order of an indexed key."""

    key: Sequence[str]
    body: LiteralString | None  # its type


_HASHED = {
    "resource": _Hashed(_KEY, "jsonb"),
    "resource_history": _Hashed(_KEY, "jsonb"),
    "rival": _Hashed(("connection", "resource_type", "id"), "text"),
    "version_by_way": _Hashed(("connection", "resource_type", "id"), None),
}
_TERMS = "patient_index"
_INDEX = ("patient_token", _TERMS)
_SAMPLED = (*_HASHED, "quarantine", "attachment", *_INDEX)


async def begin_encryption(session: TenantSession, keyring: Keyring) -> None:
    """Mark a store with plain charts as being encrypted; leave alone a store without charts, or an encrypted one.

    The session is the owner's. It keeps every connection's lock.

    Raises:
        ConnectionBusyError: a run is in progress.
        MissingRightsError: the login does not own the tables.
        StoreError: some views would keep showing plain values, or would show ciphertext.
    """
    owner = replace(session, roles=OWN_RIGHTS)
    with store_border("beginning to encrypt the store"):
        async with owner.transaction():
            row = await (await owner.conn.execute(_KEYS["has_runs"])).fetchone()
            if await kept_secrets(owner) or not (row and row[0]):
                return
        await require_owning(owner, "encrypt")
        await _require_no_views(owner)
        locked = set[str]()
        while not await _begun(owner, keyring, locked):
            for name in sorted(await connections_of(owner) - locked):
                await lock_connection(owner, name)
                locked.add(name)


async def _begun(owner: TenantSession, keyring: Keyring, locked: set[str]) -> bool:
    """Begin, unless there is a connection whose runs are not locked out."""
    async with owner.transaction():
        await owner.conn.execute(_KEYS["shut_out"])
        if await connections_of(owner) - locked:
            return False
        if not await kept_secrets(owner):  # another process may have been first
            await keep_secret(owner, keyring)
            hashed = [part for table in _HASHED for part in await parts_of(owner, table)]
            await owner.conn.execute(_SQL["note_tables"], {"tables": [*hashed, "quarantine", "attachment", _TERMS]})
    return True


async def _require_no_views(owner: TenantSession) -> None:
    ours = [view.name for view in await SqlViews(owner).existing()]
    async with owner.transaction():
        values = {"ours": ours, "tables": list(_SAMPLED)}
        others = await (await owner.conn.execute(_SQL["others_views"], values)).fetchall()
    if ours or others:
        ways = [f"`chartferry views drop {' '.join(ours)}`"] if ours else []
        ways += [f"DROP {kind} {name}" for kind, name in others]
        raise StoreError(
            f"the store of tenant {owner.tenant} has views that hold plain values, or would show ciphertext. Remove "
            f"[encryption] from the configuration, drop them ({'; '.join(ways)}), and put it back; then encrypt the store, "
            "and create them "
            "again. Nothing was encrypted."
        )


async def connections_of(session: TenantSession) -> set[str]:
    """Return the names of all connections of the tenant."""
    async with session.transaction():
        return {row[0] async for row in await session.conn.execute(_SQL["connections"])}


async def parts_of(session: TenantSession, table: str) -> list[str]:
    """Return the tables that hold a table's rows."""
    async with session.transaction():
        return [row[0] async for row in await session.conn.execute(_SQL["parts"], {"table": table})]


async def encrypt_plain(session: TenantSession, sealer: Sealer) -> Mapping[str, int] | None:
    """Encrypt what `begin_encryption` has noted; return how many rows that were, by table; None: nothing was noted.

    The session is the owner's, and has every connection's lock.
    """
    rows = Counter[str]()
    async with session.transaction():
        waiting = {name: key async for name, *key in await session.conn.execute(_SQL["waiting"])}
    if not waiting:
        return None
    for table, how in _HASHED.items():
        for part in await parts_of(session, table):
            if part in waiting:
                rows[table] += await _hashed(session, sealer, part, how, waiting[part])
    if "quarantine" in waiting:
        rows["quarantine"] += await _input(session, sealer)
    if "attachment" in waiting:
        rows["attachment"] += await _documents(session, sealer)
    if _TERMS in waiting:  # last, because a process that opened the plain store may have added some until just now
        async with session.transaction():
            await session.conn.execute(_SQL["forget_terms"])
        await _forget_samples(session)
        async with session.transaction():
            await session.conn.execute(_SQL["encrypted"], {"table": _TERMS})
        for name in sorted(await connections_of(session)):
            await index_missing(session, name)
    return rows


async def _forget_samples(session: TenantSession) -> None:
    """Make the planner forget its samples of what the columns had: they are values too."""
    for table in _SAMPLED:
        parts = await parts_of(session, table)
        async with session.transaction():
            if table in _INDEX or any([await _is_emptied(session, part) for part in parts]):
                types = await (await session.conn.execute(_SQL["types"], {"table": table})).fetchall()
                retyped = sql.SQL(", ").join(
                    sql.SQL(_SQL["retype"]).format(column=sql.Identifier(name), type=sql.SQL(type_))
                    for name, type_ in types
                )
                await session.conn.execute(sql.SQL("ALTER TABLE {} ").format(sql.Identifier(table)) + retyped)
    async with session.transaction():
        await session.conn.execute(_SQL["sample"])


async def _is_emptied(session: TenantSession, part: str) -> bool:
    query = sql.SQL(_SQL["emptied"]).format(table=sql.Identifier(part))
    row = await (await session.conn.execute(query, {"table": part})).fetchone()
    return row is not None and bool(row[0])


async def _hashed(session: TenantSession, sealer: Sealer, table: str, how: _Hashed, after: Sequence[Any]) -> int:
    """Encrypt the rows of a table behind a key, some in a transaction, which notes how far that is."""
    columns: dict[str, sql.Composable] = {
        "table": sql.Identifier(table),
        "key": sql.SQL(", ").join(map(sql.Identifier, how.key)),
        "last": sql.SQL(", ").join(sql.SQL("{} DESC").format(sql.Identifier(name)) for name in how.key),
        "after": sql.SQL(", ").join(sql.Placeholder(f"after_{name}") for name in how.key),
        "upto": sql.SQL(", ").join(map(sql.Placeholder, how.key)),
        "body": sql.SQL("NULL" if how.body is None else "body::text"),
        "size": sql.SQL("0" if how.body is None else "pg_column_size(body)"),
        "and_body": sql.SQL("" if how.body is None else _SQL["and_body"]).format(type=sql.SQL(how.body or "")),
    }
    upto, between, write, quarantine, forget = (
        sql.SQL(_SQL[name]).format(**columns) for name in ("upto", "between", "write", "quarantine", "forget")
    )
    done, reached = 0, dict(zip(_KEY, after, strict=True))
    while True:
        async with session.transaction():
            behind = {f"after_{name}": value for name, value in reached.items()}
            last = await (await session.conn.execute(upto, {**behind, **_MOST})).fetchone()
            if last is None:
                await session.conn.execute(_SQL["encrypted"], {"table": table})
                return done
            reached = dict(zip(_KEY, last, strict=True))
            rows = await (await session.conn.execute(between, {**behind, **reached})).fetchall()
            columns_of, unsealable = _sealed(rows, sealer)
            done += (await session.conn.execute(write, columns_of)).rowcount
            if unsealable:
                await session.conn.execute(quarantine, _as_input(unsealable))
                await session.conn.execute(forget, {"places": [place for place, _ in unsealable]})
            await session.conn.execute(_SQL["reached"], {**reached, "table": table})


def _sealed(
    rows: Sequence[tuple[Any, ...]], sealer: Sealer
) -> tuple[dict[str, list[Any]], list[tuple[str, Quarantined]]]:
    """Return what to write of rows (place, type, id, hash, JSON or None), and what to quarantine, each with its place.

    Only rivals can be quarantined: no Postgres has read their JSON yet.
    """
    written: dict[str, list[Any]] = {"places": [], "hashes": [], "bodies": []}
    unsealable = []
    for place, kind, id_, digest, body in rows:
        record = Record(kind, id_, None, None, None, bytes(digest), (body or "").encode())
        try:
            sealed = (
                record._replace(content_hash=sealer.digest(bytes(digest)))
                if body is None
                else sealed_record(record, sealer)
            )
        except UnsealableError as error:
            unsealable.append((place, Quarantined(kind, REFUSED_BY_STORE, str(error), record.body)))
            continue
        written["places"].append(place)
        written["hashes"].append(sealed.content_hash)
        written["bodies"].append(None if sealed.body == record.body else sealed.body.decode())
    return written, unsealable


def _as_input(unsealable: Sequence[tuple[str, Quarantined]]) -> dict[str, list[Any]]:
    """Plain, because the quarantine is encrypted after the tables that it comes from."""
    hashed = [sealed_input(one, None) for _, one in unsealable]
    return {
        "places": [place for place, _ in unsealable],
        "digests": [digest for digest, _ in hashed],
        "sources": [one.source for _, one in unsealable],
        "reasons": [one.reason for _, one in unsealable],
        "raws": [raw for _, raw in hashed],
    }


async def _input(session: TenantSession, sealer: Sealer) -> int:
    """Encrypt quarantined input. What is encrypted already opens; so does what comes to lie behind, under its new hash."""
    done, after = 0, {"run": 0, "digest": b""}
    while True:
        async with session.transaction():
            values = {**after, **_MOST}
            rows = await (await session.conn.execute(_SQL["input"], values)).fetchall()
            if not rows:
                await session.conn.execute(_SQL["encrypted"], {"table": "quarantine"})
                return done
            plain = [row for row in rows if not _is_sealed_input(bytes(row[3]), row[2], sealer)]
            sealed = [sealed_input(Quarantined(None, source, "", bytes(raw)), sealer) for _, _, source, raw in plain]
            columns = {
                "runs": [row[0] for row in plain],
                "former": [row[1] for row in plain],
                "digests": [digest for digest, _ in sealed],
                "raws": [raw for _, raw in sealed],
            }
            done += (await session.conn.execute(_SQL["write_input"], columns)).rowcount
        after = {"run": rows[-1][0], "digest": rows[-1][1]}


def _is_sealed_input(raw: bytes, source: str, sealer: Sealer) -> bool:
    try:
        opened_input(raw, source, sealer)
    except SealedValueError:
        return False
    return True


async def _documents(session: TenantSession, sealer: Sealer) -> int:
    """Encrypt documents, likewise."""
    done, after = 0, b""
    while True:
        async with session.transaction():
            values = {"after": after, **_MOST}
            rows = await (await session.conn.execute(_SQL["documents"], values)).fetchall()
            if not rows:
                await session.conn.execute(_SQL["encrypted"], {"table": "attachment"})
                return done
            for former, content, text in rows:
                if is_sealed_document(bytes(former), bytes(content), sealer):
                    continue
                digest, sealed, read = sealed_document(bytes(content), text, sealer)
                columns = {"former": former, "digest": digest, "content": sealed, "text": read and read.decode()}
                for step in ("add_document", "move_uses", "forget_document"):
                    await session.conn.execute(_SQL[step], columns)
                done += 1
        after = rows[-1][0]
