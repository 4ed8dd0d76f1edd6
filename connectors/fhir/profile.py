"""The vendor profile: every way in which EHRs differ, as one typed value with safe defaults, in groups.

`connectors/fhir/vendors/*.py` fill it with evidence; a site overrides any field with `profile = { group.field = … }` in its
configuration. What data cannot say is a named pure hook. Units stand in the names. Pure: no I/O, clock or randomness.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from config.text_shapes import shaped
from connectors.fhir.former_keys import placed

Mode = Literal["auto", "bulk", "crawl"]
BulkLevel = Literal["system", "patient", "group", "patient-list"]  # the last: POST Patient/$export with named patients
IssueGrade = Literal[
    "note", "ignored", "incomplete", "restricted", "restart", "gone", "missing", "merged", "pause", "fatal"
]

_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_HOST = r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_ORIGIN = 'must be an origin, which is scheme, host and port without a path, such as "https://ehr.example.org:8443"'
Word = Annotated[str, shaped(r"[A-Za-z]+", 'must be a resource type, such as "Observation"')]
# "https://host:443:443" too: what a server writes need be no origin that a client could ask
WrittenOrigin = Annotated[str, shaped(rf"{_HOST}(:\d{{1,5}})*/?", _ORIGIN)]
Origin = Annotated[str, shaped(rf"{_HOST}(:\d{{1,5}})?/?", _ORIGIN)]
ElementPath = Annotated[
    str, shaped(r"[A-Za-z]+(\.[A-Za-z]+)*", 'must be an element\'s path, such as "subject.identifier"')
]

NO_SPLIT: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class _Group(BaseModel):
    """Frozen; an unknown or mistyped field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` where a number is wanted: pydantic takes it for 1."""
        wanted = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and (wanted in {int, float} or {int, float} & set(get_args(wanted))):
            raise ValueError("a number, without quotes")
        return value


class LoginProfile(_Group):
    """How a client logs in (vendor-facts 5)."""

    assertion_alg_rsa: str = "RS384"
    assertion_alg_ec: str = "ES384"
    assertion_life_s: int = Field(240, ge=30, le=300)
    audience: str | None = None  # None: the token URL
    token_url: str | None = None  # None: from discovery
    scope_required: bool = True
    scope_wildcards: bool = True
    scope_syntax: Literal["auto", "v1", "v2"] = "auto"  # auto: v1 unless only permission-v2 is advertised
    extra_scopes: tuple[str, ...] = ()
    token_per_patient: bool = False  # VA: `launch` carries the patient
    # flaky token endpoints refuse good assertions (vendor-facts 5.4)
    refused_waits_s: tuple[float, ...] = (1, 5, 30)


class HttpProfile(_Group):
    """What every request carries, and how long its answer may take."""

    accept: str = "application/fhir+json"
    client_id_header: str | None = None  # Epic: "Epic-Client-ID"
    # keep the EHR's cookies for a run: paging sessions and exports that live on one of several machines (sticky sessions)
    cookies: bool = False
    connect_timeout_s: float = Field(30, gt=0)
    read_timeout_s: float = Field(300, gt=0)  # without a byte of progress; for all headers together


class RetryProfile(_Group):
    """How often, and after what wait, a request is sent again."""

    max_tries: int = Field(9, ge=1, le=50)  # with the two below: about a minute, up to two (F3: outages last minutes)
    base_s: float = Field(0.5, gt=0)
    cap_s: float = Field(60, gt=0)
    after_cap_s: float = Field(300, gt=0)  # the longest Retry-After that is honoured in full
    share: float = Field(0.2, ge=0, le=10)  # retries may be at most this share of requests ...
    floor: int = Field(100, ge=0)  # ... plus this many


class LimitsProfile(_Group):
    """How many requests the EHR allows, and when (docs/limits.md)."""

    max_concurrency: int = Field(5, ge=1, le=500)
    file_concurrency: int = Field(4, ge=1, le=64)
    # None: no quota known; rate limit headers are honoured all the same
    requests_per_minute: int | None = Field(None, ge=1)
    quiet_hours: str | None = None  # "07:00-19:00"
    time_zone: str = "UTC"  # of quiet_hours, an IANA name
    quiet_max_concurrency: int = Field(1, ge=0)  # within them; 0: no requests
    quiet_wait_s: float = Field(14_400, ge=0)  # how long a run waits for their end; for more it does not begin, or ends
    # calls in a row that nobody answered, each after all its tries: the EHR is down
    breaker_failures: int = Field(8, ge=1)
    breaker_open_s: float = Field(300, gt=0)  # for so long, doubled at each renewal up to an hour

    @field_validator("quiet_hours")
    @classmethod
    def _are_hours(cls, hours: str | None) -> str | None:
        if hours is None:
            return None
        begin, dash, end = hours.partition("-")
        for each in (begin, end) if dash else ():
            if not _TIME.fullmatch(each):
                raise ValueError(
                    f'{each!r} is not a time of day: "HH:MM-HH:MM", 00:00 to 23:59, such as "07:00-19:00"; midnight is 00:00'
                )
        if not dash:
            raise ValueError('must be two times of day, separated by a hyphen, such as "07:00-19:00"')
        return hours

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError('not a time zone; give an IANA name such as "America/New_York"') from None
        return name


class LinksProfile(_Group):
    """Where the EHR's links may lead."""

    # hosts without a public address that links may lead to; they get no token by this
    private_hosts: tuple[str, ...] = ()
    # origins that the EHR writes into its links, and at which of ours each is reached: {"http://localhost:8080" = "https://ehr…"}
    rewrite_origins: Mapping[WrittenOrigin, Origin] = Field(default_factory=dict)


class SearchProfile(_Group):
    """What is searched, by which parameters, and how answers are paged (docs/crawl.md)."""

    # crawled by patient; empty: every type the CapabilityStatement says has a `patient` parameter
    types: tuple[str, ...] = ()
    page_size: int | None = None  # None: do not send _count
    page_size_by_type: Mapping[str, int] = Field(default_factory=dict)
    # type -> raw query suffixes, one unit each ("category=laboratory"; "" = without), where one search cannot list all
    splits: Mapping[str, tuple[str, ...]] = Field(default_factory=lambda: dict(NO_SPLIT))
    patient_by: Literal["read", "_id"] = "read"
    lists_patients: bool = False  # `Patient?_count=…` without criteria lists everyone
    directory_types: tuple[str, ...] = ()  # types of no patient, listed whole where the server declares their search
    last_updated_types: tuple[str, ...] = ()  # types whose search honours `_lastUpdated`
    last_updated_once: tuple[str, ...] = ()  # of these, types that accept it once: no window, only "since"
    created_params: Mapping[str, str] = Field(default_factory=dict)  # type -> parameter of when a record was made
    post_over: int | None = Field(None, ge=0)  # a search whose URL is longer goes by POST; None: never
    divide_max: int = Field(400, ge=1)  # searches around what a server cannot produce, of one unit
    max_pages: int = Field(100_000, ge=1)  # loop guard beside "same next link twice"
    # on a next link, which is the server's own: restart that search. HAPI says 410 [R] vendor-facts 7, Epic 400 with 4113 [D] EA,
    # vendor-facts 1.6
    next_expired_statuses: tuple[int, ...] = (400, 404, 410)


class AnswersProfile(_Group):
    """What the EHR's issue codes mean."""

    issue_codes: Mapping[str, IssueGrade] = Field(default_factory=dict)  # details.coding.code -> what it means here
    restricts_patient: tuple[str, ...] = ()  # issue codes that restrict every type of the patient
    restricted_retry_d: float = Field(30, ge=0)  # before a patient's restricted type is requested again


class ReferencesProfile(_Group):
    """What is followed that charts refer to (docs/attachments.md)."""

    follow: tuple[str, ...] = (  # types fetched by reference, once everything else is there; empty: none
        "Observation",
        "EpisodeOfCare",
        "Medication",
        "PractitionerRole",
        "Practitioner",
        "Organization",
        "Location",
        "Device",
    )
    # source type -> element -> types, beside those of linked/reference_paths.py: {Encounter = {"account" = ["Account"]}}
    paths: Mapping[Word, Mapping[ElementPath, tuple[str, ...]]] = Field(default_factory=dict)
    id_batch: int = Field(1, ge=1, le=500)  # ids of one `_id` search; 1: each is read
    id_batch_by_type: Mapping[str, int] = Field(default_factory=dict)
    id_batch_one_patient: tuple[str, ...] = ()  # types whose `_id` list must be of one patient
    fresh_d: float = Field(7, ge=0)  # how long an answer to a reference holds: found, not there, restricted
    depth: int = Field(10, ge=1)  # steps from a listing; circles end by themselves


class AttachmentsProfile(_Group):
    """Which documents are fetched, whole, and kept with their text (docs/attachments.md)."""

    fetch: bool = True
    max_bytes: int = Field(20_000_000, ge=1, le=500_000_000)  # four of that size are in memory at once
    # what has text, and the C-CDA, RTF and PDF of captured charts (vendor-facts 1.10); "*" stands for anything: "image/*"
    types: tuple[str, ...] = (
        "text/*",
        "application/pdf",
        "application/rtf",
        "application/xml",
        "application/*+xml",
        "application/json",
        "application/*+json",
    )
    foreign: bool = False  # also from other servers than the EHR's, without the token
    same_origin: bool = False  # also from the EHR's origin outside base_url (a gateway's other path), with the token


class BulkProfile(_Group):
    """Which exports the EHR offers, and what they give (docs/bulk.md)."""

    levels: tuple[BulkLevel, ...] = ("group", "patient", "system", "patient-list")  # in order of preference
    types: tuple[str, ...] = ()  # `_type` sent when the user names none; empty: not sent
    leaves_out: tuple[str, ...] = ()  # types that an export without `_type` does not give
    not_alone: tuple[str, ...] = ()  # types that a `_type` of nothing else may not name ...
    companion: str | None = None  # ... so this one is requested with them
    patients_max: int = Field(10_000, ge=1)  # named in one kick-off
    since: bool = True
    partial: Literal["auto", "yes", "no"] = "auto"  # allowPartialManifests; auto: where STU3 or later is declared
    lenient: bool = False  # Prefer: handling=lenient: unknown parameters are ignored, and nobody says so
    separate_status: bool = False  # Prefer: separate-export-status
    file_hosts: tuple[str, ...] = ()  # further origins that may see the token (besides the base URL's)
    job_timeout_s: float = Field(30 * 86_400, gt=0)
    delete_job: bool = True


class KickoffProfile(_Group):
    """How an export is requested, and what its refusal means."""

    method: Literal["auto", "GET", "POST"] = "auto"  # auto: POST where patients are named or STU4 is declared
    lists: Literal["auto", "comma", "repeat"] = "auto"  # auto: comma, and repeated where STU4 is declared
    type_filter_comma: Literal["percent", "backslash"] = "percent"  # how a comma within a `_typeFilter` leaves
    busy_means_running: bool = False  # 429 says that an export of ours is running
    # how long a running export of ours is waited for before this one gives up
    wait_s: float = Field(3600, ge=0)
    # a kick-off whose answer was lost may have begun a job: the next one waits this long (vendor-facts 6.1)
    again_s: float = Field(300, ge=0)
    window_s: float = Field(0, ge=0)  # one export of a group in so long; 0: no such rule is known
    too_soon: tuple[str, ...] = ("too recently", "too soon")  # in a refusal's text: that rule spoke


class PollProfile(_Group):
    """When the state of an export is requested."""

    first_s: float = Field(1, ge=0)
    floor_s: float = Field(1, ge=0)
    # one poll comes this early after the kick-off, however long a wait the server requests; 0: none
    early_s: float = Field(10, ge=0)
    cap_s: float = Field(300, gt=0)


class ChangesProfile(_Group):
    """How what has changed since the last run is requested, and what counts as a change."""

    # auto: by `_lastUpdated`, else by creation, else whole
    since_mode: Literal["auto", "updated", "created", "full"] = "auto"
    incremental: bool = False  # `--since auto` is a full listing unless set: only a full listing can see deletions
    reconcile_every_d: float = Field(7, ge=0)  # with `incremental`: a full listing at least this often
    overlap_s: int = Field(300, ge=0)  # taken off the watermark
    # what the EHR may rewrite without making a version: meta (lastUpdated, versionId), a narrative whose status is "generated"
    ignored: tuple[Literal["meta", "narrative"], ...] = ()


class CompletenessProfile(_Group):
    """How it is found out whether anything is missing (docs/completeness.md, docs/prove.md)."""

    # what makes a search answer with a true Bundle.total; None or "": ids are walked
    count_query: str | None = "_summary=count"
    walk_query: str | None = None  # added where ids are walked, so that bodies stay away; None: not known to be allowed
    unwitnessed_reads: int = Field(50, ge=0)  # of rows that no listing shows, a full run


class VendorProfile(_Group):
    """How to treat one EHR. Defaults are the specification's."""

    name: str
    label: str
    mode: Mode = "auto"
    login: LoginProfile = LoginProfile()
    http: HttpProfile = HttpProfile()
    retry: RetryProfile = RetryProfile()
    limits: LimitsProfile = LimitsProfile()
    links: LinksProfile = LinksProfile()
    search: SearchProfile = SearchProfile()
    answers: AnswersProfile = AnswersProfile()
    references: ReferencesProfile = ReferencesProfile()
    attachments: AttachmentsProfile = AttachmentsProfile()
    bulk: BulkProfile = BulkProfile()
    kickoff: KickoffProfile = KickoffProfile()
    poll: PollProfile = PollProfile()
    changes: ChangesProfile = ChangesProfile()
    completeness: CompletenessProfile = CompletenessProfile()

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """Return this profile with fields replaced, each in its group; the other fields of a group stay.

        A field may also be given by the flat name that it had before there were groups.

        Raises:
            pydantic.ValidationError: an unknown or mistyped override; its location is the override's path.
        """
        laid = self.model_dump()
        for key, value in placed(overrides, type(self)).items():
            whole = isinstance(laid.get(key), dict) and isinstance(value, Mapping)
            laid[key] = {**laid[key], **value} if whole else value
        return type(self).model_validate(laid)
