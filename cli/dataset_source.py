"""Where a published dataset is read from: a folder, another destination, or a web server."""

from __future__ import annotations

import gzip
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote

from config.urls import is_served
from exports.delivery.place_name import destination_of, shown
from exports.errors import DatasetError, PlanError

_MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60


def dataset_at(where: str) -> tuple[str, Callable[[str], Iterator[bytes]]]:
    """Return what its root is called, and what reads a file by its URL. `where`: its folder, or its manifest in it.

    Raises:
        PlanError, DestinationError: no destination has such a name, or it cannot be reached.
    """
    if is_served(where):
        return where, _over_http
    if where.lower().startswith(("http://", "https://")):
        raise PlanError(
            "the dataset's URL is not a complete one: check its host and its port, and write a blank as %20"
        )
    folder, slash, last = where.rpartition("/")
    destination = destination_of((folder or slash or ".") if last == _MANIFEST else where)
    # wherever its pages say that it will be served, its files lie beside each other
    return f"{str(destination).rstrip('/')}/{_MANIFEST}", lambda url: destination.chunks(
        Path(unquote(url.rpartition("/")[2])).name
    )


def _over_http(url: str) -> Iterator[bytes]:
    """Read a file from a server; gzip is understood where the server says so."""
    if not is_served(url):
        raise DatasetError("a page refers to something else than a complete http or https URL")
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - checked above
            coded = answer.headers.get("Content-Encoding", "").lower() == "gzip"
            stream = gzip.GzipFile(fileobj=answer) if coded else answer
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except urllib.error.HTTPError as error:
        with error:
            if error.code in {404, 410}:
                raise FileNotFoundError from None
            raise DatasetError(f"the server answers {error.code} for {shown(url)}") from None
    except OSError as error:
        reason = getattr(error, "reason", error)  # urllib keeps the system's error in it
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
        raise DatasetError(f"{shown(url)} cannot be read: {why}; check the URL, and that its server is up") from None
    except (EOFError, zlib.error, HTTPException) as error:  # whose texts may quote what was sent
        raise DatasetError(
            f"{shown(url)} cannot be read ({type(error).__name__}): check the URL, and what the server answers"
        ) from None
