"""How a message may quote a value of the configuration: shortened, and without what is, or may be, a secret. Pure.

`settings` and its parts decide which values are wrong.
"""

from __future__ import annotations

import re
from datetime import date, time

from config.base_urls import without_ids
from config.fhir_server import masked_url
from config.logs import redact_text

SECRET_KEYS = (
    "key",
    "key_passphrase",
    "client_secret",
    "bearer_token",
    "proxy",
    "password",
    "token",
    "secret",
    "file_request_headers",
)
SHOWN_CHARS = 60

_KINDS: dict[type, str] = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def shown(key: str, value: object) -> str:
    """Return a value as a message may quote it: shortened, and not quoted at all if it may be a secret."""
    if any(word in key for word in SECRET_KEYS) and value is not None:
        return f"{_KINDS.get(type(value), 'a value')}, not shown because it may be a secret"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return _KINDS[dict]  # it may hold anything, under any name
    if isinstance(value, list | tuple):
        text = f"[{', '.join(shown(key, one) for one in value)}]"
    else:
        text = repr(_without_credentials(value) if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def _without_credentials(text: str) -> str:
    """Mask a URL's user name and password, everything from its query on, and what else names itself a password."""
    text = redact_text(masked_url(without_ids(text)))
    if "://" not in text:
        return re.sub(r"[?].*", "?****", text, flags=re.DOTALL)
    return re.sub(r"(://)\S*@", r"\1****@", re.sub(r"[?#].*", "?****", text, flags=re.DOTALL))
