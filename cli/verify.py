"""`chartferry verify`: checks a published dataset, in a folder or on a server, as its followers would read it."""

from __future__ import annotations

import gzip
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from cli.exit_codes import ExitCode
from cli.invocation import invocation_of
from cli.render import emit_json, number, say, tell
from exports.delivery.place_name import destination_of
from exports.errors import DatasetError
from exports.publishing.verification import verify as verify_dataset

EXAMPLES = ("chartferry verify dataset", "chartferry verify https://data.example.org/charts/manifest.json")
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60


def verify(
    context: typer.Context,
    where: Annotated[str, typer.Argument(metavar="DIR|URL", help="A folder, or the URL of a manifest.")],
) -> int:
    """Follow a Bulk Publish dataset from its root to its end: links, counts, checksums, every line of every file.

    It may be in a folder, at another destination (s3://…), or on a web server.

    Exit codes: 0 it can be followed, 3 something in it is wrong, 5 it cannot be read.
    """
    if urlsplit(where).scheme in {"http", "https"}:
        found = verify_dataset(where, _over_http)
    else:
        there = destination_of(where)
        # wherever its pages say that it will be served, its files lie beside each other
        found = verify_dataset("manifest.json", lambda url: there.chunks(Path(unquote(url.rpartition("/")[2])).name))
    if invocation_of(context).json:
        emit_json({"status": "partial" if found.problems else "complete", **asdict(found)})
    else:
        for problem in found.problems:
            say(problem)
        ending = {"#pending": "open for the next increment", "#closed": "closed"}.get(
            found.ends or "", "without increments"
        )
        tell(
            f"{number(found.pages)} pages, {number(found.files)} files, {number(found.written)} resources, "
            f"{number(found.deleted)} deletions; as of {found.transaction_time}, {ending}"
        )
        tell(f"{len(found.problems)} problems" if found.problems else "the dataset can be followed")
    return ExitCode.PARTIAL if found.problems else ExitCode.COMPLETE


def _over_http(url: str) -> Iterator[bytes]:
    """Read a file from a server; gzip is understood where the server says so."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise DatasetError("a page refers to a URL that is neither http nor https")
    asked = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - checked above
            coded = answer.headers.get("Content-Encoding", "").lower() == "gzip"
            stream = gzip.GzipFile(fileobj=answer) if coded else answer
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except urllib.error.HTTPError as error:
        with error:
            if error.code in {404, 410}:
                raise FileNotFoundError from None
            raise DatasetError(f"the server answers {error.code} for {url.rpartition('/')[2]}") from None
    except (OSError, EOFError) as error:
        raise DatasetError(f"{url.rpartition('/')[2]} cannot be read: {getattr(error, 'reason', error)}") from None
