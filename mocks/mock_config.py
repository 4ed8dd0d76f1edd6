"""The configuration of a mock EHR: the one value that every entry point of mocks takes.

An option that is `None` means "as the vendor does"; the manner has that value. dataset reads the data, serving serves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mocks.faults import FaultRule
from mocks.quota import RateLimitHeaders

Vendor = Literal["epic", "cerner", "allscripts", "va", "generic"]
Family = Literal["plain", "hapi", "azure", "bulk-data-server"]
BulkLevel = Literal["system", "patient", "group"]


@dataclass(frozen=True, kw_only=True)
class MockConfig:
    """A mock EHR. Times are seconds; sizes are rows unless the name says bytes."""

    vendor: Vendor = "generic"
    family: Family = "plain"  # generic: which well-known server it imitates

    # -- what it serves
    # directory of NDJSON(.gz), or resources; None: synthetic
    data: Path | Iterable[Mapping[str, Any] | bytes] | None = None
    patients: int = 20  # synthetic only
    seed: int = 1  # for the synthetic patients
    documents: bool = False  # synthetic notes are in Binaries (HTML with RTF, PDF, C-CDA), half have none; else inline
    # "Type/id" that no search lists, but a read or `_id` returns: Epic's panel members
    unlisted: frozenset[str] = frozenset()
    fault_seed: int | None = None  # for faults with a probability; None: `seed`
    # ids of groups of all patients; (): the data's Group resources, else the manner's group
    groups: tuple[str, ...] = ()

    # -- who may log in
    client_id: str = "chartferry-mock"
    jwks: Mapping[str, Any] | None = None  # public keys of the client
    client_secret: str | None = None
    other_clients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # more clients: id -> public keys
    client_id_header: str | None = None  # a header that must name the client, as some Epic sites require Epic-Client-ID
    open: bool = False  # no login at all
    token_life_s: int | None = None
    clock_skew_s: float = 0  # the server's clock minus ours; its Date header shows it
    unregistered_types: tuple[str, ...] = ()  # a token request that names one gets invalid_scope
    forbidden_types: tuple[str, ...] = ()  # 403 whatever the token says; on Epic the token does not name them either
    scope_versions: tuple[Literal["v1", "v2"], ...] | None = None

    # -- what it offers
    search: bool = True  # False: bulk only
    bulk_levels: tuple[BulkLevel, ...] | None = None  # (): declares no bulk at all
    page_size: int | None = None  # entries per page if the client sends no _count
    session_life_s: float = 600  # Epic: paging sessions
    max_rows: int = 100_000  # Allscripts: 413 above this number of matches
    row_cost_s: float = 0  # time that the server needs per row of a page
    gateway_timeout_s: float | None = None  # a page that takes longer gets a 504 after this time
    strip_meta: bool = False  # Epic: removes `meta` from what it serves
    empty_pages: bool = False  # Epic: the second page is empty and has a next link
    # Epic: type -> code of a warning entry on each first page
    outcome_codes: Mapping[str, str] = field(default_factory=dict)
    daily_documents: int | None = None  # Epic: DocumentReference searches before 4135
    merged: Mapping[str, str] = field(default_factory=dict)  # Epic: merged patient id -> surviving id
    poison_patient: str | None = None  # Cerner: this patient's Observation searches answer 500 fatal/required
    poison: frozenset[str] = frozenset()  # "Observation/obs-1": the page that would contain it cannot be produced
    restricted: Mapping[str, str] = field(default_factory=dict)  # "Observation/pat-1" or "*/pat-1" -> Epic's code
    ignored_params: frozenset[str] = frozenset()  # of a search; the server silently ignores them (F16)
    refused_params: frozenset[str] = frozenset()  # of a search; the server answers 400
    redact_every: int = 0  # Allscripts: each n-th clinical row of a page is a redacted placeholder

    # -- bulk
    rows_per_file: int = 5000
    polls: int = 2  # status answers 202 before the manifest
    retry_after_s: int = 1  # Retry-After of those answers (Cerner really says 600)
    least_poll_gap_s: float = 0  # an earlier poll gets a 429
    abandoned_job_s: float = 600  # a job that nobody polls stops blocking others after this time
    kickoff_window_s: float = 86_400  # Epic: one export per group and client
    kickoff_refusal_status: int = 400  # Epic: status of the "too recently" refusal
    link_life_s: float = 60  # Cerner: pre-signed file links
    max_parallel_files: int | None = 2  # Cerner: 429 above; None: off
    # version of the guide that it declares: 4 takes only POST, and repeated parameters instead of lists
    bulk_version: int | None = None
    post_kickoff: bool | None = None  # False: 405 to a POST of $export
    bulk_refuses: tuple[str, ...] = ()  # parameters refused with 400 and their name, unless handling=lenient
    bulk_refuses_unnamed: tuple[str, ...] = ()  # ... with 422 and no name
    soarian: bool = False  # Cerner's other product: 409 for the same export again, bodies in 202 answers
    deleted_file: bool = False  # the manifest of an export with `_since` has deleted[] with all that was ever deleted
    files_per_manifest: int | None = None  # a manifest page lists this many files, and links to the next page
    partial_manifests: bool = False  # allowPartialManifests is honoured: one more page with each poll
    separate_status: bool = False  # separate-export-status is honoured
    manifest_life_s: float | None = None  # links of a manifest expire after this time: 403 then; Expires says so
    ranges: bool = False  # files have a strong ETag and accept Range requests
    plain_files: bool = False  # files are never compressed
    error_file: bool = False  # the manifest's error[] names a file with one warning

    # -- how it behaves on the wire
    latency_s: float = 0  # added to each request
    bandwidth_bytes_s: float | None = None  # of the whole server: all answers share it
    max_requests_per_s: float | None = None  # 429 above
    max_concurrency: int | None = None  # 429 above
    quota: int | None = None  # requests per window; 429 above
    quota_window_s: float = 60
    rate_limit_headers: RateLimitHeaders = "none"  # what answers say about the quota
    throttle_retry_after: str | None = None  # Retry-After of the 429s of all these limits
    faults: tuple[FaultRule, ...] = ()
