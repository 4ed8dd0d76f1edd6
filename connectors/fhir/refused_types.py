"""Which types seem closed to this client: three refusals in a run, and nothing of the type that came. No I/O.

Three patients are not everybody: the ones whose data are restricted may be first in the list every night. So some of the others
are still requested, ever fewer, and the first answer opens the type again. `endings` says what a refusal means; the callers
decide what follows for the types that are not requested.
"""

from __future__ import annotations

from collections import Counter, defaultdict

_REFUSALS = 3  # of different patients or ids (F44)


class RefusedTypes:
    """What one run has learned."""

    def __init__(self) -> None:
        self._refused: defaultdict[str, set[str]] = defaultdict(set)
        self._open: set[str] = set()
        self._rest: Counter[str] = Counter()

    def refuse(self, resource_type: str, by: str) -> None:
        """The server refused somebody's, or something, of this type."""
        self._refused[resource_type].add(by)

    def let_through(self, resource_type: str) -> None:
        """The server gave something of this type."""
        self._open.add(resource_type)

    def passes_over(self, resource_type: str) -> bool:
        """Whether to skip the next request of this type; the first, second, fourth, eighth … after that is still sent."""
        if resource_type in self._open or len(self._refused[resource_type]) < _REFUSALS:
            return False
        self._rest[resource_type] += 1
        number = self._rest[resource_type]
        return bool(number & (number - 1))
