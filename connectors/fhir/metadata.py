"""Asks a server what it offers: GET /metadata, which needs no token.

If a server does not show it, the vendor's profile alone decides; `capability` reads it, `plan` weighs the two.
"""

from __future__ import annotations

from typing import NamedTuple

from config.how_many import how_many
from connectors.fhir.capability import Capability, capability_from
from connectors.fhir.errors import BudgetExhaustedError, TerminalFetchError, TransientFetchError, UntrustedServerError
from connectors.fhir.json_answers import UnreadableJsonError, json_from
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient

_SERVER_ERROR = 500
_PROFILE_ALONE = "planned from the vendor profile alone"


class Declared(NamedTuple):
    """What the server declares; nothing, with a note that says why, where it does not show it."""

    capability: Capability
    note: str = ""
    unasked: TransientFetchError | None = None  # it failed on the question itself: another day it may tell


async def declared(client: EhrClient, base_url: str) -> Declared:
    """Ask for the CapabilityStatement.

    Raises:
        FetchError: nobody answers whom we trust, or the EHR counts as down: then nothing else would be answered either.
    """
    call = Call(method="GET", url=f"{base_url}/metadata", template="GET /metadata", purpose="discovery", auth=False)
    try:
        reply = await client.send(call)
        capability = capability_from(json_from(reply.body))
    except UntrustedServerError:
        raise
    except TerminalFetchError as error:
        problem = f"the server shows no CapabilityStatement ({error.answer})"
        return Declared(Capability(), f"{problem}: {_PROFILE_ALONE}")
    except UnreadableJsonError:
        return Declared(Capability(), f"the server's CapabilityStatement is not JSON: {_PROFILE_ALONE}")
    except TransientFetchError as error:
        is_down = client.pace_state().down_until is not None or isinstance(error, BudgetExhaustedError)
        if is_down or (error.status or 0) < _SERVER_ERROR:
            raise
        problem = f"the server's CapabilityStatement could not be fetched (HTTP {error.status} after all retries)"
        return Declared(Capability(), f"{problem}: {_PROFILE_ALONE}", error)
    notes = []
    if capability.is_of_another_fhir:
        notes.append(
            f"the server states that it speaks FHIR {capability.fhir_version}, but chartferry reads R4: what that version writes "
            "in another way may be missing from charts and tables; use the base URL of the EHR's R4 endpoint"
        )
    if capability.unread:
        notes.append(
            f"the server's CapabilityStatement has {how_many(capability.unread, 'part')} that could not be read: types that only "
            "these declare are not requested, unless the connection names them"
        )
    return Declared(capability, "; ".join(notes))
