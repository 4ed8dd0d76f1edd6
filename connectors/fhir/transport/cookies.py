"""Keeps the cookies of one connection's EHR, for servers that hold a paging session or an export on one of several machines.

Bound to one origin: none is taken from another, and none is sent there, whatever Domain a server names. Off unless the profile
says `cookies`: a server that needs none can tie nothing to us. In memory, and gone with the run; a cookie is as secret as a
token.
"""

from __future__ import annotations

from collections.abc import Sequence
from http.cookies import BaseCookie, SimpleCookie

from aiohttp import CookieJar
from aiohttp.typedefs import LooseCookies
from yarl import URL

_NOWHERE = URL()
MOST = 50  # RFC 6265 6.1: what a client should hold of one domain; a server that sets new ones for ever starts over


class OriginCookies(CookieJar):
    """The cookies that one origin sets, for requests to it. Made within an event loop, as aiohttp's own jar."""

    def __init__(self, home: str) -> None:
        """`home` is the origin's URL."""
        # `unsafe`: hosts that are addresses; values leave as they came
        super().__init__(unsafe=True, quote_cookie=False)
        self._home = URL(home).origin()

    def update_cookies(self, cookies: LooseCookies, response_url: URL = _NOWHERE) -> None:
        """Take cookies of the origin."""
        if self._takes(response_url):
            super().update_cookies(cookies, response_url)

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        """Take what an answer of the origin sets: of these two, the one that the session calls."""
        if self._takes(response_url):
            super().update_cookies_from_headers(headers, response_url)

    def filter_cookies(self, request_url: URL = _NOWHERE) -> BaseCookie[str]:
        """Give what a request to this URL carries: nothing for another origin."""
        return super().filter_cookies(request_url) if self._is_home(request_url) else SimpleCookie()

    def _takes(self, url: URL) -> bool:
        if len(self) >= MOST:
            self.clear()
        return self._is_home(url)

    def _is_home(self, url: URL) -> bool:
        return url.is_absolute() and url.origin() == self._home
