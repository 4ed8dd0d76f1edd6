"""The shape of a manner: data and small functions that describe how one vendor's server differs. The manners are beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl

from starlette.responses import Response

from mocks.answers import FHIR_JSON, TIMEOUT_PAGE, Refused, empty_answer, html_answer, issue, json_answer, outcome
from mocks.dataset import Row
from mocks.mock_config import BulkLevel, MockConfig
from mocks.request_log import Layout


@dataclass(frozen=True)
class SearchQuery:
    """A search as it came: `raw` is the query string (or form body), `params` its decoded values."""

    resource_type: str
    raw: str
    params: Mapping[str, tuple[str, ...]]
    by_patient: bool  # the type's resources name a patient
    patient: str | None  # bare id
    patient_known: bool
    config: MockConfig

    def one(self, name: str) -> str | None:
        """Return the first value of a parameter, None if it is absent or empty."""
        return self.params.get(name, ("",))[0] or None


@dataclass(frozen=True)
class Kickoff:
    """The parameters of a kick-off: `types` from `_type` (None: not given), already split at commas."""

    level: BulkLevel
    params: Mapping[str, tuple[str, ...]]
    types: tuple[str, ...] | None
    lenient: bool


@dataclass(frozen=True)
class PageAt:
    """A page of a search: its position among all matches. `url` is the type's search URL without a query."""

    url: str
    query: SearchQuery
    start: int
    size: int
    total: int

    @property
    def more(self) -> bool:
        """Whether there are rows after this page."""
        return self.start + self.size < self.total

    def self_url(self, *drop: str) -> str:
        """Return the search as requested, percent-encoding unchanged, without the parameters in `drop`."""
        kept = [part for part in self.query.raw.split("&") if part and part.partition("=")[0] not in drop]
        return f"{self.url}?{'&'.join(kept)}" if kept else self.url


@dataclass(frozen=True)
class SmartFacts:
    """The facts from which a smart-configuration is written."""

    origin: str
    base_url: str
    token_url: str
    types: tuple[str, ...]


Links = list[tuple[str, str]]


def fhir_refusal(status: int, code: str, text: str, severity: str = "error") -> Response:
    """Answer with an OperationOutcome of one issue."""
    return json_answer(outcome(issue(severity, code, text)), status)


def plain_login_refusal(error: str, why: str) -> Response:
    """Answer a token request as RFC 6749 section 5.2 says."""
    status = 401 if error == "invalid_client" else 400
    return json_answer(
        {"error": error, "error_description": why}, status, {"Cache-Control": "no-store"}, "application/json"
    )


def start_of_page(query: SearchQuery, size: int) -> int:
    """Return the first row of the page whose number, from 1, the search names."""
    return ((whole_number(query, "page", 1) or 1) - 1) * size


def no_check(query: SearchQuery) -> None:
    """Refuse nothing."""


def no_kickoff_check(kickoff: Kickoff) -> None:
    """Refuse nothing."""


def all_found(query: SearchQuery, rows: list[Row]) -> list[Row]:
    """Return all matches."""
    return rows


def no_extra(issues_of: SearchQuery, shown: int, start: int) -> list[dict[str, Any]]:
    """Add no outcome entries."""
    return []


@dataclass(frozen=True, kw_only=True)
class Manner:
    """One vendor's manner. Defaults are a plain R4 server's."""

    vendor: str
    layout: Layout
    group_id: str = "mock-group-1"  # of all patients, if neither data nor configuration names one
    content_type: str = FHIR_JSON
    accept: Literal["json", "xml", "406"] = "json"  # what happens to a request that does not ask for JSON

    # -- login
    smart: Callable[[SmartFacts], dict[str, Any]]
    audience: str | None = None  # None: the token URL
    algs: tuple[str, ...] = ("RS384", "ES384")
    scopes: Literal["registered", "wildcards", "explicit", "literal"] = "wildcards"
    scope_versions: tuple[str, ...] = ("v1", "v2")
    token_life_s: int = 300
    jti_required: bool = True
    needs_launch: bool = False  # tokens are bound to the patient that `launch` names
    login_refusal: Callable[[str, str], Response] = plain_login_refusal  # (OAuth error, why)

    # -- refusals
    unauthorized: Callable[[], Response] = lambda: json_answer(
        outcome(issue("error", "login", "Unauthorized")), 401, {"WWW-Authenticate": "Bearer"}
    )
    forbidden: Callable[[str], Response] = lambda text: fhir_refusal(403, "forbidden", text)
    scope_refusal_text: str = "The token's scopes do not allow this."
    unknown_path: Callable[[], Response] = lambda: fhir_refusal(404, "not-found", "Unknown path")
    unknown_type: Callable[[], Response] = lambda: fhir_refusal(404, "not-supported", "Unknown resource type")
    not_found: Callable[[bool], Response] = lambda deleted: fhir_refusal(404, "not-found", "Resource is not known")
    merged: Callable[[str], Response] = lambda target: empty_answer(301, {"Location": target})
    session_expired: Callable[[], Response] = lambda: fhir_refusal(410, "processing", "The page has expired")
    poisoned: Callable[[], Response] = lambda: fhir_refusal(500, "required", "required element missing", "fatal")
    restricted: Callable[[str], Response] = lambda code: fhir_refusal(403, "forbidden", "Restricted")
    documents_exhausted: Callable[[], Response] = lambda: fhir_refusal(429, "throttled", "Try again tomorrow")
    throttled: Callable[[], Response] = lambda: fhir_refusal(429, "throttled", "Too Many Requests")
    polled_too_soon: Callable[[], Response] = lambda: json_answer(
        outcome(issue("error", "throttled", "The job is polled too often")), 429, {"Retry-After": "1"}
    )
    gateway_timeout: Callable[[], Response] = lambda: html_answer(TIMEOUT_PAGE, 504)

    # -- search
    searches: bool = True
    check: Callable[[SearchQuery], None] = no_check  # raises Refused
    count: Callable[[str], tuple[int, int | None]] = lambda kind: (20, None)  # default and greatest _count; 0: unpaged
    total: Literal["all", "page", "none"] = "all"
    counts: bool = True  # accepts `_summary=count`; False: ignores it, and answers with a page
    paging: Literal["offset", "session", "server"] = "offset"  # server: the pages are at the base, not at the type
    # first row of the requested page; raises Refused
    start_of: Callable[[SearchQuery, int], int] = lambda query, size: 0
    links: Callable[[PageAt], Links]
    entry_links: bool = False
    bundle_id: bool = False
    redacts: bool = False  # MockConfig.redact_every applies
    too_many_answers_413: bool = False  # above MockConfig.max_rows
    duplicate_across_pages: bool = False
    post_search: Literal["body", "both", "none"] = "both"  # which parameters of a POST count; none: not offered
    # which of the matches are returned; raises Refused
    found: Callable[[SearchQuery, list[Row]], list[Row]] = all_found
    extra_entries: Callable[[SearchQuery, int, int], list[dict[str, Any]]] = no_extra
    last_updated: frozenset[str] | None = frozenset()  # types whose search honours it; None: all
    dates: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (type, parameter) -> element of a date filter
    declares_last_updated: bool = True
    lists_everything: bool = False  # search without criteria, on every type

    # -- groups and bulk
    group_read: bool = False
    bulk_levels: tuple[BulkLevel, ...] = ("group",)
    bulk_types: frozenset[str] | None = None  # None: the level's whole compartment
    bulk_beyond_compartment: bool = False  # group and patient level also export Organization and the like
    patient_list_only: bool = False  # Patient/$export is a POST that names its patients
    check_kickoff: Callable[[Kickoff], None] = no_kickoff_check  # raises Refused
    bulk_only_if_named: frozenset[str] = frozenset()  # types exported only if `_type` names them
    drops_unknown_types: bool = False  # of `_type`, where others answer 400
    bulk_counts: bool = True
    bulk_types_by_scope: bool = False
    requires_token_flag: Any = True  # of the manifest
    files_in_store: bool = False  # the manifest names the object store's own links
    wraps_files: bool = False  # a file is a Binary resource unless the client asks for NDJSON
    deletes_finished: bool = True  # False: DELETE of a finished job is answered like an unknown one
    kickoff_window: bool = False  # one export per group and window
    one_job: Literal["client", "group"] | None = None  # a job in progress blocks the next kick-off
    file_redirect: bool = False  # files answer 307 to the object store
    kickoff_body: bool = False
    retry_after: bool = True  # status answers carry one
    progress: Callable[[int, int, int], str] = lambda polled, polls, patients: "in-progress"
    gone: Callable[[], Response] = lambda: fhir_refusal(404, "not-found", "Unknown job")
    file_of_another: Callable[[], Response] | None = None  # a file requested by another client; None: as `gone`

    # -- what it declares
    capability: Mapping[str, Any]  # top-level elements of the CapabilityStatement
    export_operation: str = "export"


def read_query(raw: str) -> dict[str, tuple[str, ...]]:
    """Decode a query string or form body."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(raw, keep_blank_values=True):
        found[name] = (*found.get(name, ()), value)
    return found


def whole_number(query: SearchQuery, name: str, least: int = 0) -> int | None:
    """Read a numeric parameter; None if absent. Raises Refused (400) unless it is a whole number >= least."""
    text = query.one(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < least:
        raise Refused(fhir_refusal(400, "invalid", f"Invalid value for parameter {name}"), f"bad {name}")
    return int(text)
