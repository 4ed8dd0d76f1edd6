"""Says how many of the patients that a selection names have no Patient in the store.

Mostly their charts are missing from whatever is read, and nothing else would show it: a file of MRNs in place of ids selects no
rows. A chart may be there without its Patient, if the connection fetches other types only.
"""

from __future__ import annotations

from exports.snapshot_port import Snapshot


async def patient_notes(snapshot: Snapshot) -> tuple[str, ...]:
    """Return a note with the numbers if some of the named patients are not stored; nothing if all are, or none is named."""
    missing, named = await snapshot.not_stored()
    if not missing:
        return ()
    whom = f"{missing:,} of the {named:,} patients named" if named > 1 else "the patient named"
    reasons = (
        "unknown to this EHR (an MRN, for example), of another connection, not synced yet, deleted, merged into another, or "
        "synced without the type Patient"
    )
    return (f"the store has no Patient for {whom} at this moment: {reasons}",)
