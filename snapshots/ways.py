"""The numbers of ways: a row keeps the number of the way that listed it, a unit the number of the way that it lists by.

`witness.Way` defines ways; `evidence` decides what a missed row means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from snapshots.run_session import RunSession
from snapshots.sql import load
from snapshots.witness import Way, WayScope

_SQL = load("ways")


class WayNumbers:
    """The ways of one open run's connection. Calls are part of the caller's transaction."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._numbers: dict[Way, int] = {}

    async def of(self, ways: Iterable[Way | None]) -> Mapping[Way, int]:
        """Return the numbers of all known ways, including these; give new ones a number."""
        own = self._session.open.own
        for way in {way for way in ways if way is not None and way not in self._numbers}:
            values = {**own, "name": way.name, "scope": way.scope.value, "strict": way.strict, "codes": list(way.codes)}
            row = await (await self._session.conn.execute(_SQL["number"], values)).fetchone()
            assert row is not None
            self._numbers[way] = row[0]
        return self._numbers

    async def by_number(self) -> Mapping[int, Way]:
        """Return the connection's ways by their numbers."""
        found = await self._session.conn.execute(_SQL["all"], self._session.open.own)
        return {
            number: Way(name, WayScope(scope), strict, tuple(codes))
            async for number, name, scope, strict, codes in found
        }
