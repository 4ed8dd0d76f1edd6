"""Finds out which patients a crawl is for: a list of ids, MRNs to look up, a Group's members, or everyone the server lists.

Reading a cohort file is pure (`parse_cohort`); looking things up asks the EHR. What could not be found is reported by
number, never by name: a cohort's values are PHI.
"""

from __future__ import annotations

import csv
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import anyio
import orjson

from connectors.crawl.paging import LoopGuard, follow
from connectors.errors import PlanError, ProtocolError, TerminalFetchError
from connectors.fhir import NotABundleError, Page, page_from
from connectors.profile import VendorProfile
from connectors.transport.call import Call
from connectors.transport.client import EhrClient

_HEADINGS = frozenset({"id", "patient", "patient_id", "patientid", "fhir_id", "mrn", "identifier", "icn"})
_MEMBER = re.compile(r"(?:^|/)Patient/([^/?#]+)(?:/_history/[^/]+)?\Z")


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The patients of a crawl, in order, each once; and what to tell the operator about the rest."""

    patients: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unresolved: int = 0  # values that named no patient, or several


def parse_cohort(text: str) -> tuple[str, ...]:
    """The first column of a CSV or plain list: blank lines, `#` comments and a heading are skipped, repeats dropped."""
    values: dict[str, None] = {}
    rows = csv.reader(
        line for line in text.lstrip("\ufeff").splitlines() if line.strip() and not line.lstrip().startswith("#")
    )
    for number, row in enumerate(rows):
        value = row[0].strip() if row else ""
        if not value or (number == 0 and value.lower() in _HEADINGS):
            continue
        values[value.removeprefix("Patient/")] = None
    return tuple(values)


class CohortFinder:
    """Asks one EHR which patients a crawl is for."""

    def __init__(self, client: EhrClient, base_url: str, profile: VendorProfile) -> None:
        self._client = client
        self._base_url = base_url
        self._profile = profile

    async def by_identifier(self, system: str, values: Sequence[str]) -> Cohort:
        """Look up MRNs by `identifier=system|value`, one search each (Epic takes no list), concurrently under the limits."""
        found: dict[int, list[str]] = {}

        async def look_up(number: int, value: str) -> None:
            query = f"Patient?identifier={quote(f'{system}|{value}', safe='')}"
            try:
                pages = [page async for page in self._pages(query, "GET /Patient?identifier=…")]
            except TerminalFetchError:
                pages = []
            found[number] = [r.id for page in pages for r in page.records if r.resource_type == "Patient"]

        limit = anyio.CapacityLimiter(self._profile.max_concurrency)

        async def limited(number: int, value: str) -> None:
            async with limit:
                await look_up(number, value)

        async with anyio.create_task_group() as tasks:
            for number, value in enumerate(values):
                tasks.start_soon(limited, number, value)
        patients = tuple(dict.fromkeys(found[n][0] for n in range(len(values)) if len(found[n]) == 1))
        missing = [str(n + 1) for n in range(len(values)) if not found[n]]
        several = [str(n + 1) for n in range(len(values)) if len(found[n]) > 1]
        notes = [
            f"cohort entries {what}: {_some(which)}"
            for what, which in (("not found", missing), ("found twice", several))
            if which
        ]
        return Cohort(patients=patients, notes=tuple(notes), unresolved=len(missing) + len(several))

    async def of_group(self, group: str) -> Cohort:
        """Read a Group's members.

        Raises:
            PlanError: the server does not let this client read the Group; the message says what to do instead.
        """
        call = self._call(f"{self._base_url}/Group/{quote(group, safe='')}", "GET /Group/{group}", "read")
        try:
            reply = await self._client.send(call)
        except TerminalFetchError as error:
            raise PlanError(
                f'Reading the Group\'s members failed with HTTP {error.status}: name patients with `cohort = "file:…"` instead.'
            ) from error
        try:
            members = orjson.loads(reply.body).get("member", [])
            references = [member["entity"]["reference"] for member in members if not member.get("inactive", False)]
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            raise ProtocolError("GET /Group/{group} gave something that is not a Group with members.") from None
        return Cohort(patients=tuple(dict.fromkeys(m[1] for m in map(_MEMBER.search, references) if m)))

    def everyone(self) -> AsyncIterator[Page]:
        """List every patient of a server that lists them; the pages hold whole Patients, so they need not be read again."""
        size = self._profile.page_size
        return self._pages(f"Patient?_count={size}" if size else "Patient", "GET /Patient")

    async def _pages(self, query: str, template: str) -> AsyncIterator[Page]:
        url: str | None = f"{self._base_url}/{query}"
        guard = LoopGuard(self._profile.max_pages)
        number = 0
        while url is not None:
            guard.check(url)
            number += 1
            reply = await self._client.send(self._call(url, template, "search"))
            try:
                page = page_from(reply.body, where=f"page {number} of {template}")
            except NotABundleError as error:
                raise ProtocolError(f"{template}, page {number}: {error}.", status=reply.status) from None
            yield page
            url = follow(self._base_url, reply.url, page.next_url) if page.next_url else None

    def _call(self, url: str, template: str, purpose: str) -> Call:
        return Call(
            method="GET",
            url=url,
            template=template,
            purpose=purpose,  # type: ignore[arg-type] # one of the client's purposes, by the two callers above
            accept=self._profile.accept,
        )


def _some(numbers: Sequence[str]) -> str:
    shown = 20
    rest = f" and {len(numbers) - shown} more" if len(numbers) > shown else ""
    return f"number {', '.join(numbers[:shown])}{rest}"
