"""What downloading an export's files has shown, told once a run and not once a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from connectors.fhir.outcomes import Issue
from connectors.fhir.records import codes_of

GRAVE = frozenset({"error", "fatal"})


@dataclass
class DownloadTally:
    """What is told once a run, not once a file."""

    issues: list[Issue] = field(default_factory=list)
    unread: int = 0  # places of error files that nobody can read
    error_files: int = 0
    mislabelled: Counter[str] = field(default_factory=Counter)
    miscounted: int = 0
    unproved: int = 0
    empty: int = 0
    lost: int = 0
    resumed: int = 0
    doubts: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Sentences for the run's report."""
        found = []
        if self.error_files:
            grave = sum(issue.severity in GRAVE for issue in self.issues)
            codes = ", ".join(codes_of(self.issues)) or "no codes"
            unread = f", and {self.unread} places that cannot be read" if self.unread else ""
            kept = (
                "; what the export does not list is kept, since it may be what failed" if grave or self.unread else ""
            )
            found.append(
                f"the server's error files hold {len(self.issues)} issues, {grave} of them errors ({codes}){unread}{kept}"
            )
        found += self.doubts
        if self.unproved:
            found.append(
                f"{self.unproved} files came with nothing that proves them whole (Content-Length, chunks, gzip, or a `count` in "
                "the manifest): one that was cut at a line's end would look the same, so what they do not list is kept"
            )
        if self.empty:
            found.append(
                f"{self.empty} files hold no line, and the manifest does not count them: not taken to prove that there is "
                "nothing of their types"
            )
        if self.mislabelled:
            what = ", ".join(f"{pair} ({files} files)" for pair, files in sorted(self.mislabelled.items()))
            found.append(f"the manifest names other types than its files hold, stored as what they are: {what}")
        if self.miscounted:
            found.append(f"{self.miscounted} files hold more lines than the manifest counts; all are stored")
        if self.resumed:
            found.append(f"{self.resumed} cut downloads went on where they stopped")
        return found
