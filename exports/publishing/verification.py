"""Verifies any published dataset, as a follower would read it: pages, links, counts, checksums, every line.

The caller provides the bytes: `read` gives a file by its URL.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from config.how_many import how_many
from exports.delivery.place_name import shown
from exports.errors import DatasetError
from exports.publishing.chain import checksum_in, name_in, no_manifest
from exports.publishing.manifest_page import CLOSED, PENDING, FileEntry, Page, followed, read_page

# gives a file in chunks, decoded where it was sent with a content coding; FileNotFoundError if there is none
Read = Callable[[str], Iterator[bytes]]
MOST_PROBLEMS = 100


@dataclass
class Verified:
    """What was found. `problems` is empty for a dataset that can be followed; `written` and `deleted` count lines."""

    pages: int = 0
    files: int = 0
    written: int = 0
    deleted: int = 0
    transaction_time: str | None = None
    ends: str | None = None  # how the chain ends: "#pending", "#closed"; None: it has no increments, or is broken
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        """Add a problem; after a hundred there is no point in more."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


def verify(root: str, read: Read) -> Verified:
    """Follow a dataset from its root page to its end, and say what is wrong with it.

    Raises:
        DatasetError: there is no manifest, or it is none of Bulk Publish.
    """
    found = Verified()
    url, seen = root, set[str]()
    try:
        first = page = read_page(b"".join(read(url)), name_in(url) or shown(url))
    except FileNotFoundError:
        raise DatasetError(no_manifest(root)) from None
    found.transaction_time = str(first.members["transactionTime"])
    if first.next == PENDING:
        found.note(f"{name_in(root)} is pending itself: a chain starts with its own page")
    while True:
        seen.add(url)
        found.pages += 1
        _verify_page(url, page, first, read, found)
        following = page.next
        if following in {None, PENDING, CLOSED}:
            found.ends = following
            return found
        try:
            url = followed(url, following)
        except DatasetError as error:
            found.note(f"{name_in(url)}: {error}")
            return found
        if url in seen:
            found.note(f"{name_in(url)}: the pages form a loop")
            return found
        try:
            page = read_page(b"".join(read(url)), name_in(url))
        except FileNotFoundError:
            found.note(f"{name_in(url)}: there is no such page")
            return found
        except DatasetError as error:
            found.note(str(error))
            return found


def _verify_page(url: str, page: Page, first: Page, read: Read, found: Verified) -> None:
    differing = sorted(
        key for key in {*page.members, *first.members} if page.members.get(key) != first.members.get(key)
    )
    if differing:
        found.note(f"{name_in(url)} differs from the first page in {', '.join(differing)}")
    for entry in page.output:
        found.written += _verify_file(url, entry, read, found, partial(_resource, kind=entry.type))
    for entry in page.deleted:
        found.deleted += _verify_file(url, entry, read, found, _deletion)
    for entry in page.outcome:
        _verify_file(url, entry, read, found, partial(_resource, kind="OperationOutcome"))


def _verify_file(
    page: str, entry: FileEntry, read: Read, found: Verified, problem_of: Callable[[Any], str | None]
) -> int:
    """Read a file; return its lines."""
    name = name_in(entry.url)
    found.files += 1
    digest = hashlib.sha256()
    lines = 0
    try:
        for line in _lines(read(followed(page, entry.url)), digest.update):
            lines += 1
            problem = _problem(line, problem_of)
            if problem is not None:
                found.note(f"{name}, line {lines}: {problem}")
    except FileNotFoundError:
        found.note(f"{name}: there is no such file")
        return 0
    except DatasetError as error:
        found.note(f"{name}: {error}")
        return lines
    if entry.count is not None and entry.count != lines:
        found.note(f"{name} has {how_many(lines, 'line')}; its page says {entry.count}")
    if checksum_in(name) not in {None, digest.hexdigest()[:32]}:
        found.note(f"the content of {name} differs from what its name states")
    return lines


def _lines(chunks: Iterator[bytes], passing: Callable[[bytes], object]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        passing(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())
    if rest.strip():
        yield rest


def _problem(line: bytes, problem_of: Callable[[Any], str | None]) -> str | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON"
    return problem_of(document) if isinstance(document, dict) else "not a JSON object"


def _resource(document: dict[str, Any], kind: str | None) -> str | None:
    if document.get("resourceType") != kind:
        return f"not a {kind}"
    has_id = isinstance(document.get("id"), str) or kind == "OperationOutcome"
    return None if has_id else "a resource without an id"


def _deletion(document: dict[str, Any]) -> str | None:
    if document.get("resourceType") != "Bundle" or document.get("type") != "transaction":
        return "not a transaction Bundle"
    entries = document.get("entry")
    for entry in entries if isinstance(entries, list) else [None]:
        request = entry.get("request") if isinstance(entry, dict) else None
        if not isinstance(request, dict) or request.get("method") != "DELETE":
            return "an entry that is not a DELETE"
        kind, slash, id_ = str(request.get("url")).partition("/")
        if not (kind and slash and id_) or "/" in id_:
            return "an entry whose url is not Type/id"
    return None
