"""What exports need from the audit, as protocols; `snapshots.audit_event` and `snapshots.audit_reader` implement them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import datetime
from typing import Protocol


class ReadEvent(Protocol):
    """One read of patient data; `snapshots.audit_event.ReadEvent` says what each field means."""

    @property
    def id(self) -> int:
        """Its number."""

    @property
    def began(self) -> datetime:
        """When its transaction began."""

    @property
    def at(self) -> datetime:
        """When it was noted."""

    @property
    def login(self) -> str:
        """The login to the database."""

    @property
    def actor(self) -> str:
        """Who acted."""

    @property
    def account(self) -> str:
        """What vouches for the actor's name."""

    @property
    def roles(self) -> tuple[str, ...]:
        """In which roles."""

    @property
    def origin(self) -> str:
        """From which machine."""

    @property
    def reason(self) -> str | None:
        """Why, in the actor's words."""

    @property
    def action(self) -> str:
        """What for: a value of `snapshots.audit_event.Action`."""

    @property
    def connections(self) -> tuple[str, ...]:
        """Of which connections."""

    @property
    def types(self) -> tuple[str, ...]:
        """Which resource types."""

    @property
    def runs(self) -> tuple[int, ...]:
        """The newest runs that were shown."""

    @property
    def everyone(self) -> bool:
        """Whether it was the ids of all patients of these connections."""

    @property
    def erased(self) -> Mapping[str, int] | None:
        """How many rows of each table were erased, where a patient was."""

    @property
    def broke_glass(self) -> str | None:
        """Why a mask was lifted for this one command."""


class PatientRead(Protocol):
    """One patient of a read."""

    @property
    def event(self) -> ReadEvent:
        """The read."""

    @property
    def connection(self) -> str | None:
        """The patient's connection."""

    @property
    def patient(self) -> str | None:
        """The patient's id; None: the read names no patient."""


class AuditedReads(Protocol):
    """Reads out of the audit."""

    def __aiter__(self) -> AsyncIterator[PatientRead]:
        """Each read once a patient, oldest first."""

    def end(self) -> Awaitable[None]:
        """Note that they were read, and commit; nothing more can be read after it."""
