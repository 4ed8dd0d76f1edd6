"""The chain of a published dataset, as it stands at its destination: the root page, the stub, and a page for each increment.

Here a page is added, a chain begun and an old one closed; each step is one file that is replaced whole, so that a reader sees the
dataset before it or after it. Files are named by their content and never change. `manifest_page` knows the documents, `publish`
what is written into them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from exports.delivery.destination import Destination, read_small
from exports.delivery.place_name import shown
from exports.errors import DatasetError, DestinationError
from exports.publishing.manifest_page import CLOSED, PENDING, FileEntry, Moment, Page, read_page, request_of

ROOT = "manifest.json"
JOURNAL = ".publishing.json"
_PAGE = re.compile(r"page-[0-9]+-[0-9a-f]{16}\.json")
_DATA = re.compile(r"[A-Za-z][A-Za-z0-9]*-([0-9a-f]{32})\.ndjson(\.age)?")


@dataclass(frozen=True)
class Chain:
    """The current state of a dataset.

    `pages` are the pages after the root, by name; `broken` says why it cannot be continued.
    """

    root: Page
    pages: tuple[tuple[str, Page], ...]
    broken: str | None = None

    @property
    def moment(self) -> Moment | None:
        """What the dataset leads to."""
        return (self.pages[-1][1] if self.pages else self.root).moment

    @property
    def names(self) -> frozenset[str]:
        """The names of its pages and files."""
        pages = [self.root, *[page for _, page in self.pages]]
        files = [entry.url for page in pages for entry in (*page.output, *page.deleted, *page.outcome)]
        return frozenset({ROOT, *[name for name, _ in self.pages], *map(name_in, files)})


def no_manifest(root: str) -> str:
    """Say that nothing is published there, and what to name."""
    return f"there is no manifest at {shown(root)}; name the folder of a published dataset, or the URL of its manifest"


def name_in(url: str) -> str:
    """Return the name of a file of ours: the last part of its URL."""
    return url.partition("?")[0].rpartition("/")[2]


def data_name(subject: str, sha256: str) -> str:
    """Return the name of a data file: its type, or `deleted`, and its content's checksum."""
    return f"{subject}-{sha256[:32]}.ndjson"


def checksum_in(name: str) -> str | None:
    """Return the checksum that a data file's name states; None: it is not named by chartferry."""
    found = _DATA.fullmatch(name)
    return found[1] if found else None


def read_chain(destination: Destination) -> Chain | None:
    """Read the existing dataset; None if there is none yet.

    Raises:
        DatasetError: there is a manifest, but not of a dataset that chartferry keeps.
        DestinationError: the place cannot be read.
    """
    content = read_small(destination, ROOT)
    if content is None:
        return None
    try:
        root = read_page(content, ROOT)
    except DatasetError as error:
        raise DatasetError(
            f"{destination} has a manifest of another kind: {error}. Publish into a folder of its own"
        ) from None
    if request_of(root) is None or root.moment is None:
        raise DatasetError(f"{destination} has a dataset that is not chartferry's. Publish into a folder of its own")
    pages: list[tuple[str, Page]] = []
    page = root
    while page.next not in {PENDING, CLOSED}:
        name = name_in(page.next or "")
        if not _PAGE.fullmatch(name) or name in dict(pages):
            return Chain(root, tuple(pages), f"its chain has no page of ours after {len(pages)} pages")
        try:
            content = read_small(destination, name)
            page = read_page(content or b"", name)
        except DatasetError as error:
            return Chain(root, tuple(pages), f"its chain is broken: {error}")
        if page.moment is None:
            return Chain(root, tuple(pages), f"its chain is broken: {name} does not say up to which run it goes")
        pages.append((name, page))
    chain = Chain(root, tuple(pages))
    if page.next == CLOSED:
        return replace(chain, broken="its chain is closed")
    missing = chain.names - destination.names()
    return replace(chain, broken=f"{len(missing)} of its files are missing") if missing else chain


@dataclass(frozen=True)
class Links:
    """How pages and files are referred to: relative to each other, or below a base URL."""

    base_url: str | None = None

    def to(self, name: str) -> str:
        """Return the URL of a file of the dataset."""
        return name if self.base_url is None else f"{self.base_url.rstrip('/')}/{name}"


def add_increment(destination: Destination, chain: Chain, page: Page, moment: Moment, links: Links) -> None:
    """Add a page to the chain. It counts from the moment at which the page before it links to it."""
    following = replace(page, next=PENDING)
    name = _page_name(following, moment)
    last_name, last = chain.pages[-1]
    destination.put(name, following.content())
    destination.put(last_name, replace(last, next=links.to(name)).content())
    _close_others(destination, {name, *[one for one, _ in chain.pages]})


def begin_chain(
    destination: Destination, former: Chain | None, page: Page, moment: Moment, links: Links, *, keep_files: bool
) -> None:
    """Put a new snapshot in the place of the dataset.

    What followers of the former one still read stays until the next time: its pages, and with `keep_files` its files. Else these
    go before the dataset says that it is done: one that broke off in between has files missing, and is started over.
    """
    stub = Page(page.members, next=PENDING)
    name = _page_name(stub, moment)
    root = replace(page, next=links.to(name))
    kept = Chain(root, ((name, stub),)).names
    if not keep_files:
        _remove(destination, {one for one in destination.names() - kept if _DATA.fullmatch(one)})
    destination.put(name, stub.content())
    destination.put(ROOT, root.content())
    _close_others(destination, {name})
    kept |= frozenset() if former is None else former.names
    _remove(destination, {one for one in destination.names() - kept if _PAGE.fullmatch(one) or _DATA.fullmatch(one)})


def _remove(destination: Destination, names: Iterable[str]) -> None:
    for name in sorted(names):
        destination.remove(name)


def _page_name(page: Page, moment: Moment) -> str:
    return f"page-{moment.run}-{hashlib.sha256(page.content()).hexdigest()[:16]}.json"


def _close_others(destination: Destination, own: set[str]) -> None:
    """Close the chains that no longer belong to the dataset; a killed export may have left one open."""
    for name in sorted(destination.names() - own):
        if not _PAGE.fullmatch(name):
            continue
        try:
            page = read_page(read_small(destination, name) or b"", name)
        except DatasetError:  # nobody can follow it
            continue
        if page.next == PENDING:
            destination.put(name, replace(page, next=CLOSED).content())


class Journal:
    """The files of one snapshot or increment that are at the destination already, so that a rerun need not write them again."""

    def __init__(self, destination: Destination, purpose: dict[str, Any]) -> None:
        """`purpose` names the work: what an earlier attempt at other work has written is not taken."""
        self._destination = destination
        self._purpose = purpose
        there = destination.names()
        written = self._read()
        self._files = {key: one for key, one in written.items() if one is None or name_in(one.url) in there}

    def _read(self) -> dict[str, FileEntry | None]:
        try:
            document = json.loads(read_small(self._destination, JOURNAL) or b"{}")
            if document.get("purpose") != self._purpose:
                return {}
            return {
                key: one and FileEntry(one["url"], one["count"], one["type"]) for key, one in document["files"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    def has(self, subject: str) -> bool:
        """Whether a type, or `deleted`, is done."""
        return subject in self._files

    def entry(self, subject: str) -> FileEntry | None:
        """Return its file; None: it has no rows."""
        return self._files[subject]

    def note(self, subject: str, entry: FileEntry | None) -> None:
        """Note that a subject is done."""
        self._files[subject] = entry
        files = {key: None if one is None else asdict(one) for key, one in self._files.items()}
        content = json.dumps({"purpose": self._purpose, "files": files}).encode()
        self._destination.put(JOURNAL, content)

    def end(self) -> None:
        """Forget it: the work is done."""
        self._destination.remove(JOURNAL)


def check_written(destination: Destination, entries: Sequence[FileEntry]) -> None:
    """Read back what was written, before anything refers to it.

    Raises:
        DestinationError: a file does not read back as it was written.
    """
    for entry in entries:
        name = name_in(entry.url)
        digest = hashlib.sha256()
        try:
            for chunk in destination.chunks(name):
                digest.update(chunk)
        except FileNotFoundError:
            raise DestinationError(f"{destination}: {name} was written, but is not there") from None
        if digest.hexdigest()[:32] != checksum_in(name):
            destination.remove(name)
            raise DestinationError(
                f"{destination}: {name} reads back differently from what was written. Run the same command again"
            )
