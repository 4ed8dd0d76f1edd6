"""Notes the attachments and references of records on their way to the store.

The fetchers do this while the store writes earlier records. The counts go into the ledger with their unit, so a run that was
killed and resumed still reports them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from connectors.core.pipeline import Noticed
from connectors.fhir.linked.attachment_finder import with_attached
from connectors.fhir.linked.reference_finder import ReferenceFinder
from snapshots.record import Record
from snapshots.unit import Counted


@dataclass(kw_only=True)
class Notices:
    """What one run looks for in its records."""

    attached: bool  # documents are fetched
    inspect: Callable[[Sequence[Record]], Mapping[Counted, int]] | None = None  # a validator that sees what came
    mentions: ReferenceFinder | None = None  # None: no references are followed

    def listed(self, records: Sequence[Record]) -> Noticed:
        """Notice of what was listed what `received` does, and what it refers to."""
        noticed = self.received(records)
        if self.mentions is None:
            return noticed
        mentions, counted = self.mentions(records)
        return noticed._replace(
            mentions=mentions, counted={**noticed.counted, **counted} if counted else noticed.counted
        )

    def received(self, records: Sequence[Record]) -> Noticed:
        """Let the validator see what came, if there is one, and notice what it has attached, if that is wanted."""
        counted = self.inspect(records) if self.inspect is not None else {}
        return Noticed(with_attached(records) if self.attached else records, counted=counted)
