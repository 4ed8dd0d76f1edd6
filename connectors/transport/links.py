"""Which URLs may be asked, and which may see the token. Pure; the answer never changes a byte of a well-formed link.

Origins are computed by yarl, the parser that the transport connects with: two parsers that disagree are how tokens leak.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin

from yarl import URL

from connectors.errors import UnsafeLinkError

_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_ILLEGAL = re.compile(r"[^\x21-\x7e]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_DEFAULT_PORT = {"http": 80, "https": 443}


def origin(url: str) -> str:
    """Scheme, host and port of an absolute http(s) URL, default port left out; raises UnsafeLinkError for any other."""
    if _CONTROL.search(url):
        raise UnsafeLinkError("a link holds control characters or a backslash; it was not followed")
    try:
        parsed = URL(url, encoded=True)
        host, port = parsed.host, parsed.port
    except ValueError:
        host, port = None, None
    if not host or parsed.scheme not in _DEFAULT_PORT:
        raise UnsafeLinkError("a link is not an absolute http or https URL; it was not followed")
    if "@" in parsed.raw_authority:
        raise UnsafeLinkError("a link carries a user name or password; it was not followed")
    shown = f"[{host}]" if ":" in host else host
    return f"{parsed.scheme}://{shown}" + ("" if port == _DEFAULT_PORT[parsed.scheme] else f":{port}")


def resolve(link: str, base_url: str) -> str:
    """A link of the EHR as an absolute URL: absolute ones untouched, relative ones against the FHIR base.

    What cannot stand in a request line (blanks, non-ASCII) is percent-encoded; everything else keeps its bytes.
    """
    return _joined(base_url.rstrip("/") + "/", link)


def redirect_target(location: str, url: str) -> str:
    """Where a Location header of `url` leads; raises UnsafeLinkError for one that leaves https."""
    target = _joined(url, location)
    if origin(target).startswith("http:") and not origin(url).startswith("http:"):
        raise UnsafeLinkError("a redirect leads from https to plain http; it was not followed")
    return target


def _joined(start: str, link: str) -> str:
    link = link.strip()
    joined: str | None = link
    if not _SCHEME.match(link):
        try:
            joined = urljoin(start, link)
        except ValueError:
            joined = None
    if joined is None or _CONTROL.search(joined):  # outside `except`: urllib quotes the link
        raise UnsafeLinkError("a link is not a URL; it was not followed")
    return _ILLEGAL.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), joined)


def safe_url(link: str, base_url: str) -> str:
    """The URL to ask for `link`: resolved, and never weaker than the base.

    Behind a proxy, servers write `http:` links although they are reached by https (vendors.md section 7): on the base's own
    host those are upgraded; anywhere else a plain http link under an https base raises UnsafeLinkError.
    """
    url = resolve(link, base_url)
    if not origin(url).startswith("http:") or origin(base_url).startswith("http:"):
        return url
    upgraded = "https" + url[len("http") :]
    parsed = URL(url, encoded=True)
    if parsed.host == URL(base_url, encoded=True).host and parsed.explicit_port is None:
        port = URL(base_url, encoded=True).explicit_port
        return (
            upgraded
            if port is None
            else upgraded.replace(f"//{parsed.raw_authority}", f"//{parsed.raw_authority}:{port}", 1)
        )
    raise UnsafeLinkError("a link leads from https to plain http; it was not followed")
