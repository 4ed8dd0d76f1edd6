"""The requests that a mock EHR received: one entry each, with its purpose in a client's terms. Tests judge clients by it."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mocks.faults import Purpose

_KEPT_HEADERS = (
    "accept",
    "accept-encoding",
    "content-type",
    "prefer",
    "user-agent",
    "epic-client-id",
    "host",
    "cookie",
    "range",
)
_KEPT_ENTRIES = 200_000


@dataclass(slots=True)
class LogEntry:
    """One request. `target` is path and query exactly as they came; times are monotonic seconds."""

    method: str
    target: str
    template: str
    purpose: Purpose
    resource_type: str | None
    had_authorization: bool
    token: str | None
    headers: Mapping[str, str]
    at: float
    ended_at: float | None = None
    status: int | None = None  # None: no answer was started
    sent_bytes: int = 0
    fault: bool = False
    note: str = ""


class RequestLog:
    """Entries in the order of arrival (the newest 200,000), and counters over all requests."""

    def __init__(self) -> None:
        self._entries: deque[LogEntry] = deque(maxlen=_KEPT_ENTRIES)
        self.total = 0
        self.now_running = 0
        self.max_concurrency = 0
        self.running_by_purpose: Counter[str] = Counter()
        self.max_by_purpose: Counter[str] = Counter()

    def begin(self, entry: LogEntry) -> None:
        """Note that a request has begun."""
        self._entries.append(entry)
        self.total += 1
        self.now_running += 1
        self.max_concurrency = max(self.max_concurrency, self.now_running)
        self.running_by_purpose[entry.purpose] += 1
        running = self.running_by_purpose[entry.purpose]
        self.max_by_purpose[entry.purpose] = max(self.max_by_purpose[entry.purpose], running)

    def end(self, entry: LogEntry, now: float) -> None:
        """Note that a request has ended."""
        entry.ended_at = now
        self.now_running -= 1
        self.running_by_purpose[entry.purpose] -= 1

    def __iter__(self) -> Iterator[LogEntry]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, purpose: Purpose, resource_type: str | None = None) -> list[LogEntry]:
        """Return the entries of one purpose (and type)."""
        return [e for e in self if e.purpose == purpose and resource_type in (None, e.resource_type)]

    def clear(self) -> None:
        """Clear the entries and the maxima; running requests stay counted."""
        self._entries.clear()
        self.total = 0
        self.max_concurrency = 0
        self.max_by_purpose.clear()


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers worth keeping (never Authorization)."""
    return {name: headers[name] for name in _KEPT_HEADERS if name in headers}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The paths of a mock's endpoints: absolute, without a trailing slash. Job and file paths contain `{job}` and `{file}`."""

    base: str
    token: str
    status: str
    file: str

    def classifier(self, store_path: str) -> Callable[[str, str], tuple[Purpose, str | None, str]]:
        """Make the function (method, path) -> (purpose, resource type, template without ids)."""

        def pattern(template: str) -> re.Pattern[str]:
            return re.compile("^" + re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template.partition("?")[0])) + "$")

        status, file = pattern(self.status), pattern(self.file)
        base, token, cut = self.base, self.token, len(self.base)

        def classify(method: str, path: str) -> tuple[Purpose, str | None, str]:
            if path == token:
                return "token", None, "token"
            if path.startswith(store_path):
                return "object", None, "object"
            if status.match(path):
                return ("delete" if method == "DELETE" else "status"), None, "job"
            if file.match(path):
                return "file", None, "file"
            if base and path == base:  # pages at the base
                return "search", None, "/"
            if not path.startswith(base + "/"):
                return "other", None, "other"
            parts = path[cut + 1 :].split("/")
            if parts[-1] in ("metadata", "smart-configuration"):
                return "discovery", None, parts[-1]
            if parts[-1] == "$export":
                level = {1: "/$export", 2: f"/{parts[0]}/$export"}.get(len(parts), f"/{parts[0]}/{{id}}/$export")
                return "kickoff", parts[0] if len(parts) > 1 else None, level
            if len(parts) == 1 or parts[1:] == ["_search"]:
                return "search", parts[0], f"/{parts[0]}"
            return "read", parts[0], f"/{parts[0]}/{{id}}"

        return classify
