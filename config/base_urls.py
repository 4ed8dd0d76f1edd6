"""Checks FHIR base URLs, and recognises what people paste instead: a document below the base, a search, a login URL. Pure."""

from __future__ import annotations

import re

from config.resource_types import RESOURCE_TYPES
from config.urls import has_port, parts_of

_DOCUMENT = re.compile(r"/(metadata|\.well-known(/.*)?|\$[a-z-]+)$")
_TYPE = re.compile(r"/(?P<type>[A-Z][A-Za-z]+)(/[^/]+)?(/(_history(/[^/]+)?|\$[a-z-]+))?$")
_BELOW_A_TYPE = re.compile(rf"/({'|'.join(sorted(RESOURCE_TYPES))})/[^/?#\s]+")
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?|[0-9A-Fa-f:.]+(%\w+)?")  # a name, in any script; an address
_LOGIN = re.compile(
    r"/(token|authorize|authorization|introspect|revoke|register|jwks(\.json)?|oauth2?|connect)$", re.IGNORECASE
)


def base_url_problem(url: str) -> str | None:
    """Return what is wrong with a base URL, with the URL that was probably meant; None if it is acceptable."""
    parts = parts_of(url)
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or "") or re.search(r"\S\s+\S", url):
        return 'must be a complete URL such as "https://ehr.example.org/api/FHIR/R4"'
    if "@" in url:  # anywhere in the URL: a password that contains / ends the host early
        return "must not contain a user name or password: use client_id and key, or bearer_token"
    if not has_port(parts):
        return "must have a port from 1 to 65535, or none"
    path = parts.path.rstrip("/")
    meant = _meant(path)
    probably = "" if meant == path else f'; probably "{parts.scheme}://{parts.netloc}{meant}"'
    if parts.query or parts.fragment:
        return f"must be the FHIR base URL, without ? or #{probably}"
    if _LOGIN.search(path):
        return (
            "must be the FHIR base URL, but this looks like a login URL; chartferry finds that from the base URL, or you can set "
            "profile.login.token_url"
        )
    return f"must be the FHIR base URL, to which /metadata and /Patient are added{probably}" if probably else None


def _meant(path: str) -> str:
    path = _DOCUMENT.sub("", path)
    found = _TYPE.search(path)
    return path[: found.start()] if found and found["type"] in RESOURCE_TYPES else path


def without_ids(url: str) -> str:
    """Return the URL with stars instead of what follows a resource type, since that may be a patient's id."""
    return _BELOW_A_TYPE.sub(r"/\1/****", url)
