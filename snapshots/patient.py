"""What runs learn about patients: merges, stored patients, what must not be requested before a time. Shapes only."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Deferral(NamedTuple):
    """A request that the EHR asked us not to send before a time."""

    resource_type: str  # "*": every type of the patient
    patient_id: str | None  # None: every patient
    reason: str  # "restricted" | "paused"
    until: datetime


class Alias(NamedTuple):
    """A patient that the EHR has merged into another."""

    former_id: str
    surviving_id: str
    gone: bool  # the former id leads to the survivor (Epic 4107); False: Patient.link reports it, and both can be read


class StoredPatient(NamedTuple):
    """A patient that the store knows."""

    id: str
    alive: bool  # the Patient is not a tombstone
    has_chart: bool  # the patient has a live row
