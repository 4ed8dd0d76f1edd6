"""Whether a Patient who was withheld from this client can be read again.

`bulk.steps` asks before it exports news: what was added while the patient was withheld comes only with a full export.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from connectors.core.errors import FetchError
from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient

MOST_READS = 50  # who comes after them is read once these can be read, or are gone


async def any_readable(client: EhrClient, base_url: str, profile: VendorProfile, withheld: Iterable[str]) -> bool:
    """Read withheld Patients one by one, until one can be read. An error of any kind is no permission.

    Raises:
        AuthError: there is no login.
    """
    for patient, _ in zip(withheld, range(MOST_READS), strict=False):
        call = Call(
            method="GET",
            url=f"{base_url}/Patient/{quote(patient, safe='')}",
            template="GET /Patient/{id}",
            purpose="read",
            accept=profile.http.accept,
            launch=patient if profile.login.token_per_patient else None,
        )
        try:
            await client.send(call)
        except FetchError:
            continue
        return True
    return False
