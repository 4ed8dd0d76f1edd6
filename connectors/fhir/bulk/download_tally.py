"""What downloading an export's files has shown, reported once per run, not once per file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from connectors.fhir.outcomes import Issue
from connectors.fhir.records import codes_of

GRAVE = frozenset({"error", "fatal"})


@dataclass
class DownloadTally:
    """What the report says once per run, not once per file."""

    issues: list[Issue] = field(default_factory=list)
    unread: int = 0  # parts of error files that cannot be read
    error_files: int = 0
    mislabelled: Counter[str] = field(default_factory=Counter)
    miscounted: int = 0
    unproved: int = 0
    empty: int = 0
    partial: int = 0
    lost: int = 0
    resumed: int = 0
    doubts: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return sentences for the run's report."""
        found = []
        if self.error_files:
            grave = sum(issue.severity in GRAVE for issue in self.issues)
            codes = ", ".join(codes_of(self.issues)) or "no codes"
            unread = f", and {self.unread} parts that cannot be read" if self.unread else ""
            kept = (
                "; what the export does not list is kept, since it may be what failed" if grave or self.unread else ""
            )
            found.append(
                f"the server's error files contain {len(self.issues)} issues, {grave} of them errors ({codes}){unread}{kept}"
            )
        found += self.doubts
        if self.unproved:
            found.append(
                f"{self.unproved} files came with nothing that proves them complete (Content-Length, chunks, gzip, or a `count` "
                "in the manifest): a file that was cut at the end of a line would look the same, so what they do not list is kept"
            )
        if self.empty:
            found.append(
                f"{self.empty} files have no lines, and the manifest does not count them: this does not prove that there is "
                "nothing of their types"
            )
        if self.partial:
            found.append(
                f"{self.partial} files say themselves that there may be more than they have: what they do not list is kept, and "
                "their types are not known to be complete"
            )
        if self.mislabelled:
            what = ", ".join(f"{pair} ({files} files)" for pair, files in sorted(self.mislabelled.items()))
            found.append(f"the manifest names other types than its files contain; stored as what they are: {what}")
        if self.miscounted:
            found.append(f"{self.miscounted} files have more lines than the manifest counts; all are stored")
        if self.resumed:
            found.append(f"{self.resumed} cut downloads were resumed where they stopped")
        return found
