"""Erases a patient: every row, in every table except the audit's, that is or was the patient's or identifies them.

It ends with a search of all tables for the patient; if anything is found, nothing is erased. Values that no key decrypts cannot
be searched: they stay and are reported. The audit keeps one event, with the number of rows of each table. Nothing stops a later
run from storing the patient again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, LiteralString, NamedTuple
from urllib.parse import quote

from psycopg import AsyncConnection, sql

from config.how_many import how_many
from snapshots.audit_event import Action
from snapshots.beginning import lock_connection
from snapshots.errors import StoreError, store_border
from snapshots.reading import WhatWasRead, named_patients, note
from snapshots.rights import require_owning
from snapshots.sealed_traces import find_sealed, forget_input
from snapshots.sealing_keys import sealer_of_moment
from snapshots.sql import load
from snapshots.tenancy import TenantSession

_SQL, _LEDGER = load("erasure"), load("ledger")
_KEYED = (
    "resource", "resource_history", "rival", "version_by_way", "subsetted", "listed", "evidence", "member", "member_history",
    "referenced",
)  # fmt: skip
_OF_PATIENT = ("member", "member_history", "roster", "lag", "deferral", "referenced", "patient_index", "patient_token")
# how a column tells of a patient: by its name, else it is searched for a reference, by its type
_COLUMNS = {
    **dict.fromkeys(("patient_id", "former_id", "surviving_id", "of_chart"), "patient"),
    **dict.fromkeys(("id", "resource_id"), "resource"),
    "patients": "patients",
    "ids": "resources",
    "raw": "raw",
}
_UNREAD = "unread"  # in the audit, beside the tables
_TYPES = {"text": "text", "jsonb": "document", "_text": "list"}
# what no id has (R4, id); a full stop may end a sentence
_BEFORE, _AFTER = "(^|[^A-Za-z0-9.-]|%[0-9A-Fa-f]{2})", r"(\.*($|[^A-Za-z0-9.-]))"
# what mentions a patient: a reference, or a search by patient, such as in a URL; in a chain, a full stop is before it, and others
# may be listed before the id. Patterns of LIKE, which find at least as much: each costs a search through every text
_MENTIONS = ("Patient/{}", "Patient_2_{}", "atient=%{}", "atient_3_%{}", r"Patient_%\_id%{}")
_PATTERNED, _LITERAL = re.compile(r"([%_\\])"), r"\\\1"  # of LIKE
_LISTED = "(([A-Za-z0-9._~:@/-]|%(2[Ff]|3[Aa]|40|7[Ee]))+(,|%2[Cc]))*"
_BY_ID = r"Patient(\?|%3[Ff])([^\s\"'<>\\]*(&|;|%26|%3[Bb]))?_id"
_MENTION = rf"({_BEFORE}Patient(/|%2[Ff])|(({_BEFORE}|\.)[Pp]atient|{_BEFORE}{_BY_ID})(=|%3[Dd]){_LISTED})"
_NAMING = """(["'/=:,|]|%2[Ff])"""  # what is before an id in input that cannot be read
_ASCII_ENDS = 128


class Erased(NamedTuple):
    """What was erased."""

    rows: Mapping[str, int]  # by table, those without any left out
    shared: int  # live resources among them that were other patients' as well
    unread: tuple[str, ...]  # names of values that no key opens, and that stayed: they may refer to the patient
    # whether the planner has taken new samples of these tables: the old ones have values of rows
    resampled: bool = False
    # materialised ones that could not be refreshed: they may still have rows of the patient
    views: tuple[str, ...] = ()
    copies_known: bool = True  # whether the store could still tell, after the commit, which views there are


async def erase(session: TenantSession, connection: str, patient: str) -> Erased:
    """Delete a patient, and the ids that were merged into it, in one transaction; `Store.erase` says what it raises."""
    with store_border(f"erasing a patient of connection {connection}"):
        await lock_connection(session, connection)
        async with session.transaction(writes=True):
            await sealer_of_moment(session)  # who opened a plain store finds nothing in what is encrypted meanwhile
            number = await _number(session.conn, connection)
            whose = {"connection": number, "patient": patient}
            ids = [row[0] async for row in await session.conn.execute(_SQL["who"], whose)]
            values_of = {one: await _values(session.conn, number, one) for one in ids}
            named = {"connection": number, "patients": ids}
            digests = [row[0] async for row in await session.conn.execute(_SQL["cohorts"], named)]
            rows, types, shared = Counter[str](), set[str](), 0
            erased, unread = list[str](), list[str]()
            for one, values in values_of.items():
                await session.conn.execute(_SQL["find_keys"], values)
                if session.sealer is not None:  # of the last id: what is left of all by then
                    unread = await find_sealed(session.conn, values, session.sealer)
                shared += (await _row(session.conn, "shared", values))[0]
                types |= set((await _row(session.conn, "types", values))[0])
                await session.conn.execute(_SQL["forget_up_to_when"], values)
                deleted, unread_input = await _deleted(session, values)
                rows.update(deleted)
                erased += [one] if deleted else []
                await session.conn.execute(_SQL["forget_found"])
            await session.conn.execute(_SQL["forget_cohorts"], {"connection": number, "digests": digests})
            for values in values_of.values():
                await _require_nothing(session.conn, values)
            if erased:
                await session.conn.execute(_SQL["count_erased"], {"connection": number, "patients": len(erased)})
                read = WhatWasRead(
                    connections=[connection], types=sorted(types), patients=[named_patients(connection, erased)]
                )
                left = len(unread) + len(unread_input)
                await note(session, Action.ERASE, read, erased={**rows, _UNREAD: left} if left else rows)
    return Erased(dict(sorted(rows.items())), shared, (*sorted(unread), *sorted(unread_input)))


async def resample(owner: TenantSession, tables: Iterable[str]) -> bool:
    """Let the planner take new samples of tables, and return whether it has: only their owner may. An empty one keeps its own."""
    try:
        await require_owning(owner, "sample")
        with store_border("sampling what was left by an erasure"):
            async with owner.transaction():
                names = sql.SQL(", ").join(sql.Identifier(table) for table in tables)
                await owner.conn.execute(sql.SQL("ANALYZE {}").format(names))
    except StoreError:  # what was erased is erased; the caller tells what is left to do
        return False
    return True


async def _number(conn: AsyncConnection[Any], connection: str) -> int:
    found = await (await conn.execute(_LEDGER["find_connection"], {"connection": connection})).fetchone()
    if found is None:
        raise StoreError(f"nothing is stored of connection {connection}.")
    run = await (await conn.execute(_SQL["unended_run"], {"connection": found[0]})).fetchone()
    if run is not None:
        raise StoreError(
            f"run {run[0]} of connection {connection} has not ended, and may fetch the patient again: let the next sync "
            f"finish it, or give it up with `chartferry runs discard {run[0]}`."
        )
    return int(found[0])


async def _values(conn: AsyncConnection[Any], connection: int, patient: str) -> dict[str, Any]:
    """Return what the queries need to find a patient, and nobody whose id only begins as the patient's does."""
    values = {"connection": connection, "patient": patient, "end": _AFTER}
    ends = [row[0] async for row in await conn.execute(_SQL["longer_ids"], values)]
    return {
        **values,
        "mentions": [f"%{mention.format(_PATTERNED.sub(_LITERAL, patient))}%" for mention in _MENTIONS],
        "trace": trace_of(patient, ends),
        # of bytes, as SQL and as Python turn them into text
        "named": _NAMING + _id(patient, ends, _escaped),
        "named_in_latin1": _NAMING + _id(patient, ends, lambda text: text.encode().decode("latin-1")),
    }


def trace_of(patient: str, ends: Sequence[str] = ()) -> str:
    """Return a regular expression of Postgres and of Python that finds a mention of a patient, and of nobody with a longer id.

    `ends` are how longer ids go on that R4 does not allow.
    """
    return _MENTION + _id(patient, [*ends, *map(quote, ends)], str)


def _id(patient: str, ends: Sequence[str], written: Callable[[str], str]) -> str:
    """Return a regular expression for an id, up to its end; `ends` are those of longer ids, which it does not match."""
    longer = "|".join(re.escape(written(one)) for one in ends)
    return re.escape(written(patient)) + (f"(?!(?:{longer}){_AFTER})" if ends else "") + _AFTER


def _escaped(text: str) -> str:
    """Return how Postgres' `encode(…, 'escape')` writes a text's bytes."""
    return "".join(chr(byte) if byte < _ASCII_ENDS else f"\\{byte:03o}" for byte in text.replace("\\", "\\\\").encode())


async def _row(conn: AsyncConnection[Any], query: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = await (await conn.execute(_SQL[query], values)).fetchone()
    assert row is not None
    return row


async def _deleted(session: TenantSession, values: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Delete the rows; return their numbers by table, and the input that could not be searched."""
    conn, rows, unread = session.conn, dict[str, int](), list[str]()

    async def delete(table: str, statement: LiteralString) -> None:
        query = sql.SQL(statement).format(table=sql.Identifier(table))
        rows[table] = rows.get(table, 0) + (await conn.execute(query, values)).rowcount

    await delete("quarantine", _SQL["quarantine"])  # before the units, which show whose it is
    if session.sealer is not None:
        named, unread = await forget_input(conn, values, session.sealer)
        rows["quarantine"] += named
    await delete("unit", _SQL["unit"])
    for table in ("attachment_use", "attachment_use_history"):
        await delete(table, _SQL["attached"])
    await delete("alias", _SQL["alias"])
    for table in _KEYED:
        await delete(table, _SQL["keyed"])
    for table in _OF_PATIENT:
        await delete(table, _SQL["of_patient"])
    if any(rows.values()):
        await delete("attachment", _SQL["attachment"])
    return {table: count for table, count in sorted(rows.items()) if count}, unread


async def _require_nothing(conn: AsyncConnection[Any], values: Mapping[str, Any]) -> None:
    """Search every table that has rows of connections or runs; raise StoreError if the patient is found."""
    conditions: dict[str, list[sql.Composable]] = {}
    whose: dict[str, LiteralString] = {}
    for table, column, kind, has_connection, has_run in await (await conn.execute(_SQL["columns"])).fetchall():
        if not (has_connection or has_run):
            continue
        whose[table] = _SQL["of_connection"] if has_connection else _SQL["of_runs"]
        tells = _SQL[_COLUMNS.get(column) or _TYPES[kind]]
        conditions.setdefault(table, []).append(sql.SQL(tells).format(column=sql.Identifier(column)))
    for table, some in conditions.items():
        query = sql.SQL(_SQL["remaining"]).format(
            table=sql.Identifier(table), whose=sql.SQL(whose[table]), conditions=sql.SQL(" OR ").join(some)
        )
        row = await (await conn.execute(query, values)).fetchone()
        if row is None or row[0]:
            raise StoreError(
                f"nothing was erased: {how_many(row[0], 'row') if row else 'some rows'} of {table} would still refer to the "
                "patient. This is a bug in chartferry: report it with the name of the table."
            )
