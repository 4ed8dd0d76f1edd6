"""A consumer of Bulk Publish datasets, written from the guide (Bulk Data Access STU 4) without using our code.

It keeps a copy equal to the dataset: pages by `next`, of each page all of `output`, then all of `deleted`; it remembers its page,
continues there, and starts over at the root when the chain is closed. A copy changes only after all pages are read.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urljoin

BULK_PUBLISH = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkPublishManifest"
MAY_DIFFER = {"output", "deleted", "outcome", "link"}
Key = tuple[str, str]


class Follower:
    """One copy; `root` is the manifest's URL."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._at: str | None = None  # the page that was last
        self._etag: str | None = None
        self._members: dict[str, Any] = {}
        self.copy: dict[Key, dict[str, Any]] = {}
        self.begun = 0  # how often it began at the root

    def poll(self) -> None:
        """Become equal to what is published now."""
        if self._at is not None:
            page = self._page(self._at)
            if page is None:
                return
            following = self._next(page)
            if following == "#pending":
                return
            if following != "#closed":
                self._go_through(urljoin(self._at, following), dict(self.copy))
                return
        self.begun += 1
        self._members = {}
        self._go_through(self._root, {})

    def _go_through(self, url: str, copy: dict[Key, dict[str, Any]]) -> None:
        seen: set[str] = set()
        while True:
            assert url not in seen, "pages in a circle"
            seen.add(url)
            self._etag = None
            page = self._page(url)
            assert page is not None
            self._apply(url, page, copy)
            following = self._next(page)
            if following == "#pending":
                assert url != self._root, "the root must not be pending"
                self._at, self.copy = url, copy
                return
            if following == "#closed":
                self._at = None
                self.poll()
                return
            url = urljoin(url, following)

    def _page(self, url: str) -> dict[str, Any] | None:
        """A page; None if it is as it was."""
        request = urllib.request.Request(url, headers={"If-None-Match": self._etag} if self._etag else {})
        try:
            with urllib.request.urlopen(request) as answer:
                self._etag = answer.headers["ETag"]
                page: dict[str, Any] = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 304:
                    return None
                raise
        assert page["manifestType"] == BULK_PUBLISH
        assert page["requiresAccessToken"] is False
        members = {key: value for key, value in page.items() if key not in MAY_DIFFER}
        assert self._members in ({}, members), "pages of one dataset disagree"
        self._members = members
        return page

    @staticmethod
    def _next(page: dict[str, Any]) -> str:
        (link,) = page["link"]
        assert link["relation"] == "next"
        return str(link["url"])

    def _apply(self, url: str, page: dict[str, Any], copy: dict[Key, dict[str, Any]]) -> None:
        for entry in page["output"]:
            lines = self._lines(url, entry)
            for resource in lines:
                assert resource["resourceType"] == entry["type"]
                copy[resource["resourceType"], resource["id"]] = resource
        for entry in page["deleted"]:
            for bundle in self._lines(url, entry):
                assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "transaction")
                for one in bundle["entry"]:
                    assert one["request"]["method"] == "DELETE"
                    kind, _, id_ = one["request"]["url"].partition("/")
                    copy.pop((kind, id_), None)

    @staticmethod
    def _lines(page: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
        with urllib.request.urlopen(urljoin(page, entry["url"])) as answer:
            lines = [json.loads(line) for line in answer.read().splitlines()]
        assert len(lines) == entry["count"]
        return lines
