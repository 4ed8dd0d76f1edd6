"""Fetches the documents that DocumentReferences and DiagnosticReports have attached, and reads their text.

`attachment_finder` noted the attachments while the resources passed by, and the store knows which of them are due.
`attachment_fetch` judges one answer, `documents` reads text. A document is kept whole even if no text can be read from it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from urllib.parse import unquote_to_bytes

from connectors.core.drain import fetch_pending
from connectors.documents.reading import DocumentReader
from connectors.fhir.base64_content import base64_content
from connectors.fhir.linked.attachment_fetch import NO_MEDIA_TYPE, AttachmentFetcher, doubts, media_type_of, place_of
from connectors.fhir.linked.attachment_finder import PATHS
from connectors.fhir.profile import VendorProfile
from connectors.fhir.run import EhrRun, Readable
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.unit_details import AttachmentDetail
from snapshots.record import Batch
from snapshots.referred import AttachmentUse, Document
from snapshots.unit import Unit, UnitKind, unit_key

_DUE_AT_ONCE = 2_000
_WORKERS = 4  # documents in memory: that many, and those on their way to the store
_INLINE_CHARACTERS = 16_000_000  # of base64 in memory at once
_ELSEWHERE = "on other servers, not requested without attachments.foreign"
_BESIDE = "on the EHR's own origin but outside base_url, not requested without attachments.same_origin"
_NOWHERE = "their URL is not a document's: a search, an operation, dot segments, a fragment, or a forbidden URL"


async def fetch_attachments(run: EhrRun, readable: Readable) -> None:
    """Fetch, read and store what is attached to this run's resources and is not stored yet.

    An attachment that fails is a hole, and raises nothing; what is not there, restricted or unwanted is noted.
    """
    profile = run.request.profile
    if not profile.attachments.fetch:
        return
    run.show("fetching attachments")
    reader = DocumentReader()
    await _read_inline(run, reader)
    if readable("Binary"):
        await _fetch_by_url(run, reader)
    elif await run.store.attachments.due(fresh=timedelta(0), limit=1, leftovers=False):
        run.notes.append("attachments: Binary is not granted by the token's scopes, so none was fetched by URL")
    run.notes += _notes(await run.store.attachments.outcome())


async def _fetch_by_url(run: EhrRun, reader: DocumentReader) -> None:
    profile, attachments = run.request.profile, run.store.attachments
    fetcher = AttachmentFetcher(run.client, reader)
    await _ask_pending(run, fetcher)  # of a run that was killed
    fresh, leftovers = timedelta(days=profile.references.fresh_d), run.request.kind == "sync"
    while due := await attachments.due(fresh=fresh, limit=_DUE_AT_ONCE, leftovers=leftovers):
        decided, requested = [], []
        for use in due:
            if (use.url or "")[:5].lower() == "data:":
                decided.append(await _of_data_url(use, profile, reader))
                continue
            left = _decision(use, run.client.base, profile)
            if left is None:
                requested.append(use)
            else:
                decided.append(Document(use.resource_type, use.resource_id, use.place, *left))
        if decided:
            await run.store.write(Batch(documents=decided))
        if requested:
            await run.store.plan(map(_unit, requested))
            await attachments.note_requested(requested)
            await _ask_pending(run, fetcher)


async def _ask_pending(run: EhrRun, fetcher: AttachmentFetcher) -> None:
    workers = min(_WORKERS, run.request.profile.limits.max_concurrency)
    await fetch_pending(run, (UnitKind.ATTACHMENT,), fetcher.fetch, doing=None, workers=workers, let_in=lambda: True)


def _decision(use: AttachmentUse, base: FhirBase, profile: VendorProfile) -> tuple[str, str | None] | None:
    """The state of an attachment that is not requested, and why; None if it is requested."""
    policy = profile.attachments
    if not use.url:
        return "empty", None  # neither url nor data: half of what an Epic site sends, of outside records (F33)
    place = place_of(use.url, base)
    if place == "nowhere":
        return "foreign", _NOWHERE
    if place == "elsewhere" and not policy.foreign:
        return "foreign", _ELSEWHERE
    if place == "beside" and not (policy.foreign or policy.same_origin):
        return "foreign", _BESIDE
    if _is_left_out(use.content_type, policy.types):
        return "unwanted", None
    return ("too-large", None) if use.size is not None and use.size > policy.max_bytes else None


def _is_left_out(content_type: str | None, types: Sequence[str]) -> bool:
    """Whether a content type is one, and none of `types`: what is no media type says nothing, like none ("pdf", "ASCII Text")."""
    media_type = media_type_of((content_type or "").partition(";")[0])
    return media_type is not None and not wanted(media_type, types)


def wanted(content_type: str, types: Sequence[str]) -> bool:
    """Whether a content type is one of `types`; parameters and case do not count."""
    media_type = content_type.partition(";")[0].strip().lower()
    return any(fnmatchcase(media_type, one.lower()) for one in types)


def _unit(use: AttachmentUse) -> Unit:
    return Unit(
        key=unit_key("attachment", use.resource_type, use.resource_id, use.place),
        kind=UnitKind.ATTACHMENT,
        resource_type=use.resource_type,
        template="GET /Binary/{id}",
        ids=(use.resource_id,),
        of_chart=use.patient_id,
        detail=AttachmentDetail(
            place=use.place, url=use.url or "", content_type=use.content_type, size=use.size, hash=use.hash
        ).packed,
    )


async def _read_inline(run: EhrRun, reader: DocumentReader) -> None:
    """Documents that are contained in their resource: nothing is requested for them."""
    policy = run.request.profile.attachments
    most = policy.max_bytes * 4 // 3 + 4
    while found := await run.store.attachments.inline(
        PATHS, most=most, together=_INLINE_CHARACTERS, leftovers=run.request.kind == "sync"
    ):
        documents = [await _inline(use, data, run.request.profile, reader) for use, data in found]
        await run.store.write(Batch(documents=documents))


async def _inline(use: AttachmentUse, data: str | None, profile: VendorProfile, reader: DocumentReader) -> Document:
    place = (use.resource_type, use.resource_id, use.place)
    content_type = use.content_type or "application/octet-stream"
    if data is None:
        return Document(*place, "too-large")
    if _is_left_out(use.content_type, profile.attachments.types):
        return Document(*place, "unwanted")
    try:
        content = base64_content(data)
    except ValueError:
        return Document(*place, "missing", "its data is not base64")
    if not content:
        return Document(*place, "empty")
    text, unread = await reader.read(content, content_type)
    odd = NO_MEDIA_TYPE if use.content_type is not None and media_type_of(use.content_type) is None else None
    note = "; ".join(filter(None, (doubts(content, use.size, use.hash), odd))) or None
    return Document(*place, "stored", note, content, content_type, text, unread)


async def _of_data_url(use: AttachmentUse, profile: VendorProfile, reader: DocumentReader) -> Document:
    """A document that is contained in its own URL (RFC 2397): nothing is requested for it either."""
    head, comma, data = (use.url or "").partition(",")
    media_type, _, encoding = head[len("data:") :].rpartition(";")
    if encoding.strip().lower() != "base64":
        media_type, data = head[len("data:") :], b64encode(unquote_to_bytes(data)).decode()
    says_nothing = media_type_of(use.content_type) is None
    typed = use._replace(content_type=media_type_of(media_type) or "text/plain") if says_nothing else use
    if not comma:
        return Document(use.resource_type, use.resource_id, use.place, "missing", "its data is not base64")
    whole = len(data) <= profile.attachments.max_bytes * 4 // 3 + 4
    return await _inline(typed, unquote_to_bytes(data).decode("latin-1") if whole else None, profile, reader)


_WORDS = {
    "stored": "stored",
    "missing": "not there",
    "restricted": "restricted by the server for this client",
    "foreign": "not requested",
    "unwanted": "of types that profile.attachments leaves out",
    "too-large": "larger than profile.attachments.max_bytes",
    "empty": "without URL and content",
    "wanted": "not fetched",
}


def _notes(outcome: Sequence[tuple[str, str, int]]) -> list[str]:
    """One line whose numbers add up to all that this run wanted, or got for earlier ones; none where all of it is stored."""
    if all(state == "stored" and not note for state, note, _ in outcome):
        return []
    order = list(_WORDS)
    parts = [
        f"{count:,} {_WORDS[state]}{f' ({note})' if note else ''}"
        for state, note, count in sorted(outcome, key=lambda one: (order.index(one[0]), one[1]))
    ]
    return [f"attachments: {sum(count for *_, count in outcome):,} in all: {', '.join(parts)}"]
