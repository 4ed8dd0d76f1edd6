"""Notes the attachments and references of records on their way to the store.

It is done by the fetchers, while the store is at work on what came before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from connectors.core.pipeline import Noticed
from connectors.fhir.linked.attachment_finder import with_attached
from connectors.fhir.linked.reference_finder import ReferenceFinder
from snapshots.record import Record


@dataclass(kw_only=True)
class Notices:
    """What one run looks for in its records."""

    attached: bool  # documents are fetched
    inspect: Callable[[Sequence[Record]], None] | None = None  # a validator that sees what came
    mentions: ReferenceFinder | None = None  # None: no references are followed

    def listed(self, records: Sequence[Record]) -> Noticed:
        """Notice of what was listed what `received` does, and what it refers to."""
        return self.received(records)._replace(mentions=self.mentions(records) if self.mentions is not None else ())

    def received(self, records: Sequence[Record]) -> Noticed:
        """Let the validator see what came, if there is one, and notice what it has attached, if that is wanted."""
        if self.inspect is not None:
            self.inspect(records)
        return Noticed(with_attached(records) if self.attached else records)
