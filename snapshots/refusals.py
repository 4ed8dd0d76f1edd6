r"""Find the records that Postgres refuses, so that a poison record costs only itself.

jsonb refuses `\u0000`, lone surrogates, numbers beyond 131072 digits and very deep nesting; text refuses NUL and what is not
UTF-8. Ingest checks for none of that: only after a batch was refused does this module search it, outside a transaction.
`ledger` handles the refused records (quarantine, a hole).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection

from snapshots.record import Record
from snapshots.sql import load
from snapshots.wire import text_array

_SQL = load("ingest")
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|[eE]\+?[0-9]{4}")
_MAX_KEY_BYTES = 1024  # an index entry holds 2700 bytes; FHIR ids have at most 64 characters
_REASONS = {
    "22P05": "the JSON contains \\u0000 or a lone surrogate, which Postgres cannot store",
    "22P02": "not valid JSON to Postgres",
    "22003": "a number in the JSON is out of range",
    "54001": "the JSON is nested too deeply",
}


class RefusedRecord(NamedTuple):
    """A record that cannot be stored, and why (without quoting it)."""

    record: Record
    reason: str


def blames_a_record(error: psycopg.Error) -> bool:
    """Whether an error is of the kind that a record's content causes: class 22 (data) or 54 (a limit)."""
    return error.sqlstate is not None and error.sqlstate[:2] in {"22", "54"}


async def find_refused(conn: AsyncConnection[Any], records: Sequence[Record]) -> list[RefusedRecord]:
    """Return the records of a refused batch that Postgres cannot store. The connection must be outside a transaction."""
    refused = [RefusedRecord(record, reason) for record in records if (reason := _unreadable(record))]
    known = {id(one.record) for one in refused}
    rest = [record for record in records if id(record) not in known]
    # first one by one those whose text looks suspicious, so that a file full of them does not cost a search for each
    suspects = [record for record in rest if _SUSPECT.search(record.body)]
    for record in suspects:
        refused += await _search(conn, [record])
    suspected = {id(record) for record in suspects}
    return refused + await _search(conn, [record for record in rest if id(record) not in suspected])


def _unreadable(record: Record) -> str | None:
    """Return why Postgres' text type refuses it, else None."""
    try:
        keys = [
            text.encode() for text in (record.resource_type, record.id, record.patient_id, record.version_id) if text
        ]
        keys.append((record.last_updated or "").encode())
        record.body.decode()
    except UnicodeError:
        return "not valid UTF-8"
    if b"\x00" in record.body or any(b"\x00" in key for key in keys):
        return "a NUL character, which Postgres cannot store"
    if any(len(key) > _MAX_KEY_BYTES for key in keys):
        return f"an id longer than {_MAX_KEY_BYTES} bytes"
    return None


async def _search(conn: AsyncConnection[Any], records: list[Record]) -> list[RefusedRecord]:
    """Halve what is refused until single records are left."""
    if not records:
        return []
    try:
        await conn.execute(_SQL["is_json"], {"bodies": text_array([record.body for record in records])})
    except psycopg.Error as error:
        if not blames_a_record(error):
            raise
        if len(records) == 1:
            state = error.sqlstate or ""
            return [RefusedRecord(records[0], _REASONS.get(state, f"Postgres refuses it as JSON (SQLSTATE {state})"))]
        middle = len(records) // 2
        return await _search(conn, records[:middle]) + await _search(conn, records[middle:])
    return []
