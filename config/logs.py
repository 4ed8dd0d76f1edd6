"""Logging set-up: chartferry logs with structlog; the standard library's loggers use the same output and the same redaction.

Owns how a line looks (JSON, or a sentence on a terminal), which libraries stay quiet, and what never leaves the process: query
strings, Bearer tokens, JWTs, passwords. The callers decide what to log.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# they log URLs (httpx at INFO, with patient ids and names in the query) or noise; their warnings are still logged
QUIET_LIBRARIES = (
    "httpx",
    "httpcore",
    "aiohttp",
    "hypothesis",
    "asyncio",
    "psycopg",
    "psycopg.pool",
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


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Redact every value of an event, at any depth: the last processor before the renderer, for every log line."""
    return {key: _redacted(key, value) for key, value in event.items()}


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


def _error_by_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace an exception's traceback with its type: messages of other libraries' exceptions may quote PHI."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    if isinstance(exc_info, BaseException):
        event["error_type"] = type(exc_info).__name__
    elif isinstance(exc_info, tuple) and exc_info[0] is not None:
        event["error_type"] = exc_info[0].__name__
    return event


def _sentence(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Format an event as a sentence: "warning: the connection was lost (error_type ConnectError)"."""
    details = ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("event", "level", "timestamp"))
    level = event.get("level", "info")
    said = f"{event.get('event', '')}{f' ({details})' if details else ''}"
    return said if level == "info" else f"{level}: {said}"


def configure_logging(*, json: bool, level: str | int, stream: TextIO) -> None:
    """Send every log line, ours and the libraries', redacted to `stream`: JSON lines, or sentences for a terminal.

    May be called again; the last call wins. Exceptions appear by type, without traceback.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _error_by_name,
    ]
    renderer: Processor = structlog.processors.JSONRenderer(sort_keys=True) if json else _sentence
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, renderer],
            keep_exc_info=False,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
