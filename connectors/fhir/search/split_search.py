"""How one unit's search is sent: whole or in pieces, with or without its date filter. Pure; `search` sends it."""

from __future__ import annotations

from datetime import datetime

from connectors.fhir.capability import Capability
from connectors.fhir.errors import RequestError
from connectors.fhir.profile import IssueGrade, VendorProfile
from connectors.fhir.search.since import since_parameter, window_parameter
from connectors.fhir.search.windows import Piece, SplitLimits, query_of
from connectors.fhir.unit_details import SearchDetail
from snapshots.instants import moment
from snapshots.unit import Unit

_BAD_REQUEST = 400


class SplitSearch:
    """How one unit's search is sent: whole, or in pieces."""

    def __init__(self, unit: Unit, profile: VendorProfile, capability: Capability, began: datetime | None) -> None:
        self.unit = unit
        self.whole = Piece(after=moment(unit.since))
        self.without_since = False
        self._news = since_parameter(unit.resource_type, profile, capability)
        self._window = window_parameter(unit.resource_type, profile, capability)
        size = profile.search.page_size_by_type.get(unit.resource_type, profile.search.page_size)
        self.limits = SplitLimits(now=began if self._window is not None else None, count=size)

    def may_refuse_since(self, piece: Piece, error: RequestError, meaning: IssueGrade) -> bool:
        """Whether it may be the filter for news that the server does not take."""
        refused = error.status == _BAD_REQUEST and meaning in {"note", "ignored"}
        return refused and piece is self.whole and piece.after is not None

    def forget_since(self) -> None:
        """Ask for everything."""
        self.without_since = self.whole.after is not None
        self.whole = Piece()

    def path(self, piece: Piece) -> str:
        """The path that asks for a piece."""
        path = SearchDetail.of(self.unit).path
        if piece is self.whole and not self.without_since:
            return path
        parameter = self._window or (self._news if self.without_since else None)
        return query_of(path, piece, parameter.name if parameter else None)

    def may_miss_dateless(self, piece: Piece) -> bool:
        """Whether the piece is narrowed by a date that a resource may not have."""
        narrowed = (piece.after, piece.until) != (self.whole.after, self.whole.until)
        return narrowed and self._window is not None and self._window.mode == "created"
