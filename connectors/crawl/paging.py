"""Decides where the next page of a search is, and when to stop. Pure; asking for it is `crawl.search`'s."""

from __future__ import annotations

from hashlib import blake2b
from urllib.parse import urljoin, urlsplit

from connectors.errors import ProtocolError, UnsafeLinkError
from connectors.transport.links import origin, safe_url


def follow(base_url: str, page_url: str, link: str) -> str:
    """The URL of a link found in an answer from `page_url`, byte for byte as the server wrote it where it is absolute.

    Raises:
        UnsafeLinkError: it leads to another origin (SMART: a foreign host never gets our requests or token).
    """
    url = safe_url(link if urlsplit(link).scheme else urljoin(page_url, link), base_url)
    if origin(url) != origin(base_url):
        raise UnsafeLinkError(
            "a page's `next` link leads to another origin than the connection's base_url; it was not followed"
        )
    return url


class LoopGuard:
    """Stops a search whose `next` links repeat (Azure #1102, HAPI #1300) or never end. Holds 8 bytes a page."""

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._seen: set[bytes] = set()

    def check(self, url: str) -> None:
        """Note one page's URL.

        Raises:
            ProtocolError: it came before, or there are more pages than the profile's `max_pages`.
        """
        mark = blake2b(url.encode(), digest_size=8).digest()
        if mark in self._seen:
            raise ProtocolError("The server's `next` links go in a circle: the same page was named twice.")
        if len(self._seen) >= self._max_pages:
            raise ProtocolError(
                f"The search has more than {self._max_pages} pages: raise profile.max_pages if that is right."
            )
        self._seen.add(mark)
