"""What the command line sets for a run; `wiring` makes a request of it and the connection's configuration.

All but `kind` and `since` are for EHRs: a source without patients, Groups or types refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the command line sets for a run; it overrides the connection's configuration."""

    kind: Literal["sync", "pull"] = "sync"
    mode: Literal["auto", "bulk", "crawl"] | None = None
    since: str = "auto"
    types: tuple[str, ...] = ()
    group: str | None = None
    # each with its line number, or without; None: the configured cohort
    patients: Mapping[str, int] | tuple[str, ...] | None = None
    patients_name: str | None = None  # names the file that they came from, whatever it contains today
    stored_patients: bool = False  # instead of those: the connection's patients in the store
    patients_are_ids: bool = False  # True: ignores cohort_system
    until: str | None = None  # bulk only; overrides the connection's bulk.until
