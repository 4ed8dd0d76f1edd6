"""The manifest of a bulk export and its files: pages, links that expire, redirects to the object store, byte ranges.

Files are compressed once and kept, so that serving 100 MB again costs nothing. `bulk_export` decides what they contain.
"""

from __future__ import annotations

import base64
import secrets
from hashlib import blake2b
from typing import Any

from isal import igzip
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from mocks.answers import Refused, json_answer
from mocks.ehr import STORE_PATH, BulkFile, Ehr, Job
from mocks.manners.manner import fhir_refusal
from mocks.oauth import authenticate, may
from mocks.search import served

_CHUNK = 256 * 1024
_KEPT_FILES = 512
_GZIP_LEVEL = 1
_LEASE_S = 2  # a link that is not fetched for this long no longer counts as a parallel download
_STU4 = 4


class _FileBytes(Response):
    """Sends bytes in large chunks, so that with a slow reader they do not all fill the socket's buffer."""

    def __init__(self, content: bytes, headers: dict[str, str], media_type: str, status: int = 200) -> None:
        super().__init__(content, status, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = bytes(self.body)
        for start in range(0, max(len(body), 1), _CHUNK):
            more = start + _CHUNK < len(body)
            await send({"type": "http.response.body", "body": body[start : start + _CHUNK], "more_body": more})


def manifest(ehr: Ehr, job: Job, number: int, pages: int) -> dict[str, Any]:
    """Write page `number` of those that are ready; error and deleted are on the last page."""
    step = ehr.config.files_per_manifest or len(job.files) or 1
    last = number * step >= len(job.files)
    found: dict[str, Any] = {
        "transactionTime": job.transaction_time,
        "request": job.request,
        "requiresAccessToken": False
        if ehr.config.open or ehr.manner.files_in_store
        else ehr.manner.requires_token_flag,
        "output": [_listed(ehr, job, file) for file in job.files[(number - 1) * step : number * step]],
        "outcome" if ehr.config.bulk_version == _STU4 else "error": [
            _listed(ehr, job, file) for file in job.errors if last
        ],
    }
    if job.deleted and last:
        found["deleted"] = [_listed(ehr, job, file) for file in job.deleted]
    if job.organized_by is not None:
        found["outputOrganizedBy"] = job.organized_by
    if number < pages:
        found["link"] = [{"relation": "next", "url": page_url(ehr, job, number + 1)}]
    return found


def page_url(ehr: Ehr, job: Job, number: int) -> str:
    """Return the URL of a page of the manifest; the first is the status URL."""
    url = ehr.origin + ehr.layout.status.format(job=job.id)
    return url if number == 1 else f"{url}{'&' if '?' in url else '?'}page={number}"


def _listed(ehr: Ehr, job: Job, file: BulkFile) -> dict[str, Any]:
    url = ehr.origin + ehr.layout.file.format(job=job.id, file=file.id)
    if ehr.manner.files_in_store:
        url = _sign(ehr, file)
    elif ehr.config.manifest_life_s is not None:
        key = secrets.token_hex(8)
        ehr.links[key] = ehr.now() + ehr.config.manifest_life_s
        url += f"?link={key}"
    count = {"count": len(file.rows)} if ehr.manner.bulk_counts and job.organized_by is None else {}
    typed = {"type": file.type} if file.type else {}
    continued = (
        {"continuesInFile": ehr.origin + ehr.layout.file.format(job=job.id, file=file.next_id)} if file.next_id else {}
    )
    return {**typed, "url": url, **count, **continued}


async def file(request: Request) -> Response:
    """Answer a file: its bytes, or a redirect to the object store."""
    ehr: Ehr = request.app.state.ehr
    grant = authenticate(request)
    job, found = ehr.files.get(request.path_params["file"], (None, None))
    if job is None or found is None:
        raise Refused(ehr.manner.gone(), "no such file")
    if ehr.config.manifest_life_s is not None and ehr.now() > ehr.links.get(request.query_params.get("link", ""), 0):
        raise Refused(fhir_refusal(403, "expired", "The link has expired"), "expired link")
    if job.client_id != (grant.client_id if grant else None):
        raise Refused((ehr.manner.file_of_another or ehr.manner.gone)(), "another client's file")
    if ehr.manner.bulk_types_by_scope and found.type != "OperationOutcome" and not may(ehr, grant, found.type, "r"):
        raise Refused(ehr.manner.forbidden(ehr.manner.scope_refusal_text), "scope of a file")
    limit = ehr.config.max_parallel_files if ehr.manner.file_redirect else None
    if limit is not None and _downloads(ehr) >= limit:
        raise Refused(ehr.manner.throttled(), "parallel downloads")
    if ehr.manner.file_redirect and not ehr.config.open:
        return RedirectResponse(_sign(ehr, found), 307)
    return _send(request, ehr, found)


def _downloads(ehr: Ehr) -> int:
    now = ehr.now()
    for key in [key for key, at in ehr.leases.items() if now - at > _LEASE_S]:
        ehr.leases.pop(key, None)
    return len(ehr.leases) + ehr.log.running_by_purpose["object"]


def _sign(ehr: Ehr, found: BulkFile) -> str:
    """Make a pre-signed link; its query must come back byte for byte."""
    key = secrets.token_hex(12)
    signature = f"{secrets.token_hex(16)}%2B%3D"
    query = f"X-Amz-Credential=AKIAMOCK%2Fs3&X-Amz-Expires={ehr.config.link_life_s:.0f}&X-Amz-Signature={signature}"
    ehr.signed[key] = (found, ehr.now() + ehr.config.link_life_s, query)
    ehr.leases[key] = ehr.now()
    return f"{ehr.store_origin}{STORE_PATH}{key}?{query}"


def _s3_refusal(status_code: int, code: str) -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'
    return Response(body, status_code, media_type="application/xml")


async def stored_object(request: Request) -> Response:
    """Answer as an object store: refuse an Authorization header beside a signature, an expired link, a re-encoded link."""
    ehr: Ehr = request.app.state.ehr
    entry = ehr.signed.get(request.path_params["key"])
    if "authorization" in request.headers:
        return _s3_refusal(400, "InvalidArgument")
    if entry is None:
        return _s3_refusal(404, "NoSuchKey")
    found, ends, query = entry
    if request.scope["query_string"].decode("latin-1") != query:
        return _s3_refusal(403, "SignatureDoesNotMatch")
    if ehr.now() > ends:
        return _s3_refusal(403, "AccessDenied")
    return _send(request, ehr, found)


def _send(request: Request, ehr: Ehr, found: BulkFile) -> Response:
    media = "application/fhir+ndjson"
    ehr.leases.pop(request.path_params.get("key", ""), None)
    if ehr.manner.wraps_files and "ndjson" not in request.headers.get("accept", ""):
        data = base64.b64encode(_lines(ehr, found)).decode()
        return json_answer({"resourceType": "Binary", "id": found.id, "contentType": media, "data": data})
    packed = "gzip" in request.headers.get("accept-encoding", "") and not ehr.config.plain_files
    content = _compressed(ehr, found) if packed else _lines(ehr, found)
    headers = {"Content-Encoding": "gzip"} if packed else {}
    return _ranged(request, content, headers, media) if ehr.config.ranges else _FileBytes(content, headers, media)


def _ranged(request: Request, content: bytes, headers: dict[str, str], media: str) -> Response:
    """Answer a Range of one open interval whose If-Range matches with the rest of the file (RFC 9110, 13.1.5 and 14)."""
    tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    headers |= {"Accept-Ranges": "bytes", "ETag": tag}
    range_ = request.headers.get("range", "")
    if not range_.startswith("bytes=") or not range_.endswith("-") or request.headers.get("if-range", tag) != tag:
        return _FileBytes(content, headers, media)
    start = int(range_.removeprefix("bytes=").removesuffix("-"))
    if start >= len(content):
        return Response(b"", 416, {"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return _FileBytes(content[start:], headers, media, 206)


def _lines(ehr: Ehr, found: BulkFile) -> bytes:
    return b"".join(served(ehr, row) + b"\n" for row in found.rows)


def _compressed(ehr: Ehr, found: BulkFile) -> bytes:
    ready = ehr.file_bytes.get(found.key)
    if ready is None:
        ready = igzip.compress(_lines(ehr, found), _GZIP_LEVEL)
        ehr.file_bytes[found.key] = ready
        while len(ehr.file_bytes) > _KEPT_FILES:
            ehr.file_bytes.popitem(last=False)
    return ready
