"""Reads references: what they lead to on the EHR's own FHIR base, or why they lead to nothing that may be requested. Pure.

A reference to another origin is never followed (the token stays where it belongs). Logical references, identifiers without
`reference`, lead to nothing that could be read by id and do not come here.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

from connectors.fhir.errors import UnsafeLinkError
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.links import origin, resolve
from snapshots.referred import ReferenceTarget

Astray = Literal["contained", "urn", "foreign", "odd"]

_RELATIVE = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9.\-]{1,1024})\Z")
_READ = re.compile(r"([A-Z][A-Za-z]{1,63})/([^/?#]+)(?:/_history/[^/?#]+)?(?:#.*)?\Z")
_URN = re.compile(r"urn:", re.IGNORECASE)
_ID_MAX = 1024  # bytes


class Resolver:
    """Resolves the references of one connection."""

    def __init__(self, base: FhirBase) -> None:
        self._base = base

    def __call__(self, reference: str) -> ReferenceTarget | Astray:
        """Return what a reference leads to, or why it leads nowhere."""
        found = _RELATIVE.match(reference)  # nearly all
        if found is not None and found[2] not in (".", ".."):
            return ReferenceTarget(found[1], found[2])
        return self._resolved(reference.strip())

    def _resolved(self, reference: str) -> ReferenceTarget | Astray:
        if reference.startswith("#"):
            return "contained"
        if _URN.match(reference):
            return "urn"
        path = self._base.below(reference)
        if path is None:  # another server, or this server's other base: another version, another tenant
            return "foreign" if "//" in reference or _is_url(reference, self._base.url) else "odd"
        read = _READ.match(path)
        if read is None:
            return "odd"
        identity = unquote(read[2])
        if _is_odd(identity):
            return "odd"
        return ReferenceTarget(read[1], identity)


def _is_odd(identity: str) -> bool:
    """Whether it is no id that the store could keep: an index takes so many bytes, and no lone surrogate."""
    try:
        return len(identity.encode()) > _ID_MAX or "\x00" in identity or identity in (".", "..")
    except UnicodeEncodeError:
        return True


def _is_url(reference: str, base_url: str) -> bool:
    try:
        return bool(origin(resolve(reference, base_url)))
    except UnsafeLinkError:
        return False
