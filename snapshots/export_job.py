"""Bulk export jobs in the form that survives a crash. Shapes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """A bulk export job in the form that survives a crash: stored before the kick-off is sent, and again with its answer."""

    status_url: str | None = None  # None: nobody knows one (`is_unanswered`), or the answer was the manifest itself
    kicked_off_at: datetime
    request: str  # the kick-off as template, for the report
    transaction_time: str | None = None
    manifest_complete: bool = False  # True once every file of every manifest page is a unit in the ledger
    deleted: bool = False  # the server has no such job, any more or ever
    # what its files prove (JSON): `bulk.kick_off.ExportParameters`
    asked: Mapping[str, Any] = field(default_factory=dict)
    elements: bool = False  # requested with `_elements`: its files contain partial resources
    progress: str | None = None  # the server's last X-Progress
    next_poll_at: datetime | None = None
    expires_at: datetime | None = None  # when the manifest's links expire
    pages: Sequence[str] = ()  # URLs of the manifest's pages whose files are units; "": the answer to the kick-off

    @property
    def is_unanswered(self) -> bool:
        """Whether the kick-off was sent, or is about to be, and no answer to it is known."""
        return self.status_url is None and not self.manifest_complete


@dataclass(frozen=True, kw_only=True)
class EarlierJob:
    """A job that an earlier, closed run left at the server."""

    run: int
    job: BulkJob
    stored: bool  # all its files are in the store: the server may delete it
