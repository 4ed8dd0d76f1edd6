"""Logging set-up: chartferry and its libraries log with the standard library, to one output with one redaction.

Owns how a line looks (JSON, or a sentence on a terminal), which libraries stay quiet, and what never leaves the process: query
strings, Bearer tokens, JWTs, passwords. The callers decide what to log: a message, and beside it `extra={"fields": {...}}`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

# they log URLs (httpx at INFO, with patient ids and names in the query) or noise; their warnings are still logged
QUIET_LIBRARIES = (
    "httpx",
    "httpcore",
    "aiohttp",
    "hypothesis",
    "asyncio",
    "psycopg",
    "uvicorn",
    "authlib",
)

SECRET_FIELDS = frozenset(
    {
        "access_token",
        "assertion",
        "authorization",
        "bearer_token",
        "client_assertion",
        "client_secret",
        "key_passphrase",
        "cookie",
        "id_token",
        "key",
        "password",
        "private_key",
        "refresh_token",
        "secret",
        "token",
    }
)
HIDDEN = "****"

_REDACTIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)*"), HIDDEN),  # JWT: client assertions, most tokens
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{4,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"\b(client_assertion|client_secret|access_token|refresh_token|id_token|password|assertion)"
            r"([\"']?\s*[=:]\s*[\"']?)[^\s&\"',;}]+",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(://[^:/@\s]*):[^@/\s]+@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"\?[^\s\"'<>)\]]+"), f"?{HIDDEN}"),  # a query string: search values are PHI
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
)


def redact_text(text: str) -> str:
    """Return text without query strings, Bearer tokens, JWTs, passwords and private keys."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def _redacted(key: str, value: Any) -> Any:
    if isinstance(key, str) and key.lower() in SECRET_FIELDS:
        return HIDDEN
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {redact_text(str(inner)): _redacted(str(inner), each) for inner, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted("", each) for each in value]
    return redact_text(value if isinstance(value, str) else str(value))


def _event_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a line says, redacted. An exception gives its type: messages of other libraries' exceptions may quote PHI."""
    event = {
        "event": record.getMessage(),
        "level": record.levelname.lower(),
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
        **getattr(record, "fields", {}),
    }
    if record.exc_info and record.exc_info[0] is not None:
        event["error_type"] = record.exc_info[0].__name__
    return {key: _redacted(key, value) for key, value in event.items()}


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_event_of(record), sort_keys=True)


class _Sentence(logging.Formatter):
    """For people: "warning: the connection was lost (error_type ConnectError)"."""

    def format(self, record: logging.LogRecord) -> str:
        event = _event_of(record)
        line, level, _ = event.pop("event"), event.pop("level"), event.pop("timestamp")
        details = ", ".join(f"{key} {value}" for key, value in event.items())
        line += f" ({details})" if details else ""
        return line if level == "info" else f"{level}: {line}"


def configure_logging(*, json: bool, level: str | int, stream: TextIO) -> None:
    """Send every log line, ours and the libraries', redacted to `stream`: JSON lines, or sentences for a terminal.

    May be called again; the last call wins. Exceptions appear by type, without traceback.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonLine() if json else _Sentence())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    # it warns of each session that was lost, by an address in memory; what then fails is reported by whoever needed the session
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
