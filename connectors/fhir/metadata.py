"""Asks a server what it offers: GET /metadata, which needs no token.

If a server does not answer, the vendor's profile alone decides. `capability` reads the answer, `plan` weighs the two.
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


async def capability_of(client: EhrClient) -> Capability:
    """Request the CapabilityStatement, once.

    Raises:
        FetchError: it did not come.
        UnreadableJsonError: it is not JSON.
    """
    url = f"{client.base.url}/metadata"
    call = Call(method="GET", url=url, template="GET /metadata", purpose="discovery", auth=False)
    return capability_from(json_from((await client.send(call)).body))


async def declared(client: EhrClient) -> Declared:
    """Return what the CapabilityStatement declares, or why nothing does.

    Raises:
        FetchError: no trusted server answers, or the EHR counts as down: then nothing else would be answered either.
    """
    try:
        capability = await capability_of(client)
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
