"""Fetches one attachment by its URL and says what came of it: a document, none, or no right to it.

`attachments` decides what is asked for. Vendors differ in what they want as Accept and in what they answer, so the answer is
judged by its own Content-Type: an OperationOutcome is not a document (vendors.md 1.5, 2.8).
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from typing import Any

import orjson

from connectors.documents.reading import DocumentReader
from connectors.errors import BudgetExhaustedError, ProtocolError, TerminalFetchError, TransientFetchError
from connectors.fhir import Issue, grade
from connectors.pipeline import Emit, Fetched
from connectors.profile import VendorProfile
from connectors.transport.call import Call
from connectors.transport.client import EhrClient
from connectors.transport.links import origin, safe_url
from connectors.transport.retry_table import issue_codes
from snapshots.record import Document, Unit, UnitResult, UnitState

FHIR_JSON = "application/fhir+json"
_TEMPLATE = "GET /Binary/{id}"
_TRIES = 3  # of a body that breaks off; the client has its own for everything before
_REFUSALS = 3  # before any document came: Binary is closed to this client, and asked no more
_FORBIDDEN, _NOT_FOUND, _NOT_ACCEPTABLE, _GONE = 403, 404, 406, 410


class _TooLargeError(Exception):
    """More bytes than the policy allows."""


class AttachmentFetcher:
    """Fetches attachment units of one connection."""

    def __init__(self, client: EhrClient, base_url: str, profile: VendorProfile, reader: DocumentReader) -> None:
        self._client = client
        self._base_url = base_url
        self._profile = profile
        self._reader = reader
        self._came = False
        self._refusals = 0
        self._paused = False

    async def fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Emit what became of one attachment.

        Raises:
            FetchError: the unit is a hole.
            UnsafeLinkError: the URL, or a redirect from it, leads where nothing may be asked.
        """
        place = (unit.resource_type, unit.detail["id"], unit.detail["place"])
        if self._paused:
            return UnitResult(
                key=unit.key, state=UnitState.FAILED, reason="the server puts documents off to another day"
            )
        try:
            document = await self._document(unit, place)
        except _TooLargeError:
            document = Document(*place, "too-large")
        except TerminalFetchError as error:
            document = Document(*place, *self._refused(error))
        size = len(document.content or b"") + len(document.text or "")
        await emit(Fetched(documents=[document], size=size))
        return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=document.note)

    async def _document(self, unit: Unit, place: tuple[str, str, int]) -> Document:
        if self._refusals >= _REFUSALS and not self._came:
            return Document(*place, "restricted")
        claimed = unit.detail["content_type"]
        try:
            content, content_type = await self._get(unit, claimed or FHIR_JSON)
        except TerminalFetchError as error:
            if error.status != _NOT_ACCEPTABLE or claimed is None:
                raise
            content, content_type = await self._get(unit, FHIR_JSON)
        self._came = True
        if not content:
            return Document(*place, "empty")
        text, unread = await self._reader.read(content, content_type)
        note = doubts(content, unit.detail["size"], unit.detail["hash"])
        return Document(*place, "stored", note, content, content_type, text, unread)

    async def _get(self, unit: Unit, accept: str) -> tuple[bytes, str]:
        """The document and its content type."""
        for number in range(1, _TRIES + 1):
            try:
                body, media_type = await self._body(unit, accept)
                break
            except BudgetExhaustedError:
                raise
            except TransientFetchError as error:
                if number == _TRIES or error.status is not None:
                    raise
        label = media_type.partition(";")[0].strip().lower()
        if label == "text/html" and not accept.lower().startswith(("text/html", "application/xhtml")):
            raise TransientFetchError(f"{_TEMPLATE}: a web page came in place of the document.", status=200)
        if label.endswith("json"):
            found = _loaded(body)
            if found.get("resourceType") == "Binary":
                return self._unwrapped(found, accept)
            if found.get("resourceType") == "OperationOutcome":
                raise TerminalFetchError(
                    f"{_TEMPLATE}: an OperationOutcome came in place of the document.", codes=issue_codes(body)
                )
        return body, media_type or accept

    async def _body(self, unit: Unit, accept: str) -> tuple[bytes, str]:
        url = safe_url(unit.detail["url"], self._base_url)
        own = origin(url) == origin(self._base_url)
        most = self._profile.attachments.max_bytes
        if accept == FHIR_JSON:
            most = most * 4 // 3 + 4096  # base64, and the JSON around it
        call = Call(
            method="GET",
            url=url,
            template=_TEMPLATE,
            purpose="read" if own else "file",
            accept=accept,
            auth=own,
            launch=unit.detail["patient"] if self._profile.token_per_patient else None,
        )
        pieces: list[bytes] = []
        size = 0
        async with self._client.stream(call) as reply:
            async for chunk in reply.chunks:
                size += len(chunk)
                if size > most:
                    raise _TooLargeError
                pieces.append(chunk)
            return b"".join(pieces), reply.headers.get("content-type", "")

    def _unwrapped(self, binary: dict[str, Any], accept: str) -> tuple[bytes, str]:
        data, content_type = binary.get("data", ""), binary.get("contentType")
        try:
            content = b64decode("".join(str(data).split()), validate=True)
        except (binascii.Error, ValueError):
            raise ProtocolError(f"{_TEMPLATE}: the Binary's data is not base64.") from None
        if len(content) > self._profile.attachments.max_bytes:
            raise _TooLargeError
        asked = "application/octet-stream" if accept == FHIR_JSON else accept
        return content, content_type if isinstance(content_type, str) else asked

    def _refused(self, error: TerminalFetchError) -> tuple[str, str | None]:
        """The state of an attachment that did not come for good."""
        meaning = grade((Issue("note", code, ()) for code in error.codes), self._profile.issue_codes)
        if meaning == "pause":
            self._paused = True
            raise error
        if error.status == _FORBIDDEN or meaning == "restricted":
            self._refusals += 1
            return "restricted", None
        if error.status in (_NOT_FOUND, _GONE) or meaning in ("missing", "gone") or "not-found" in error.codes:
            return "missing", None
        raise error


def _loaded(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def doubts(content: bytes, size: int | None, claimed_hash: str | None) -> str | None:
    """What does not fit the attachment's own description: its size in bytes, its SHA-1 (R4, Attachment.hash; hex is seen too)."""
    digest = hashlib.sha1(content, usedforsecurity=False)
    wrong = []
    if size is not None and size != len(content):
        wrong.append("size")
    if claimed_hash and claimed_hash.strip() not in (b64encode(digest.digest()).decode(), digest.hexdigest()):
        wrong.append("hash")
    return f"its {' and '.join(wrong)} differ from what the resource says" if wrong else None
