"""What a reader of the store asks for: whose rows, of which types, as of when. Pure. `selected_rows` turns it into SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which live resources are read. A patient has what is filed under the patient's id, and what `member` assigns too."""

    connections: tuple[str, ...] = ()  # empty: all of the tenant
    patients: tuple[str, ...] | None = None  # None: all, including what belongs to no patient
    types: tuple[str, ...] = ()  # empty: all
    # with `patients`: also resources of no patient that their charts refer to, such as Medication
    mentioned: bool = False
    # as the store stood when this run had ended, or at this moment; None: now
    as_of: int | datetime | None = None
    # only what has changed since this run had ended; `Snapshot.removed` says what the selection has lost since
    changed_since: int | None = None
