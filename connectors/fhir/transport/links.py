"""Which URLs may be requested, and which may receive the token. Pure; the answer never changes a byte of a well-formed link.

Servers behind a gateway write links by the name that they know themselves by (`http://localhost:8080`, an internal host), or a
port twice. `moved` maps such an origin onto the one that it is reached at (profile.links.rewrite_origins); no
more of the link changes.

Origins are computed by yarl, the parser that the transport connects with: two parsers that disagree are how tokens leak.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import urljoin

from yarl import URL

from connectors.fhir.errors import UnsafeLinkError

_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_ILLEGAL = re.compile(r"[^\x21-\x7e]+")
_SHOWABLE = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_AUTHORITY = re.compile(r"(?i)(https?)://([^/?#]*)")
_PORT_TWICE = re.compile(r"(?i)(https?://[^/?#@]*?(:\d{1,5}))(?:\2)+(?=[/?#]|\Z)")  # Azure behind a gateway: `:443:443`
NOT_FOLLOWED = (
    "it was not followed; ask the EHR's operator to correct the links that this server, or a gateway in front of it, writes "
    "(mostly by a setting with its own address)"
)
_AROUND = ("<>", '""')
NOT_MOVED: Mapping[str, str] = MappingProxyType({})
_PORT = re.compile(r":\d*\Z")
_DEFAULT_PORT = {"http": 80, "https": 443}


def origin(url: str) -> str:
    """Scheme, host and port of an absolute http(s) URL, default port left out; raises UnsafeLinkError for any other."""
    if _CONTROL.search(url):
        raise UnsafeLinkError(f"a link contains control characters or a backslash; {NOT_FOLLOWED}")
    found = _AUTHORITY.match(url)
    return _origin_of(url if found is None else found[0])


@lru_cache(maxsize=256)  # each request asks some six times, of the same few servers
def _origin_of(url: str) -> str:
    try:
        parsed = URL(url, encoded=True)
        host, port = parsed.host, parsed.port
    except ValueError:
        host, port = None, None
    if not host or parsed.scheme not in _DEFAULT_PORT:
        raise UnsafeLinkError(f"a link is not an absolute http or https URL; {NOT_FOLLOWED}")
    if "@" in parsed.raw_authority:
        raise UnsafeLinkError(f"a link contains a user name or password; {NOT_FOLLOWED}")
    shown = f"[{host}]" if ":" in host else host
    return f"{parsed.scheme}://{shown}" + ("" if port == _DEFAULT_PORT[parsed.scheme] else f":{port}")


def written_origin(url: str) -> str | None:
    """The origin of an absolute http(s) URL as far as it can be shown, also of one that no client would ask (`host:443:443`)."""
    found = _AUTHORITY.match(_PORT_TWICE.sub(r"\1", url.strip()))
    if found is None or not found[2]:
        return None
    try:
        return origin(f"{found[1].lower()}://{found[2]}")
    except UnsafeLinkError:
        return None if "@" in found[2] or not _SHOWABLE.fullmatch(found[2]) else f"{found[1]}://{found[2]}".lower()


def elsewhere(link: str, home: str) -> str:
    """What to do about a link to another origin than `home`, which it names, without its path."""
    link_origin = written_origin(link)
    if link_origin is None:
        return "profile.links.rewrite_origins maps an origin in the EHR's links to the one where it can be reached"
    setting = f'profile.links.rewrite_origins = {{ "{link_origin}" = "{written_origin(home) or home}" }}'
    if link_origin.startswith("https:") and home.startswith("http:") and _host(link_origin) == _host(home):
        return f"let base_url begin with {link_origin}; or, if this EHR can be reached over http only, set {setting}"
    return f"if {link_origin} is this EHR by another name, set {setting}"


def _host(url: str) -> str:
    found = _AUTHORITY.match(url)
    return _PORT.sub("", found[2].rpartition("@")[2]).lower() if found else ""


def header_link(value: str | None) -> str | None:
    """The URL in a header, without the marks that some servers put around it (RFC 3986, appendix C).

    A gateway may repeat the header; then HTTP joins its values with a comma, and the first one counts.
    """
    values = [_bare(one) for one in (value or "").split(", ")]
    repeated = all(one == values[0] or _AUTHORITY.match(one) for one in values)
    return (values[0] if repeated else value) or None


def _bare(link: str) -> str:
    return link[1:-1] if len(link) > 1 and link[0] + link[-1] in _AROUND else link


def resolve(link: str, base_url: str, moved: Mapping[str, str] = NOT_MOVED) -> str:
    """A link of the EHR as an absolute URL: absolute ones untouched, relative ones against the FHIR base.

    What cannot stand in a request line (blanks, non-ASCII) is percent-encoded; everything else keeps its bytes, but for an origin
    that has `moved` and a port that is written twice.
    """
    return _joined(base_url.rstrip("/") + "/", link, moved)


def redirect_target(location: str, url: str, moved: Mapping[str, str] = NOT_MOVED) -> str:
    """Where a Location header of `url` leads; raises UnsafeLinkError for one that leaves https."""
    target = _joined(url, location, moved)
    if origin(target).startswith("http:") and not origin(url).startswith("http:"):
        raise UnsafeLinkError(
            f"a redirect leads from https to plain http, {origin(target)}; it was not followed; {elsewhere(target, url)}"
        )
    return target


def _joined(start: str, link: str, moved: Mapping[str, str]) -> str:
    link = link.strip()
    joined: str | None = link
    if not _SCHEME.match(link):
        try:
            joined = urljoin(start, link)
        except ValueError:
            joined = None
    if joined is None or _CONTROL.search(joined):  # outside `except`: urllib quotes the link
        raise UnsafeLinkError(f"a link is not a URL; {NOT_FOLLOWED}")
    if joined.count(":") > 2:  # noqa: PLR2004 - of the scheme, of the port
        joined = _PORT_TWICE.sub(r"\1", joined)
    return _ILLEGAL.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), _moved(joined, moved))


def _moved(link: str, moved: Mapping[str, str]) -> str:
    found = _AUTHORITY.match(link) if moved else None
    if found is None:
        return link
    link_origin = written_origin(link)
    for written, reached in moved.items():
        if link_origin is not None and link_origin == (written_origin(written) or written.lower()):
            return reached.rstrip("/") + link[found.end() :]
    return link


def safe_url(link: str, base_url: str, moved: Mapping[str, str] = NOT_MOVED, *, page: str | None = None) -> str:
    """The URL to ask for `link`: resolved, and never weaker than the base. A relative one is resolved against `page`, if given.

    Behind a proxy, servers write `http:` links although they are reached by https (vendor-facts 7): on the base's own
    host those are upgraded; anywhere else a plain http link under an https base raises UnsafeLinkError.
    """
    url = resolve(link, base_url, moved) if page is None else _joined(page, link, moved)
    try:
        link_origin = origin(url)
    except UnsafeLinkError:
        if _CONTROL.search(url) or written_origin(url) is None:
            raise
        raise UnsafeLinkError(
            f"a link has no valid host and port; it was not followed; {elsewhere(url, base_url)}"
        ) from None
    if not link_origin.startswith("http:") or origin(base_url).startswith("http:"):
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
    raise UnsafeLinkError(
        f"a link leads from https to plain http, {origin(url)}; it was not followed; {elsewhere(url, base_url)}"
    )
