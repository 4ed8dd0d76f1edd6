"""Bulk $export: kick-off, status, manifest, files and deletion, with each manner's strictness (vendors.md section 6).

A job holds the rows of its kick-off. Its files are compressed once and kept, so that serving 100 MB again costs nothing.
"""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import orjson
from isal import igzip
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from mocks.answers import Refused, empty_answer, issue, json_answer, outcome
from mocks.dataset import Row, instant, row_of
from mocks.ehr import STORE_PATH, BulkFile, Ehr, Grant, Job
from mocks.manners.manner import Kickoff, fhir_refusal, read_query
from mocks.matching import matches, updated_fits
from mocks.mock_config import BulkLevel
from mocks.oauth import authenticate, may
from mocks.search import negotiate, served

_CHUNK = 256 * 1024
_KEPT_FILES = 512
_GZIP_LEVEL = 1
_KEPT_S = 14 * 86_400  # as Epic (ET)
_LEASE_S = 2  # a link handed out and not fetched for so long no longer counts as a parallel download


class _FileBytes(Response):
    """Sends bytes in large chunks, so that a slow reader does not hold them all in the socket's buffer."""

    def __init__(self, content: bytes, headers: dict[str, str], media_type: str) -> None:
        super().__init__(content, 200, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = bytes(self.body)
        for start in range(0, max(len(body), 1), _CHUNK):
            more = start + _CHUNK < len(body)
            await send({"type": "http.response.body", "body": body[start : start + _CHUNK], "more_body": more})


# -- kick-off ---------------------------------------------------------------------------------------------------------


async def kickoff(request: Request) -> Response:
    """Answer $export at any level."""
    ehr: Ehr = request.app.state.ehr
    manner = ehr.manner
    level: BulkLevel = (
        "group" if "id" in request.path_params else "patient" if "kind" in request.path_params else "system"
    )
    if level not in ehr.bulk_levels or request.path_params.get("kind") not in (
        None,
        "Group" if level == "group" else "Patient",
    ):
        raise Refused(manner.unknown_path(), "no such export")
    grant = authenticate(request)
    negotiate(request, ehr)
    prefer = request.headers.get("prefer", "")
    if "respond-async" not in prefer:
        raise Refused(fhir_refusal(400, "invalid", "Prefer: respond-async is required"), "no respond-async")
    if "json" not in request.headers.get("accept", ""):
        raise Refused(fhir_refusal(406, "not-supported", "Accept must be application/fhir+json"), "Accept")
    group = None
    if level == "group":
        group = ehr.groups.get(request.path_params["id"])
        if group is None:
            raise Refused(manner.not_found(False), "unknown group")
    client = grant.client_id if grant else None
    _one_at_a_time(ehr, client, group)
    params = await _params(request)
    given = [kind for value in params.get("_type", ()) for kind in value.split(",") if kind]
    asked = Kickoff(level, params, tuple(given) if given else None, "handling=lenient" in prefer)
    manner.check_kickoff(asked)
    job = _begin(ehr, asked, group, grant, str(request.url))
    location = ehr.origin + ehr.layout.status.format(job=job.id)
    headers = {"Content-Location": location}
    if manner.kickoff_body:
        return json_answer({"ExportRequestID": job.id, "total": job.patients}, 202, headers, manner.content_type)
    return empty_answer(202, headers)


async def _params(request: Request) -> dict[str, tuple[str, ...]]:
    """Read the query of a GET, or the Parameters of a POST, into one shape."""
    params = read_query(request.scope["query_string"].decode("latin-1"))
    if request.method != "POST":
        return params
    try:
        body = orjson.loads(await request.body())
        for parameter in body.get("parameter", ()):
            value: Any = next((value for name, value in parameter.items() if name.startswith("value")), "")
            text = value.get("reference", "") if isinstance(value, dict) else str(value)
            params[parameter["name"]] = (*params.get(parameter["name"], ()), text)
    except (ValueError, AttributeError, KeyError) as exc:
        raise Refused(fhir_refusal(400, "structure", "The body is not a Parameters resource"), "bad body") from exc
    return params


def _one_at_a_time(ehr: Ehr, client: str | None, group: Row | None) -> None:
    group_id = group.id if group else None
    for job in ehr.jobs.values():
        running = not job.complete and ehr.now() - job.began_at < ehr.config.abandoned_job_s
        same = job.client_id == client and (ehr.manner.one_job == "client" or job.group == group_id)
        if ehr.manner.one_job is not None and running and same:
            raise Refused(
                ehr.manner.throttled() if ehr.manner.one_job == "client" else _too_recent(ehr), "a job is running"
            )
    last = ehr.kickoffs.get((client, group_id or ""))
    if ehr.manner.kickoff_window and last is not None and ehr.now() - last < ehr.config.kickoff_window_s:
        raise Refused(_too_recent(ehr), "kick-off within the window")


def _too_recent(ehr: Ehr) -> Response:
    text = "Request not allowed: The Client requested this Group too recently."  # ET, vendors.md 1.9
    return json_answer(outcome(issue("fatal", "business-rule", text)), ehr.config.kickoff_refusal_status)


def _begin(ehr: Ehr, asked: Kickoff, group: Row | None, grant: Grant | None, url: str) -> Job:
    patients = ehr.members(group) if group is not None else ehr.dataset.patient_ids
    named = [value.rpartition("/")[2] for value in asked.params.get("patient", ())]
    if named:
        if not set(named) <= set(patients):
            raise Refused(fhir_refusal(400, "not-found", "A patient is unknown or not a member"), "unknown patient")
        patients = [patient for patient in patients if patient in set(named)]
    job_id = secrets.token_hex(16).upper() if ehr.manner.kickoff_window else str(uuid.uuid4())
    client = grant.client_id if grant else None
    now = ehr.now()
    job = Job(job_id, client, group.id if group else None, url, ehr.instant(), now, len(patients), [])
    scope_key = (asked.level, tuple(patients) if named or group is not None else None)
    for kind in _export_types(ehr, asked, grant):
        rows = _rows(ehr, kind, asked, patients)
        step = ehr.config.rows_per_file
        for start in range(0, len(rows), step):
            key = (ehr.dataset.version, hash(scope_key), hash(str(sorted(asked.params.items()))), kind, start)
            job.files.append(BulkFile(secrets.token_hex(12), kind, rows[start : start + step], key))
    if ehr.config.error_file:
        job.errors.append(BulkFile(secrets.token_hex(12), "OperationOutcome", [_error_row()], ("error", job_id)))
    ehr.jobs[job_id] = job
    ehr.files.update({one.id: (job, one) for one in (*job.files, *job.errors)})
    ehr.kickoffs[client, job.group or ""] = now
    return job


def _error_row() -> Row:
    body = outcome(
        issue("warning", "suppressed", "59205: sub-resources were suppressed: the user is not authorized"), id="error-1"
    )
    return row_of(orjson.dumps(body))


def _export_types(ehr: Ehr, asked: Kickoff, grant: Grant | None) -> list[str]:
    compartment = ehr.dataset.patient_types | {"Patient"}
    everything = (
        set(ehr.types)
        if asked.level == "system" or ehr.manner.bulk_beyond_compartment
        else compartment & set(ehr.types)
    )
    offered = everything if ehr.manner.bulk_types is None else everything & ehr.manner.bulk_types
    if asked.types is None:
        offered -= ehr.manner.bulk_only_if_named
    else:
        known = set(ehr.types) | (ehr.manner.bulk_types or frozenset())
        if not set(asked.types) <= known and not asked.lenient and not ehr.manner.drops_unknown_types:
            raise Refused(fhir_refusal(400, "invalid", "_type contains an unsupported resource type"), "unknown _type")
        offered = offered & set(asked.types)
    allowed = {kind for kind in offered if may(ehr, grant, kind, "r")}
    if asked.types is not None and allowed != offered:
        raise Refused(ehr.manner.forbidden(ehr.manner.scope_refusal_text), "scope")
    return sorted(allowed)


def _rows(ehr: Ehr, kind: str, asked: Kickoff, patients: Sequence[str]) -> list[Row]:
    # Group: those of the data only; one that the mock makes up to have something to export is not data
    if kind == "Group" or asked.level == "system" or kind not in ehr.dataset.patient_types | {"Patient"}:
        rows = ehr.dataset.of_type(kind)
    elif len(patients) == len(ehr.dataset.patient_ids):
        rows = [row for row in ehr.dataset.of_type(kind) if row.patient is not None]
    else:
        rows = [row for patient in patients for row in ehr.dataset.of_patient(kind, patient)]
    for value in asked.params.get("_since", ()):
        moment = instant(value)
        if moment is None:
            raise Refused(fhir_refusal(400, "invalid", "_since is not an instant"), "bad _since")
        rows = [row for row in rows if updated_fits(row, f"gt{moment.isoformat()}")]
    filters = [one for value in asked.params.get("_typeFilter", ()) for one in value.split(",")]
    queries = [read_query(unquote(one.partition("?")[2])) for one in filters if one.partition("?")[0] == kind]
    return [row for row in rows if not queries or any(matches(row, query, None) for query in queries)]


# -- status and deletion ----------------------------------------------------------------------------------------------


def _job(request: Request, grant: Grant | None) -> Job:
    ehr: Ehr = request.app.state.ehr
    job = ehr.jobs.get(request.path_params.get("job") or request.query_params.get("_jobId", ""))
    if job is None or job.client_id != (grant.client_id if grant else None):
        raise Refused(ehr.manner.gone(), "no such job")
    return job


async def status(request: Request) -> Response:
    """Answer a poll: 202 as often as configured, then the manifest. DELETE ends the job and frees its slot."""
    ehr: Ehr = request.app.state.ehr
    job = _job(request, authenticate(request))
    if request.method == "DELETE":
        if job.complete and not ehr.manner.deletes_finished:
            raise Refused(ehr.manner.gone(), "finished jobs delete themselves")
        del ehr.jobs[job.id]
        for one in (*job.files, *job.errors):
            del ehr.files[one.id]
        if not job.complete:  # a job deleted before completion does not count (ET)
            ehr.kickoffs.pop((job.client_id, job.group or ""), None)
        return empty_answer(202)
    sooner, job.polled_at = ehr.now() - job.polled_at < ehr.config.least_poll_gap_s, ehr.now()
    if sooner:
        raise Refused(ehr.manner.polled_too_soon(), "polled too soon")
    if job.polled < ehr.config.polls:
        job.polled += 1
        progress = ehr.manner.progress(job.polled, ehr.config.polls, job.patients)
        headers = {"X-Progress": progress}
        if ehr.manner.retry_after:
            headers["Retry-After"] = str(ehr.config.retry_after_s)
        return empty_answer(202, headers)
    job.complete = True
    headers = {"Expires": formatdate(job.began_at + _KEPT_S, usegmt=True)}
    return json_answer(_manifest(ehr, job), 200, headers, "application/json")


def _manifest(ehr: Ehr, job: Job) -> dict[str, Any]:
    def listed(files: list[BulkFile]) -> list[dict[str, Any]]:
        entries = []
        for file in files:
            url = ehr.origin + ehr.layout.file.format(job=job.id, file=file.id)
            if ehr.manner.files_in_store:
                url = _sign(ehr, file)
            count = {"count": len(file.rows)} if ehr.manner.bulk_counts else {}
            entries.append({"type": file.type, "url": url, **count})
        return entries

    return {
        "transactionTime": job.transaction_time,
        "request": job.request,
        "requiresAccessToken": False
        if ehr.config.open or ehr.manner.files_in_store
        else ehr.manner.requires_token_flag,
        "output": listed(job.files),
        "error": listed(job.errors),
    }


# -- files ------------------------------------------------------------------------------------------------------------


async def file(request: Request) -> Response:
    """Answer a file: its bytes, or the way to the object store."""
    ehr: Ehr = request.app.state.ehr
    grant = authenticate(request)
    job, found = ehr.files.get(request.path_params["file"], (None, None))
    if job is None or found is None:
        raise Refused(ehr.manner.gone(), "no such file")
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
    """Answer as an object store: no Authorization header beside a signature, no link past its end, none re-encoded."""
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
    ehr.leases.pop(request.path_params["key"], None)
    return _send(request, ehr, found)


def _send(request: Request, ehr: Ehr, found: BulkFile) -> Response:
    media = "application/fhir+ndjson"
    if ehr.manner.wraps_files and "ndjson" not in request.headers.get("accept", ""):
        data = base64.b64encode(_lines(ehr, found)).decode()
        return json_answer({"resourceType": "Binary", "id": found.id, "contentType": media, "data": data})
    if "gzip" in request.headers.get("accept-encoding", ""):
        return _FileBytes(_compressed(ehr, found), {"Content-Encoding": "gzip"}, media)
    return _FileBytes(_lines(ehr, found), {}, media)


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
