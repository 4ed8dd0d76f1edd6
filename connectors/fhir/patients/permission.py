"""Whether something that was withheld from this client, or a Patient who was gone, can be read again.

`bulk.export_since` asks before news are exported: what was added while rows were withheld comes only with a full export.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec

from connectors.core.errors import FetchError
from connectors.fhir.transport.client import EhrClient
from snapshots.witness import AbsentRow

MOST_READS = 50  # a run; others are read in later runs


class _Key(msgspec.Struct):
    resourceType: Any = None  # noqa: N815  FHIR's name
    id: Any = None


_KEY = msgspec.json.Decoder(_Key)


async def any_readable(client: EhrClient, rows: Iterable[AbsentRow]) -> bool:
    """Read rows one by one, until one can be read. An error of any kind is no permission.

    Raises:
        AuthError: there is no login.
    """
    for row in rows:
        path = f"{row.resource_type}/{quote(row.id, safe='')}"
        call = client.fhir_call(path, f"GET /{row.resource_type}/{{id}}", patient=row.patient_id)
        try:
            answer = _KEY.decode((await client.send(call)).body)
        except (FetchError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        if (answer.resourceType, answer.id) == (row.resource_type, row.id):  # a redirect leads to another Patient
            return True
    return False
