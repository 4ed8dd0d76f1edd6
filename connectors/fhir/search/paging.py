"""Decides where the next page of a search is, and when to stop. Pure; `search.search` requests it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from connectors.fhir.errors import ProtocolError, UnsafeLinkError
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.links import elsewhere, origin


def follow(base: FhirBase, page_url: str, link: str) -> str:
    """The URL of a link found in an answer from `page_url`, byte for byte as the server wrote it where it is absolute.

    Raises:
        ProtocolError: it is empty: there is more, or may be, and the server does not say where.
        UnsafeLinkError: it leads to another origin (SMART: a foreign host never gets our requests or token).
    """
    if not link:
        raise ProtocolError(
            "A page's `next` link is empty, or its links cannot be read: there is, or may be, more, but the server does not say "
            "where; sync again; if it happens again, ask the EHR's operator what `link` its search results have."
        )
    url = base.safe(link, page=page_url)
    if origin(url) != origin(base.url):
        raise UnsafeLinkError(
            f"a page's `next` link leads to another origin than the connection's base_url, {origin(url)}; it was not followed; "
            + elsewhere(url, base.url)
        )
    return url


_ASK = "sync again; if it happens again, ask the EHR's operator where its search results end"
_SAME_PAGES = 3  # pages of the very same resources under new links: a server that repeats itself, not one that pages
_EMPTY_PAGES = 1_000  # in a row; some are lawful (F12)


class LoopGuard:
    """Stops a search whose `next` links repeat (vendor-facts 7) or never end. Holds 16 bytes a page."""

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._seen: set[bytes] = set()
        self._contents: dict[bytes, int] = {}
        self._empty = 0

    def look(self, ids: Sequence[str]) -> None:
        """Note what one page brought.

        Raises:
            ProtocolError: pages with new links keep bringing the same, or nothing at all.
        """
        self._empty = 0 if ids else self._empty + 1
        mark = blake2b("\n".join(ids).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        repeats = self._contents[mark] = self._contents.get(mark, 0) + 1 if ids else 0
        if repeats > _SAME_PAGES or self._empty > _EMPTY_PAGES:
            what = "the same resources" if ids else "nothing"
            raise ProtocolError(f"The server's `next` links do not end: page after page has {what}; {_ASK}.")

    def check(self, url: str) -> None:
        """Note one page's URL.

        Raises:
            ProtocolError: it came before, or there are more pages than the profile's `search.max_pages`.
        """
        mark = blake2b(url.encode(), digest_size=8).digest()
        if mark in self._seen:
            raise ProtocolError(f"The server's `next` links form a loop: the same page was named twice; {_ASK}.")
        if len(self._seen) >= self._max_pages:
            raise ProtocolError(
                f"The search has more than {self._max_pages} pages: raise profile.search.max_pages if that is correct."
            )
        self._seen.add(mark)


class Totals:
    """Compares the totals that a search's pages state with what came in all pages, each resource counted once.

    A total below what has already come does not show that anything is missing. Totals that never exceed their pages are the
    pages' own sizes, and so they change (Epic's: vendor-facts 1.6).
    """

    def __init__(self) -> None:
        self._ids: set[int] = set()
        self._unreadable = 0
        self._last: int | None = None
        self._covers_all = True
        self._exceeds_page = False
        self._changed = False

    def see(self, total: int | None, keys: Sequence[tuple[str, str]], unreadable: int = 0, issues: int = 0) -> None:
        """Note one page: its total, types and ids of its resources, the number of unreadable entries and of outcomes' issues."""
        self._ids.update(map(hash, keys))
        self._unreadable += unreadable
        if total is None:
            return
        self._covers_all = self._covers_all and total >= self._came
        self._exceeds_page = self._exceeds_page or total > len(keys) + unreadable + issues
        self._changed = self._changed or self._last not in {None, total}
        self._last = total

    @property
    def missing(self) -> int:
        """How many matches the server counted and did not return; 0 where its pages disagree about the total (`shifted`)."""
        if self._last is None or self._changed or not self._covers_all:
            return 0
        return max(0, self._last - self._came)

    @property
    def shifted(self) -> bool:
        """Whether the number changed while pages were read: by offsets, a row may have slipped through (vendor-facts 4.3)."""
        return self._exceeds_page and self._changed

    @property
    def _came(self) -> int:
        return len(self._ids) + self._unreadable
