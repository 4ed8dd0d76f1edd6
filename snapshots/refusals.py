r"""Find the records that Postgres refuses, so that a poison record costs only itself.

jsonb refuses `\u0000`, lone surrogates, numbers beyond 131072 digits and very deep nesting; text refuses NUL and what is not
UTF-8. Ingest checks for none of that: this module searches a batch after it was refused, outside a transaction, and before that
what Postgres' error would quote. `ledger` handles the refused records (quarantine, a hole).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from snapshots.json_spans import has_unicode_escape
from snapshots.record import Record
from snapshots.sql import load
from snapshots.tenancy import TenantSession
from snapshots.wire import text_array

_SQL = load("ingest")
_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
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


def suspects(records: Sequence[Record]) -> list[Record]:
    """Return the records that Postgres may refuse with an error that quotes them.

    Its server would log that: ask `find_refused` of these before they are sent with others. All other errors quote nothing.
    """
    return [record for record in records if has_unicode_escape(record.body) and _ESCAPE.search(record.body)]


async def find_refused(session: TenantSession, records: Sequence[Record]) -> list[RefusedRecord]:
    """Return the records that Postgres cannot store. The session must be outside a transaction."""
    refused = [RefusedRecord(record, reason) for record in records if (reason := _unreadable(record))]
    known = {id(one.record) for one in refused}
    rest = [record for record in records if id(record) not in known]
    async with session.transaction(writes=True):
        found = await session.conn.execute(_SQL["refused"], {"bodies": text_array([record.body for record in rest])})
        async for place, state in found:
            reason = _REASONS.get(state, f"Postgres refuses it as JSON (SQLSTATE {state})")
            refused.append(RefusedRecord(rest[place - 1], reason))
    return refused


def without(records: Sequence[Record], refused: Sequence[RefusedRecord]) -> list[Record]:
    """Return the records that are not refused."""
    bad = {id(one.record) for one in refused}
    return [record for record in records if id(record) not in bad]


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
