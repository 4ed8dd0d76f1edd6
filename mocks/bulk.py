"""Bulk $export: kick-off, status and deletion, with each manner's strictness (vendor-facts 6).

A job has the rows of its kick-off: `bulk_export` selects them, `bulk_files` serves them.
"""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from mocks.answers import Refused, empty_answer, issue, json_answer, outcome
from mocks.bulk_export import begin
from mocks.bulk_files import manifest
from mocks.dataset import Row
from mocks.ehr import Ehr, Grant, Job
from mocks.manners.manner import Kickoff, fhir_refusal, read_query
from mocks.mock_config import BulkLevel
from mocks.oauth import authenticate
from mocks.search import negotiate

_KEPT_S = 14 * 86_400  # as Epic (ET, vendor-facts 1.9)
_STU4 = 4


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
    wanted = await _kickoff_of(request, level, lenient="handling=lenient" in prefer)
    if ehr.config.soarian:
        _no_duplicate(ehr, client, wanted)
    job = begin(ehr, wanted, group, grant, str(request.url))
    job.separate = ehr.config.separate_status and "separate-export-status" in prefer
    location = ehr.origin + ehr.layout.status.format(job=job.id)
    headers = {"Content-Location": location}
    if job.separate:
        headers["Preference-Applied"] = "respond-async, separate-export-status"
    if ehr.config.soarian:
        job.question = _question(wanted)
        return json_answer(outcome(issue("information", "informational", "The export was accepted")), 202, headers)
    if manner.kickoff_body:
        return json_answer({"ExportRequestID": job.id, "total": job.patients}, 202, headers, manner.content_type)
    return empty_answer(202, headers)


async def _kickoff_of(request: Request, level: BulkLevel, *, lenient: bool) -> Kickoff:
    """Read the request, and refuse what this server does not accept."""
    ehr: Ehr = request.app.state.ehr
    if ehr.config.bulk_version == _STU4 and request.method != "POST":
        raise Refused(fhir_refusal(405, "not-supported", "$export takes POST"), "GET")
    if request.method == "POST" and ehr.config.post_kickoff is False:
        raise Refused(fhir_refusal(405, "not-supported", "$export takes GET"), "POST")
    params = await _params(request)
    lists = params.get("_type", ())
    if ehr.config.bulk_version == _STU4:
        if any("," in value for value in lists):
            raise Refused(fhir_refusal(400, "invalid", "_type: lists are repeated parameters"), "comma list")
        given = list(lists)
    else:
        given = [kind for value in lists for kind in value.split(",") if kind]
    for name in ehr.config.bulk_refuses:
        if name in params and not lenient:
            raise Refused(fhir_refusal(400, "not-supported", f"Parameter {name} is not supported"), f"{name} refused")
    for name in () if lenient else ehr.config.bulk_refuses_unnamed:
        if name in params:
            raise Refused(fhir_refusal(422, "processing", "The request cannot be processed"), f"{name} refused")
    patient_list = level == "patient" and ehr.manner.patient_list_only
    if patient_list and (request.method != "POST" or not params.get("patient")):
        raise Refused(fhir_refusal(400, "required", "POST with a list of patients is required"), "no patient list")
    wanted = Kickoff(level, params, tuple(given) if given else None, lenient)
    if not patient_list:
        ehr.manner.check_kickoff(wanted)
    return wanted


def _question(wanted: Kickoff) -> tuple[object, ...]:
    return (wanted.params.get("_since"), wanted.params.get("_type"))


def _no_duplicate(ehr: Ehr, client: str | None, wanted: Kickoff) -> None:
    """Soarian: refuse the same `_since` and `_type` until the old job is deleted (vendor-facts 2.7)."""
    if any(job.client_id == client and job.question == _question(wanted) for job in ehr.jobs.values()):
        raise Refused(fhir_refusal(409, "duplicate", "A job with these parameters exists"), "duplicate")


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
    text = "Request not allowed: The Client requested this Group too recently."  # ET, vendor-facts 1.9
    return json_answer(outcome(issue("fatal", "business-rule", text)), ehr.config.kickoff_refusal_status)


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
        for one in (*job.files, *job.errors, *job.deleted):
            del ehr.files[one.id]
        if not job.complete:  # a job deleted before completion does not count (ET, vendor-facts 1.9)
            ehr.kickoffs.pop((job.client_id, job.group or ""), None)
        if ehr.config.soarian:
            return json_answer(outcome(issue("information", "informational", "The export was deleted")), 202)
        return empty_answer(202)
    sooner, job.polled_at = ehr.now() - job.polled_at < ehr.config.least_poll_gap_s, ehr.now()
    if sooner:
        raise Refused(ehr.manner.polled_too_soon(), "polled too soon")
    return _progress(request, ehr, job)


def _progress(request: Request, ehr: Ehr, job: Job) -> Response:
    """Answer with what is ready: nothing, some pages of the manifest, or all of them."""
    number = int(request.query_params.get("page", "1"))
    step = ehr.config.files_per_manifest or len(job.files) or 1
    pages = max(1, -(-len(job.files) // step))
    ready = min(pages, job.polled) if job.partial else 0
    waiting = job.polled < (max(ehr.config.polls, pages) if job.partial else ehr.config.polls)
    headers = {}
    if waiting:
        job.polled += 1
        headers["X-Progress"] = ehr.manner.progress(job.polled, max(ehr.config.polls, job.polled), job.patients)
        if ehr.manner.retry_after:
            headers["Retry-After"] = str(ehr.config.retry_after_s)
    else:
        job.complete, ready = True, pages
        life = ehr.config.manifest_life_s
        ends = job.began_at + _KEPT_S if life is None else ehr.now() + life
        headers["Expires"] = formatdate(ends, usegmt=True)
    code = 202 if waiting else 200
    if job.separate:
        headers["X-Export-Status"], code = ("202 Accepted" if waiting else "200 OK"), 200
    if number > ready:
        return empty_answer(code, headers)
    return json_answer(manifest(ehr, job, number, ready), code, headers, "application/json")
