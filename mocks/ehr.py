"""The state of one running mock EHR, which every handler uses. oauth, search and bulk have the behaviour."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from mocks.dataset import Dataset, Row, row_of
from mocks.faults import Faults
from mocks.manners import FAMILIES, MANNERS
from mocks.manners.manner import SearchQuery
from mocks.mock_config import BulkLevel, MockConfig
from mocks.request_log import RequestLog

STORE_PATH = "/bulk-bucket/"  # below the object store's origin


@dataclass(frozen=True)
class Grant:
    """An access token: what it allows, until when (the server's wall clock), and for which client."""

    client_id: str
    scopes: dict[str, frozenset[str]]  # type or "*" -> letters of c r u d s
    literal: frozenset[str]
    expires_at: float
    patient: str | None = None


@dataclass(slots=True)
class Session:
    """A paging session (Epic): where the search continues."""

    query: SearchQuery
    rows: list[Row]
    start: int
    size: int
    expires_at: float
    empty: bool = False


@dataclass(slots=True)
class BulkFile:
    """One file of a job. `rows` are as of the kick-off, whatever changes later; the bytes are made at the first download."""

    id: str
    type: str
    rows: list[Row]
    key: tuple[Any, ...]
    next_id: str | None = None  # the file that continues this one's last block


@dataclass(slots=True)
class Job:
    """One export."""

    id: str
    client_id: str | None
    group: str | None
    request: str
    transaction_time: str
    began_at: float
    patients: int
    files: list[BulkFile]
    errors: list[BulkFile] = field(default_factory=list)
    deleted: list[BulkFile] = field(default_factory=list)
    organized_by: str | None = None
    partial: bool = False  # its manifest shows the pages that are ready
    separate: bool = False  # its status is in X-Export-Status
    question: tuple[object, ...] = ()  # Soarian: parameters that no second job may have
    polled: int = 0
    polled_at: float = 0
    complete: bool = False


class Ehr:
    """The state of one mock EHR. `clock` is the server's wall clock, in seconds."""

    def __init__(self, config: MockConfig, dataset: Dataset, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.manner = FAMILIES[config.family] if config.vendor == "generic" else MANNERS[config.vendor]
        self.layout = self.manner.layout
        self.dataset = dataset
        self.log = RequestLog()
        self.faults = Faults(config.faults, config.seed if config.fault_seed is None else config.fault_seed)
        self.grants: dict[str, Grant] = {}
        self.used_jtis: dict[str, float] = {}
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.jobs: dict[str, Job] = {}
        self.files: dict[str, tuple[Job, BulkFile]] = {}
        # (client, group) -> when an export of it was completed or begun
        self.kickoffs: dict[tuple[str | None, str], float] = {}
        # object store: key -> file, end of the link, exact query
        self.signed: dict[str, tuple[BulkFile, float, str]] = {}
        self.links: dict[str, float] = {}  # links of a manifest that expire -> when
        self.leases: dict[str, float] = {}  # object store: issued links not yet fetched -> when
        self.file_bytes: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self.document_searches: Counter[int] = Counter()  # by the server's day
        self.abort: Callable[[tuple[str, int]], None] | None = None  # closes a client's connection; serving sets it
        self._clock = clock
        self.set_origins("http://testserver", "http://objects.testserver")

    def set_origins(self, origin: str, store_origin: str) -> None:
        """Set the addresses of the EHR and its object store."""
        self.origin = origin
        self.store_origin = store_origin
        self.base_url = origin + self.layout.base
        self.token_url = origin + self.layout.token
        self.audience = self.manner.audience or self.token_url

    def now(self) -> float:
        """Return the server's wall clock, including its skew."""
        return self._clock() + self.config.clock_skew_s

    def instant(self) -> str:
        """Return now as a FHIR instant with milliseconds."""
        return datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @property
    def searches(self) -> bool:
        """Whether this server answers searches at all."""
        return self.config.search and self.manner.searches

    @property
    def bulk_levels(self) -> tuple[BulkLevel, ...]:
        """The levels of $export that this server offers."""
        return self.manner.bulk_levels if self.config.bulk_levels is None else self.config.bulk_levels

    @property
    def types(self) -> list[str]:
        """The types that this server knows: those of the data, and Group if groups can be read."""
        known = set(self.dataset.types) | {"Patient"}
        known -= {"Group"}
        return sorted(known | ({"Group"} if self.manner.group_read else set()))

    @property
    def groups(self) -> dict[str, Row]:
        """Groups by id: the configured ones (of all patients), else the data's, else the manner's group of all patients."""
        found = {row.id: row for row in self.dataset.of_type("Group")}
        if self.config.groups:
            return {id_: found.get(id_) or self._everyone(id_) for id_ in self.config.groups}
        return found or {self.manner.group_id: self._everyone(self.manner.group_id)}

    def _everyone(self, id_: str) -> Row:
        members = [{"entity": {"reference": f"Patient/{patient}"}} for patient in self.dataset.patient_ids]
        group = {
            "resourceType": "Group",
            "id": id_,
            "active": True,
            "type": "person",
            "actual": True,
            "name": "Everyone",
        }
        return row_of(orjson.dumps({**group, "quantity": len(members), "member": members}))

    def members(self, group: Row) -> list[str]:
        """Return the ids of a group's patients that are in the data."""
        references = [str(member.get("entity", {}).get("reference", "")) for member in group.body.get("member", ())]
        ids = [reference.rpartition("/")[2] for reference in references if "Patient/" in reference]
        return [id_ for id_ in ids if self.dataset.get("Patient", id_) is not None]
