"""The pages of a Bulk Publish manifest (Bulk Data Access STU 4): built, read and checked as documents. Pure.

A dataset is a root page (a snapshot), a stub, and a page for each increment; the last one links to `#pending`, or for good to
`#closed`. All pages agree in every member but output, deleted, outcome and link, so chartferry's own facts are in two
extensions: about the dataset in each page, about an increment in each of its entries. `chain` keeps the pages, `publish` makes
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urljoin

from exports.delivery.manifest import BULK_PUBLISH, instant
from exports.errors import DatasetError

PENDING, CLOSED = "#pending", "#closed"
_EXTENSIONS = "https://chartferry.example/fhir/StructureDefinition/"
DATASET, INCREMENT = _EXTENSIONS + "published-dataset", _EXTENSIONS + "published-increment"
_OF_A_PAGE = ("output", "deleted", "outcome", "link")  # what may differ from page to page


@dataclass(frozen=True)
class Moment:
    """What a snapshot or an increment leads to: the newest run in it, and when that began. Together they name it in any store."""

    run: int
    as_of: datetime

    def extension(self, url: str, *more: dict[str, Any]) -> dict[str, Any]:
        """Return it as a FHIR extension."""
        own = [{"url": "run", "valuePositiveInt": self.run}, {"url": "as-of", "valueInstant": instant(self.as_of)}]
        return {"url": url, "extension": [*own, *more]}


@dataclass(frozen=True)
class FileEntry:
    """A file of a page. `type` is None for deletions; `url` is relative to the page, or absolute."""

    url: str
    count: int | None
    type: str | None = None
    extension: tuple[dict[str, Any], ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        entry: dict[str, Any] = {} if self.type is None else {"type": self.type}
        entry["url"] = self.url
        if self.count is not None:
            entry["count"] = self.count
        return {**entry, "extension": list(self.extension)} if self.extension else entry


@dataclass(frozen=True)
class Page:
    """One page; `next` is a URL, `#pending`, `#closed`, or None: the dataset has no increments, and no further page."""

    members: Mapping[str, Any]  # that all pages of a dataset share
    output: tuple[FileEntry, ...] = ()
    deleted: tuple[FileEntry, ...] = ()
    outcome: tuple[FileEntry, ...] = ()
    next: str | None = None
    moment: Moment | None = field(default=None, compare=False)  # chartferry's own: what it leads to

    def content(self) -> bytes:
        """Return the page's bytes; equal pages give equal bytes."""
        document = {
            **self.members,
            "output": [entry.document() for entry in self.output],
            "deleted": [entry.document() for entry in self.deleted],
            "outcome": [entry.document() for entry in self.outcome],
            "link": [] if self.next is None else [{"relation": "next", "url": self.next}],
        }
        return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def dataset_members(moment: Moment, *, version: str, connection: str, request: str, erasures: int) -> dict[str, Any]:
    """Return the members that the pages of a new dataset share.

    `request` names what is published, as a checksum; `erasures` is the number of patients who had been erased by then.
    """
    own = (
        {"url": "chartferry", "valueString": version},
        {"url": "connection", "valueString": connection},
        {"url": "request", "valueString": request},
        {"url": "erasures", "valueUnsignedInt": erasures},
    )
    return {
        "manifestType": BULK_PUBLISH,
        "transactionTime": instant(moment.as_of),
        "requiresAccessToken": False,
        "outputFormat": "application/fhir+ndjson",
        "extension": [moment.extension(DATASET, *own)],
    }


def followed(page: str, link: str) -> str:
    """Return the URL that a link of a page means; `page` is the page's own URL.

    Raises:
        DatasetError: it is no URL.
    """
    try:
        return urljoin(page, link)
    except ValueError:
        raise DatasetError("a page refers to something that is no URL") from None


def read_page(content: bytes, name: str) -> Page:
    """Read a page of anybody's dataset; `name` is for the message.

    Raises:
        DatasetError: it is no page of a Bulk Publish manifest; the message says what is wrong.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise DatasetError(f"{name} is not JSON, so it is no page of a published dataset") from None
    if not isinstance(document, dict):
        raise DatasetError(f"{name} is not a JSON object")
    if document.get("manifestType") != BULK_PUBLISH:
        raise DatasetError(f"{name} is not a Bulk Publish manifest: its manifestType is not {BULK_PUBLISH}")
    if _instant(document.get("transactionTime")) is None:
        raise DatasetError(f"{name}: transactionTime is not an instant")
    if not isinstance(document.get("requiresAccessToken"), bool):
        raise DatasetError(f"{name}: requiresAccessToken is neither true nor false")
    output, deleted, outcome = (_entries(document.get(key, []), f"{name}, {key}") for key in _OF_A_PAGE[:3])
    if any(entry.type is None for entry in output):
        raise DatasetError(f"{name}, output: an entry has no type")
    members = {key: value for key, value in document.items() if key not in _OF_A_PAGE}
    moments = [_moment([*entry.extension], INCREMENT) for entry in (*output, *deleted)]
    moment = next((one for one in moments if one is not None), None) or _moment(members.get("extension"), DATASET)
    return Page(members, output, deleted, outcome, _next(document.get("link", []), name), moment)


def request_of(page: Page) -> str | None:
    """Return the checksum of what chartferry publishes there; None: the dataset is not chartferry's."""
    value = _parts(page.members.get("extension"), DATASET).get("request")
    return value if isinstance(value, str) else None


def connection_of(page: Page) -> str | None:
    """Return the connection that chartferry publishes there; None: the dataset is not chartferry's."""
    value = _parts(page.members.get("extension"), DATASET).get("connection")
    return value if isinstance(value, str) else None


def erasures_of(page: Page) -> int:
    """Return how many patients had been erased when the dataset's snapshot was made; datasets that say nothing are older."""
    value = _parts(page.members.get("extension"), DATASET).get("erasures")
    return value if isinstance(value, int) else 0


def _entries(entries: Any, where: str) -> tuple[FileEntry, ...]:
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise DatasetError(f"{where} is not a list of objects")
    found = []
    for one in entries:
        url, count, kind, extension = (one.get(key) for key in ("url", "count", "type", "extension"))
        if not isinstance(url, str) or not url:
            raise DatasetError(f"{where}: an entry has no url")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
            raise DatasetError(f"{where}: a count is not a number of rows")
        if kind is not None and not isinstance(kind, str):
            raise DatasetError(f"{where}: a type is not a name")
        own = tuple(one for one in extension if isinstance(one, dict)) if isinstance(extension, list) else ()
        found.append(FileEntry(url, count, kind, own))
    return tuple(found)


def _next(links: Any, name: str) -> str | None:
    if not isinstance(links, list) or not all(isinstance(one, dict) for one in links):
        raise DatasetError(f"{name}, link is not a list of objects")
    following = [one.get("url") for one in links if one.get("relation") == "next"]
    if len(following) > 1 or not all(isinstance(url, str) and url for url in following):
        raise DatasetError(f"{name}, link: expected at most one next, with its url")
    return following[0] if following else None


def _moment(extensions: Any, url: str) -> Moment | None:
    values = _parts(extensions, url)
    run, as_of = values.get("run"), _instant(values.get("as-of"))
    return Moment(run, as_of) if isinstance(run, int) and as_of is not None else None


def _parts(extensions: Any, url: str) -> dict[str, Any]:
    """Return the parts of an extension by name, each with the one value that it has."""
    ours = [one for one in _objects(extensions) if one.get("url") == url]
    parts = [part for one in ours for part in _objects(one.get("extension"))]
    return {str(part.get("url")): value for part in parts for key, value in part.items() if key.startswith("value")}


def _objects(items: Any) -> Sequence[dict[str, Any]]:
    return [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []


_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def _instant(text: Any) -> datetime | None:
    if not isinstance(text, str) or not _INSTANT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
