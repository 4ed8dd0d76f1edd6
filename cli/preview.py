"""The plan of one connection, and the client that stops before the first kick-off.

`plan_preview` runs the use case to get there; `plan_report` prints the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from connectors.fhir.transport.call import Call, Reply
from connectors.fhir.transport.client import EhrClient
from snapshots.peek import OpenRunFound


@dataclass(kw_only=True)
class Preview:
    """What a run would request. `units` counts a crawl's searches by type; only the server knows the units of a bulk export."""

    connection: str
    mode: str = "crawl"
    request: str | None = None  # the bulk kick-off, as template
    types: tuple[str, ...] = ()
    since: Mapping[str, str] = field(default_factory=dict)  # type, or "*" for an export -> start instant
    patients: int | None = 0  # None: the source knows no patients
    units: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str | None = None
    open_run: OpenRunFound | None = None  # of an earlier sync, and what the next one does with it


class KickOffReachedError(Exception):
    """The plan is a bulk export, and the run has reached its kick-off."""

    def __init__(self, call: Call) -> None:
        super().__init__(call.template)
        self.template = call.template
        parameters = parse_qs(urlsplit(call.url).query)
        if call.body is not None:
            for each in orjson.loads(call.body)["parameter"]:
                value = next((text for key, text in each.items() if key.startswith("value")), "")
                parameters.setdefault(each["name"], []).append(str(value))
        self.types = tuple(",".join(parameters.get("_type", [])).split(","))
        self.since = next(iter(parameters.get("_since", [])), None)


class PreviewClient:
    """An EhrClient that stops before a kick-off; it sends everything else."""

    def __init__(self, client: EhrClient) -> None:
        self._client = client

    async def send(self, call: Call) -> Reply:
        """Send what planning needs; raise KickOffReachedError instead of a kick-off."""
        if call.purpose == "kickoff":
            raise KickOffReachedError(call)
        return await self._client.send(call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)
