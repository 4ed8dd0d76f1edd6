"""Distinguishes a connection's own FHIR base from others: which URLs are below it, and which Patient a reference names there.

Ids have a meaning only on one base: `https://other.example/fhir/Patient/p1` is not our patient. Pure, sends nothing:
`transport.links` decides which URLs may be requested, and which may receive the token.

A base is the same in any spelling of scheme and host, with or without its default port and trailing slashes. http and https of
one host count as one: behind a proxy, servers write `http:` links although they are reached by https (vendor-facts 7), and
nobody serves two sets of patients that differ in that letter. Another path is another base (R4 beside DSTU2, another tenant), and
so is another port, or the name by which a server knows itself inside its network: whose ids those are cannot be told from here,
unless the configuration says it (`moved`, profile.links.rewrite_origins).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from yarl import URL

from connectors.fhir.errors import UnsafeLinkError
from connectors.fhir.transport.links import NOT_MOVED, origin, resolve, safe_url

# an id is bounded like a resource's own (`records`); a version is cut off
_PATIENT = re.compile(r"(?:\A|/)Patient/([^\s/?#\x00-\x1f\x7f-\x9f]{1,1024})(?:/_history/[^/?#]+)?/?\Z")
_REMEMBERED = 10_000  # references, some 2 MB


class FhirBase:
    """The FHIR base of one connection."""

    def __init__(self, url: str, moved: Mapping[str, str] = NOT_MOVED) -> None:
        """`url` is the base as configured, `moved` as `links` has it; raises UnsafeLinkError where it is no http(s) URL."""
        self.url = url.rstrip("/")
        self._moved = moved
        self._written = f"{self.url}/"
        self._authority, self._path = _place(self._written)
        # the id of the Patient that a literal reference names on this base; None where it names none of ours. A version is of the
        # same Patient; a contained one (`#p`), a `urn:`, a search (`Patient?identifier=…`) name no id of ours. The references of
        # a chart are the same few texts: remembered, each costs a tenth
        self.patient = lru_cache(maxsize=_REMEMBERED)(self._patient)

    def resolve(self, link: str) -> str:
        """Return a link of the EHR as an absolute URL; raises as `links.resolve` does."""
        return resolve(link, self.url, self._moved)

    def safe(self, link: str, *, page: str | None = None) -> str:
        """Return the URL to request for a link of the EHR, relative to `page` if given; raises as `links.safe_url` does."""
        return safe_url(link, self.url, self._moved, page=page)

    def below(self, link: str) -> str | None:
        """What of a link, absolute or relative, follows this base: `Patient/p1`, with its query; None where it lies elsewhere."""
        if link.startswith(self._written):
            return link[len(self._written) :].partition("#")[0]
        try:
            authority, path = _place(self.resolve(link))
            if authority != self._authority:  # plain http of a server that is reached by https at another port
                authority, path = _place(self.safe(link))
        except UnsafeLinkError:
            return None
        return path[len(self._path) :] if authority == self._authority and path.startswith(self._path) else None

    def _patient(self, reference: str) -> str | None:
        found = _PATIENT.search(reference := reference.strip())
        if found is None:
            return None
        before = reference[: found.start()]
        rest = self.below(f"{before}/") if before else ""  # `Patient/p1`, and `/Patient/p1` as some servers write it
        return found[1] if rest is not None and not rest.strip("/") else None


def _place(url: str) -> tuple[str, str]:
    """Host and port, and path with query, of an absolute URL."""
    parsed = URL(url, encoded=True)
    query = f"?{parsed.raw_query_string}" if parsed.raw_query_string else ""
    return origin(url).partition("://")[2], f"{parsed.raw_path.lstrip('/')}{query}"
