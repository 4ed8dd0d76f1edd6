"""What the audit knows about a read of patient data. Shapes only; `reading` writes them, `audit` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Action(StrEnum):
    """What patient data were read for."""

    EXPORT = "export"
    PULL = "pull"
    SNAPSHOTS = "snapshots"  # when and how one chart changed
    DIFF = "diff"  # two moments compared
    PROOF = "proof"  # compared with the EHR
    LISTING = "listing"  # the ids of a connection's patients, nothing else
    AUDIT = "audit"  # the audit itself
    PRUNE = "prune"  # what was kept long enough was deleted: events, versions, quarantine
    FIND = "find"  # whose identifier, number, or name and birth date it is
    BACKUP = "backup"  # all that a tenant has was written to a file
    ERASE = "erase"  # every trace of a patient was deleted


class ReadEvent(NamedTuple):
    """One read of patient data."""

    id: int
    began: datetime  # by the server's clock, as `at`
    at: datetime
    login: str  # to the database
    actor: str
    account: str  # what vouches for the actor's name
    roles: tuple[str, ...]
    origin: str
    reason: str | None
    action: Action
    connections: tuple[str, ...]
    types: tuple[str, ...]  # of resources; empty: none, or not a matter of types
    runs: tuple[int, ...]  # the newest that the reader was shown, of each connection
    everyone: bool  # the ids of all patients of these connections; of a backup, all that there is of them
    erased: Mapping[str, int] | None = None  # rows by table, where a patient was erased, or versions were pruned
    broke_glass: str | None = None  # why a mask was lifted for this one command


class PatientRead(NamedTuple):
    """One patient of a read; `patient` is None for a read that names none."""

    event: ReadEvent
    connection: str | None
    patient: str | None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with the audit: `kind` is one of `FAULTS`."""

    kind: str
    seal: int | None = None
    event: int | None = None


FAULTS = {
    "altered": "an event was altered after it was sealed, or its patients were",
    "missing": "a sealed event was deleted",
    "added": "an event was added to a range that had been sealed",
    "seal altered": "a seal's hash does not match its content",
    "chain broken": "a seal does not continue the previous one: seals between them were deleted or replaced",
    "no event": "patients are noted for an event that does not exist",
    "head missing": "the chain does not contain the head that you noted: its end was cut off or replaced",
}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What checking the whole audit found."""

    seals: int
    events: int  # that are sealed
    unsealed: int  # since the last seal
    unused: int  # numbers that no event got: reads that were rolled back
    pruned_through: int  # the last event that was deleted because it had been kept long enough; 0: none
    head: str | None  # the end of the chain, to note elsewhere: "NUMBER:HASH"; None: nothing is sealed
    faults: tuple[Fault, ...] = field(default=())
