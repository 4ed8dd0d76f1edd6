"""Decides whether a 404 or a 410 to a read comes from the EHR itself: only then does it say that something is not there.

A gateway in front of an EHR that is away, restarting or moved answers 404 too, with its own page. An EHR answers with an
OperationOutcome. Some EHRs send no body at all; then a read of an id that cannot exist must get the same answer.
docs/completeness-rules.md has the rule; `endings` says what follows from an answer.
"""

from __future__ import annotations

import anyio

from connectors.core.errors import FetchError
from connectors.fhir.endings import What, ending_of, says_not_found
from connectors.fhir.errors import TerminalFetchError
from connectors.fhir.transport.client import EhrClient
from snapshots.unit import Ending

NOBODYS_ID = "chartferry-control-that-nobody-has"  # letters and hyphens, 34 of at most 64 (R4, id)
_ABSENT = frozenset({Ending.NOT_FOUND, Ending.GONE})


class NotFoundAnswers:
    """What one connection's EHR means by refusing reads. Asks at most one question a type."""

    def __init__(self, client: EhrClient) -> None:
        self._client = client
        self._sends_no_body: dict[str, bool] = {}
        self._asking = anyio.Lock()

    async def ending(
        self, error: TerminalFetchError, resource_type: str, patient: str | None = None, *, what: What = "read"
    ) -> Ending:
        """Return what a refused read of this type means; FAILED if nobody can tell whether the answer is the EHR's.

        `patient` is whose token the refused read had, if tokens are bound to patients.
        """
        ending = ending_of(error, self._client.profile.answers.issue_codes, what=what)
        if ending not in _ABSENT or error.speaker != "nobody" or await self._is_its_way(resource_type, patient):
            return ending
        return Ending.FAILED

    async def _is_its_way(self, resource_type: str, patient: str | None) -> bool:
        """Whether the EHR answers a read of what cannot be there without a body."""
        async with self._asking:
            known = self._sends_no_body.get(resource_type)
            if known is not None:
                return known
            template = f"GET /{resource_type}/{{an id that nobody has}}"
            call = self._client.fhir_call(f"{resource_type}/{NOBODYS_ID}", template, patient=patient)
            try:
                await self._client.send(call)
            except TerminalFetchError as error:
                found = error.speaker == "nobody" and says_not_found(error)
            except FetchError:
                return False  # it may tell another time
            else:
                found = False
            self._sends_no_body[resource_type] = found
            return found
