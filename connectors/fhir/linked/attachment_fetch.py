"""Fetches one attachment by its URL and returns the result: a document, nothing, or a refusal.

`attachments` decides what to request. Vendors differ in the Accept that they need and in their answers, so the answer's own
Content-Type decides what it is: an OperationOutcome is not a document (vendor-facts 1.5, 2.8).
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import unquote

from yarl import URL

from connectors.core.pipeline import Emit, Fetched
from connectors.documents.reading import DocumentReader
from connectors.fhir.base64_content import base64_content
from connectors.fhir.endings import ending_of, says_not_found
from connectors.fhir.errors import (
    BudgetExhaustedError,
    ProtocolError,
    TerminalFetchError,
    TransientFetchError,
    UnsafeLinkError,
)
from connectors.fhir.json_answers import object_from
from connectors.fhir.outcomes import UnreadableOutcomeError, outcome_from
from connectors.fhir.refused_types import RefusedTypes
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.links import origin
from connectors.fhir.transport.retry_table import TryResult, is_html, issue_codes
from connectors.fhir.unit_details import AttachmentDetail
from snapshots.referred import Document
from snapshots.unit import Ending, Unit, UnitResult, UnitState

FHIR_JSON = "application/fhir+json"
NO_MEDIA_TYPE = "its content type is not a media type"
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,127}"
_NAME = r"[0-9A-Za-z][!#$&^_.+0-9A-Za-z-]{0,126}"  # RFC 6838, 4.2: so that "*/*" is none
# RFC 9110, 8.3.1: what a resource says goes out as Accept only if it is a media type
_MEDIA_TYPE = re.compile(
    rf"{_NAME}/{_NAME}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|\"[\x20\x21\x23-\x5b\x5d-\x7e]{{0,127}}\")){{0,8}}"
)
_OUTCOME_BEGINS = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"resourceType"\s*:\s*"OperationOutcome"')
_XML_ROOT = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}\?>)?\s*(?:<!--.{0,2000}?-->\s*)?<(?:[\w.-]{1,40}:)?(OperationOutcome|Binary)[\s/>]",
    re.DOTALL,
)
_XML_CODE = re.compile(rb"<(?:[\w.-]{1,40}:)?code\s+value=[\"']([A-Za-z0-9-]{1,40})[\"']")
_CLIMBS = re.compile(r"(?i)(?:^|/)(?:\.|%2e){2}(?:/|$)")  # `Binary/../../admin` is no document of this base
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEMPLATE = "GET /Binary/{id}"
_TRIES = 3  # of a body that breaks off; the client has its own for everything before
_BINARY = "Binary"
_NOT_ACCEPTABLE = 406


class _TooLargeError(Exception):
    """More bytes than the policy allows."""


class AttachmentFetcher:
    """Fetches attachment units of one connection."""

    def __init__(self, client: EhrClient, reader: DocumentReader) -> None:
        self._client = client
        self._profile = client.profile
        self._reader = reader
        self._refused_types = RefusedTypes()
        self._paused = False

    async def fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Emit the result of one attachment.

        Raises:
            RequestError: the unit is a hole.
            UnsafeLinkError: the URL, or a redirect from it, leads where no request may go.
        """
        place = (unit.resource_type, unit.ids[0], AttachmentDetail.of(unit).place)
        if self._paused:
            reason = "the server postpones documents to another day"
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason, ending=Ending.PAUSED)
        try:
            document = await self._document(unit, place)
        except _TooLargeError:
            document = Document(*place, "too-large")
        except TerminalFetchError as error:
            document = Document(*place, *self._refused(unit, error))
        size = len(document.content or b"") + len(document.text or "")
        await emit(Fetched(documents=[document], size=size))
        return UnitResult(key=unit.key, state=UnitState.SETTLED, reason=document.note)

    async def _document(self, unit: Unit, place: tuple[str, str, int]) -> Document:
        if self._refused_types.passes_over(_BINARY):
            return Document(*place, "restricted")
        use = AttachmentDetail.of(unit)
        claimed = media_type_of(use.content_type)
        try:
            content, content_type = await self._get(unit, claimed or FHIR_JSON)
        except TerminalFetchError as error:
            if error.status != _NOT_ACCEPTABLE or claimed is None:
                raise
            content, content_type = await self._get(unit, FHIR_JSON)
        self._refused_types.let_through(_BINARY)
        if not content:
            return Document(*place, "empty")
        text, unread = await self._reader.read(content, content_type)
        doubt = doubts(content, use.size, use.hash)
        odd = NO_MEDIA_TYPE if use.content_type is not None and claimed is None else None
        note = "; ".join(filter(None, (doubt, odd))) or None
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
        if _is_web_page(body, label, accept):
            raise TransientFetchError(f"{_TEMPLATE}: a web page came instead of the document.", status=200)
        root = _XML_ROOT.match(body[:4096])
        if root is not None and root[1] == b"OperationOutcome":
            codes = tuple(code.decode() for code in _XML_CODE.findall(body[:65536])[:8])
            raise TerminalFetchError(f"{_TEMPLATE}: an OperationOutcome came instead of the document.", codes=codes)
        if root is not None and label.endswith("fhir+xml"):
            wrapped = _binary_of_xml(body)
            if "data" not in wrapped:  # Epic, asked for another type than the document's: ask for the resource instead
                raise TerminalFetchError(f"{_TEMPLATE}: a Binary without its data came.", status=_NOT_ACCEPTABLE)
            return self._unwrapped(wrapped, accept)
        # a resource says what it is, whatever its label says
        if label.endswith("json") or (body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and b"OperationOutcome" in body):
            found = object_from(body)
            if found.get("resourceType") == "Binary" and label.endswith("json"):
                return self._unwrapped(found, accept)
            if _is_outcome(body, found):
                raise TerminalFetchError(
                    f"{_TEMPLATE}: an OperationOutcome came instead of the document.", codes=issue_codes(body)
                )
        return body, media_type or accept

    async def _body(self, unit: Unit, accept: str) -> tuple[bytes, str]:
        url = self._client.base.safe(AttachmentDetail.of(unit).url)
        place = place_of(url, self._client.base)
        own = place == "below" or (place == "beside" and self._profile.attachments.same_origin)
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
            launch=unit.of_chart if self._profile.login.token_per_patient else None,
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
            content = base64_content(str(data))
        except ValueError:
            raise ProtocolError(f"{_TEMPLATE}: the Binary's data is not base64.") from None
        if len(content) > self._profile.attachments.max_bytes:
            raise _TooLargeError
        requested = "application/octet-stream" if accept == FHIR_JSON else accept
        return content, content_type if isinstance(content_type, str) else requested

    def _refused(self, unit: Unit, error: TerminalFetchError) -> tuple[str, str | None]:
        """Return the state of an attachment that finally did not come."""
        ending = ending_of(error, self._profile.answers.issue_codes, what="read")
        if ending is Ending.PAUSED:
            self._paused = True
            raise error
        if ending is Ending.RESTRICTED:
            self._refused_types.refuse(_BINARY, unit.key)
            return "restricted", None
        # a page of somebody else's below the FHIR base may be a gateway's; beside it, documents have a server of their own
        own = place_of(AttachmentDetail.of(unit).url, self._client.base) != "below"
        if ending in {Ending.NOT_FOUND, Ending.GONE} or "not-found" in error.codes or (own and says_not_found(error)):
            return "missing", None
        raise error


def media_type_of(claimed: str | None) -> str | None:
    """The media type that a resource states for its document; None if it states none that is valid (RFC 9110, 8.3.1)."""
    stripped = (claimed or "").strip()
    return stripped if _MEDIA_TYPE.fullmatch(stripped) else None


Place = Literal["below", "beside", "elsewhere", "nowhere"]


def place_of(link: str, base: FhirBase) -> Place:
    """Where a document's URL leads: below the FHIR base, beside it on the same origin, to another server, or to no document.

    A search or an operation below the base is no document. Neither is a path with dot segments, a URL with a fragment, or one
    that may not be requested.
    """
    try:
        url = base.safe(link)
    except UnsafeLinkError:
        return "nowhere"
    target = URL(url, encoded=True)
    plain = unquote(unquote(target.raw_path))  # servers behind gateways decode twice
    if _CLIMBS.search(link) or any(part in (".", "..") for part in re.split(r"[/\\]", plain)):
        return "nowhere"
    if origin(url) != origin(base.url):
        return "elsewhere"
    if is_below(url, base.url):
        return "below"
    inside = target.raw_path.startswith(URL(base.url, encoded=True).raw_path.rstrip("/") + "/")
    return "nowhere" if inside or target.fragment else "beside"


def is_below(url: str, base_url: str) -> bool:
    """Whether a URL lies below the FHIR base, so that the token may go there.

    Not all of the base's origin does: other tenants and other services have their paths there. No dot segments; a query only
    of a Binary (Cerner's `Binary/$autogen-ccd-if?patient=…`): any other would be a search or an operation.
    """
    if origin(url) != origin(base_url):
        return False
    target, base = URL(url, encoded=True), URL(base_url, encoded=True)
    path, start = target.raw_path, base.raw_path.rstrip("/") + "/"
    rest = path.removeprefix(start)
    if not path.startswith(start) or not rest or target.fragment:
        return False
    plain = unquote(unquote(rest))  # servers behind gateways decode twice
    if any(part in ("", ".", "..") for part in re.split(r"[/\\]", plain)):
        return False
    return not target.raw_query_string or rest.startswith("Binary/")


def _is_web_page(body: bytes, label: str, accept: str) -> bool:
    """Whether a login page or a firewall's answer came where a document of another kind was requested (F1)."""
    requested = accept.partition(";")[0].strip().lower()
    if requested in _HTML:
        return False
    if label in _HTML:
        return True
    as_labelled = label == requested and (requested.startswith("text/") or requested.endswith("xml"))
    return not as_labelled and is_html(TryResult(media_type=label, body_start=body[:2048]))


def _binary_of_xml(body: bytes) -> dict[str, Any]:
    """A Binary in XML, as it would be in JSON."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True)
    try:
        root = etree.fromstring(body, parser=parser)
    except etree.XMLSyntaxError:
        root = None
    if root is None:
        raise ProtocolError(f"{_TEMPLATE}: the Binary is not well-formed XML.")
    return {
        etree.QName(child).localname: child.get("value")
        for child in root.iterchildren("{*}contentType", "{*}data")
        if child.get("value") is not None
    }


def _is_outcome(body: bytes, found: Mapping[str, Any]) -> bool:
    """Whether it is an OperationOutcome, one that cannot be read to its end too, or a Bundle of nothing else."""
    if found.get("resourceType") == "OperationOutcome" or (not found and _OUTCOME_BEGINS.match(body[:4096])):
        return True
    try:
        return b"OperationOutcome" in body and bool(outcome_from(body).issues)
    except UnreadableOutcomeError:
        return False


def doubts(content: bytes, size: int | None, claimed_hash: str | None) -> str | None:
    """What does not fit the attachment's own description: its size in bytes, its SHA-1 (R4, Attachment.hash; hex is seen too)."""
    digest = hashlib.sha1(content, usedforsecurity=False)
    wrong = []
    if size is not None and size != len(content):
        wrong.append("size")
    if claimed_hash and claimed_hash.strip() not in (b64encode(digest.digest()).decode(), digest.hexdigest()):
        wrong.append("hash")
    differs = "differs" if len(wrong) == 1 else "differ"
    return f"its {' and '.join(wrong)} {differs} from what the resource says" if wrong else None
