"""Deletes an export at its server: this confirms that its files are stored, and frees a vendor's only slot for the next."""

from __future__ import annotations

from connectors.core.errors import ConnectorError
from connectors.fhir.profile import VendorProfile
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient

_ANSWERS = frozenset({200, 202, 204, 404})  # any 2xx; 404: gone already, as HAPI's [R] SF, vendor-facts 6.5 (F29)


async def delete_export(client: EhrClient, profile: VendorProfile, status_url: str) -> str | None:
    """Send the DELETE; return why it failed, if it did, since that never stops anything."""
    call = Call(
        method="DELETE",
        url=status_url,
        template="DELETE the export's status URL",
        purpose="delete",
        ok=_ANSWERS,
        token_origins=frozenset(profile.bulk.file_hosts),
    )
    try:
        await client.send(call)
    except ConnectorError as error:
        return str(error)
    return None
