"""Finds the destination that a name means: a folder on this machine, or a URL; and says how messages name a URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from exports.delivery.destination import REMOTE_SCHEMES, Destination, LocalFolder
from exports.errors import PlanError

_THIS_MACHINE = frozenset({"", "localhost"})  # as RFC 8089 writes it in file:// URLs


def destination_of(place: str) -> Destination:
    """Return the destination that a folder's name or a URL means.

    Raises:
        PlanError: no destination has such URLs, or what reaches them is not installed.
        DestinationError: the place cannot be reached.
    """
    if place == "-":
        raise PlanError(
            "- would be stdin or stdout, which is one file; name a folder, or a URL such as s3://bucket/charts"
        )
    if "://" not in place:
        scheme = place.partition(":/")[0]
        if scheme in REMOTE_SCHEMES and scheme != place:
            raise PlanError(f"{place} is neither a folder nor a URL; a URL starts with {scheme}://")
        return LocalFolder(Path(place))
    try:
        parts = urlsplit(place)
    except ValueError:
        raise PlanError("the destination is not a URL; give a folder, or a URL such as s3://bucket/charts") from None
    if parts.scheme != "file":
        from exports.delivery.remote_folder import RemoteFolder  # fsspec is imported only for what is elsewhere

        return RemoteFolder(place)
    if parts.netloc not in _THIS_MACHINE or not parts.path:
        raise PlanError("a file:// URL names a folder on this machine, as file:///srv/charts does")
    return LocalFolder(Path(unquote(parts.path)))


def shown(url: str) -> str:
    """Return a URL as messages may have it: without login, query and fragment, which may be secrets. A path stays as it is."""
    scheme, is_url, rest = url.partition("://")
    host, slash, path = rest.partition("?")[0].partition("#")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" if is_url else url
