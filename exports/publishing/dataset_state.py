"""What any published dataset holds at the moment: its pages read from the root to the end, without its files.

`verification` reads the files too. The caller provides the bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from config.urls import parts_of
from exports.delivery.place_name import shown
from exports.errors import DatasetError
from exports.publishing.chain import ROOT, name_in, no_manifest
from exports.publishing.manifest_page import CLOSED, PENDING, Page, connection_of, followed, read_page

# gives a file in chunks; FileNotFoundError if there is none
Read = Callable[[str], Iterator[bytes]]


@dataclass(frozen=True)
class DatasetState:
    """What the pages say. `checksum` changes when they do; counts are the pages' own."""

    checksum: str
    pages: int
    files: int
    resources: int
    deletions: int
    transaction_time: str
    connection: str | None  # of chartferry's datasets: whose charts they are
    manifest_url: str | None  # where its own links say that it is served; None: they are relative


def read_state(root: str, read: Read) -> DatasetState:
    """Read a dataset's pages.

    Raises:
        DatasetError: a page is missing, is none of Bulk Publish, or leads in a circle; or the chain is closed.
    """
    url, digest, pages = root, hashlib.sha256(), list[Page]()
    seen = set[str]()
    while True:
        if url in seen:
            raise DatasetError(f"{name_in(url)}: the pages form a loop")
        seen.add(url)
        try:
            content = b"".join(read(url))
        except FileNotFoundError:
            raise DatasetError(f"there is no page {shown(url)}" if pages else no_manifest(url)) from None
        page = read_page(content, name_in(url) or shown(url))
        digest.update(len(content).to_bytes(8, "big") + content)
        pages.append(page)
        if page.next == CLOSED:
            raise DatasetError(
                f"the dataset's chain is closed at {name_in(url)}: a new snapshot is about to replace it"
            )
        if page.next in {None, PENDING}:
            break
        url = followed(url, page.next)
    output = [entry for page in pages for entry in page.output]
    deleted = [entry for page in pages for entry in page.deleted]
    first = pages[0]
    return DatasetState(
        checksum=digest.hexdigest(),
        pages=len(pages),
        files=len(output) + len(deleted),
        resources=sum(entry.count or 0 for entry in output),
        deletions=sum(entry.count or 0 for entry in deleted),
        transaction_time=str(first.members["transactionTime"]),
        connection=connection_of(first),
        manifest_url=_served_at([entry.url for entry in output] + [first.next or ""]),
    )


def _served_at(links: list[str]) -> str | None:
    """Where the manifest is served, by the links beside it."""
    absolute = next((link for link in links if parts_of(link).scheme in {"http", "https"}), None)
    return None if absolute is None else followed(absolute, ROOT)
