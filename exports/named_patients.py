"""Says which share of the patients that a selection names is not in the store.

Their charts are missing from whatever is read, and nothing else would show it: a file of MRNs in place of ids selects no rows.
"""

from __future__ import annotations

from exports.snapshot_port import Snapshot


async def patient_notes(snapshot: Snapshot) -> tuple[str, ...]:
    """Return a note with the numbers if some of the named patients are not stored; nothing if all are, or none is named."""
    missing, named = await snapshot.not_stored()
    if not missing:
        return ()
    which = f"{missing:,} of the {named:,} patients named" if named > 1 else "the patient named"
    verb = "have" if missing > 1 else "has"
    reasons = "unknown to this EHR (an MRN, for example), not synced yet, deleted, or merged into another"
    return (f"{which} {verb} no Patient in the store at this moment: {reasons}",)
