"""Search and read: finds the rows of a query, cuts out a page, and wraps their unchanged bytes in a Bundle."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from mocks.answers import Refused, empty_answer, json_answer
from mocks.binary import binary
from mocks.dataset import Row, row_of
from mocks.ehr import Ehr, Grant, Session
from mocks.manners.manner import Links, PageAt, SearchQuery, fhir_refusal, read_query, whole_number
from mocks.matching import PERSON_PARAMS, dates_fit, matches
from mocks.oauth import authenticate, authorize

_KEPT_SESSIONS = 5_000


def wants_json(request: Request) -> bool:
    """Return whether the request explicitly asks for JSON (Accept or _format)."""
    return "json" in request.headers.get("accept", "") or "json" in request.query_params.get("_format", "")


def negotiate(request: Request, ehr: Ehr) -> None:
    """Refuse a request whose Accept header the manner refuses."""
    accept = request.headers.get("accept", "*/*")
    if ehr.manner.accept == "406" and "json" not in accept and "*/*" not in accept:
        raise Refused(empty_answer(406), "Accept")


def as_asked(request: Request, ehr: Ehr, body: bytes, kind: str) -> Response:
    """Answer with FHIR JSON, or with XML if the client does not ask for JSON and the manner then sends XML."""
    if ehr.manner.accept == "xml" and not wants_json(request):
        xml = f'<?xml version="1.0" encoding="UTF-8"?><{kind} xmlns="http://hl7.org/fhir"><!-- as asked --></{kind}>'
        return Response(xml, media_type="application/fhir+xml")
    return json_answer(body, media_type=ehr.manner.content_type)


async def search(request: Request) -> Response:
    """Answer GET {type}?… and POST {type}/_search."""
    ehr: Ehr = request.app.state.ehr
    kind = request.path_params["kind"]
    grant = authenticate(request)
    negotiate(request, ehr)
    if kind not in ehr.types:
        raise Refused(ehr.manner.unknown_type(), "unknown type")
    if not ehr.searches:
        raise Refused(fhir_refusal(400, "not-supported", "Search is not supported"), "no search")
    authorize(ehr, grant, kind, "s")
    raw = request.scope["query_string"].decode("latin-1")
    if request.method == "POST":
        raw = await _posted(request, ehr, raw)
    query = _query(ehr, kind, raw)
    if kind == "DocumentReference" and ehr.config.daily_documents is not None:
        today = int(ehr.now() // 86_400)
        ehr.document_searches[today] += 1
        if ehr.document_searches[today] > ehr.config.daily_documents:
            raise Refused(ehr.manner.documents_exhausted(), "daily documents")
    if ehr.manner.paging == "session" and "sessionID" in query.params:
        return as_asked(request, ehr, _go_on(ehr, query), "Bundle")
    _own_patient_only(ehr, grant, query)
    _unrestricted_only(ehr, query)
    ehr.manner.check(query)
    body = _begin(ehr, query)
    if ehr.config.row_cost_s:
        await _take_time(ehr, body)
    return as_asked(request, ehr, body, "Bundle")


async def _posted(request: Request, ehr: Ehr, raw: str) -> str:
    """Return the parameters of a POST; the manner decides whether those in the query count."""
    if ehr.manner.post_search == "none":
        raise Refused(ehr.manner.unknown_path(), "no POST search")
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Refused(fhir_refusal(400, "structure", "The body is not form-urlencoded"), "bad body")
    body = (await request.body()).decode("latin-1")
    return body if ehr.manner.post_search == "body" else "&".join(part for part in (raw, body) if part)


async def _take_time(ehr: Ehr, body: bytes) -> None:
    """Wait as long as the page's rows cost; a gateway in front gives up at its time limit."""
    took = ehr.config.row_cost_s * body.count(b'"search":{"mode":"match"}')
    limit = ehr.config.gateway_timeout_s
    await asyncio.sleep(took if limit is None else min(took, limit))
    if limit is not None and took > limit:
        raise Refused(ehr.manner.gateway_timeout(), "gateway timeout")


def _query(ehr: Ehr, kind: str, raw: str) -> SearchQuery:
    params = read_query(raw)
    named = (params.get("patient") or params.get("subject") or ("",))[0]
    patient = named.rpartition("/")[2] or None
    known = patient is not None and ehr.dataset.get("Patient", patient) is not None
    return SearchQuery(kind, raw, params, kind in ehr.dataset.patient_types, patient, known, ehr.config)


def _unrestricted_only(ehr: Ehr, query: SearchQuery) -> None:
    """Refuse what is behind break-the-glass (EA, vendor-facts 1.7), and parameters that this server does not accept."""
    who = query.patient or query.one("_id")
    for key in (f"{query.resource_type}/{who}", f"*/{who}"):
        if key in ehr.config.restricted:
            raise Refused(ehr.manner.restricted(ehr.config.restricted[key]), "restricted")
    if not ehr.config.refused_params.isdisjoint(query.params):
        raise Refused(fhir_refusal(400, "invalid", "A parameter is not supported"), "refused parameter")


def _own_patient_only(ehr: Ehr, grant: Grant | None, query: SearchQuery) -> None:
    """Restrict a token to the patient of its launch (LK, vendor-facts 4.2)."""
    if grant is None or grant.patient is None:
        return
    if query.resource_type == "Patient":
        wanted = query.one("_id") or query.one("identifier")
        if wanted is None:
            text = (
                "Patient searching disabled."
                if query.one("name") or query.one("family")
                else "Patient identifier not supplied."
            )
            raise Refused(ehr.manner.forbidden(text), "patient search")
    else:
        wanted = query.patient
        if wanted is None and query.by_patient:
            raise Refused(ehr.manner.forbidden("Patient identifier not supplied."), "no patient")
    if (
        wanted is not None
        and wanted.rpartition("|")[2] != grant.patient
        and (query.by_patient or query.resource_type == "Patient")
    ):
        raise Refused(ehr.manner.forbidden("Token not allowed access to this patient."), "other patient")


def _begin(ehr: Ehr, query: SearchQuery) -> bytes:
    rows = ehr.manner.found(query, find(ehr, query))
    default, greatest = ehr.manner.count(query.resource_type)
    count = whole_number(query, "_count")
    if count == 0 or (ehr.manner.counts and query.one("_summary") == "count"):
        return _bundle(ehr, [], [("self", f"{ehr.base_url}/{query.resource_type}?{query.raw}")], len(rows), [])
    size = (ehr.config.page_size or default or max(len(rows), 1)) if count is None else count
    if default == 0:
        size = max(len(rows), 1)  # this type is never paged
    if greatest is not None and count is not None:
        size = min(size, greatest)
    if len(rows) > ehr.config.max_rows and ehr.manner.too_many_answers_413:
        raise Refused(fhir_refusal(413, "too-costly", "The result set is too large."), "too many rows")
    if ehr.manner.paging == "session":
        return _session_page(ehr, Session(query, rows, 0, size, 0))
    if ehr.manner.paging == "server":
        return _server_page(
            ehr, str(uuid.uuid4()), Session(query, rows, 0, size, ehr.now() + ehr.config.session_life_s)
        )
    start = ehr.manner.start_of(query, size)
    page = PageAt(f"{ehr.base_url}/{query.resource_type}", query, start, size, len(rows))
    repeated = 1 if ehr.manner.duplicate_across_pages and start == size else 0  # may repeat (CR, vendor-facts 2.5)
    return _page(ehr, page, rows[start - repeated : start + size], ehr.manner.links(page))


def _session_page(ehr: Ehr, session: Session) -> bytes:
    """Return one page of a session; its next link is a new session, so that a page can be requested again."""
    query, start, size = session.query, session.start, session.size
    shown = [] if session.empty else session.rows[start : start + size]
    page = PageAt(f"{ehr.base_url}/{query.resource_type}", query, start, size, len(session.rows))
    links = ehr.manner.links(page)
    follow = start if session.empty else start + size
    if follow < len(session.rows):
        handle = f"16-{secrets.token_hex(16).upper()}"
        empty = ehr.config.empty_pages and start == 0 and not session.empty
        ehr.sessions[handle] = Session(query, session.rows, follow, size, ehr.now() + ehr.config.session_life_s, empty)
        while len(ehr.sessions) > _KEPT_SESSIONS:
            ehr.sessions.popitem(last=False)
        links = [("next", f"{page.url}?sessionID={handle}"), *links]
    return _page(ehr, page, shown, links)


def _go_on(ehr: Ehr, query: SearchQuery) -> bytes:
    session = ehr.sessions.get(query.one("sessionID") or "")
    if session is None or session.expires_at <= ehr.now() or session.query.resource_type != query.resource_type:
        raise Refused(ehr.manner.session_expired(), "session expired")
    return _session_page(ehr, session)


async def server_page(request: Request) -> Response:
    """Answer GET {base}?_getpages=…, the address of the server's pages."""
    ehr: Ehr = request.app.state.ehr
    authenticate(request)
    query = request.query_params
    handle = query.get("_getpages", "")
    session = ehr.sessions.get(handle)
    numbers = [query.get("_getpagesoffset", "0"), query.get("_count", "20")]
    if session is None or session.expires_at <= ehr.now() or not all(number.isdecimal() for number in numbers):
        raise Refused(ehr.manner.session_expired(), "pages are gone")
    session.start, session.size = int(numbers[0]), max(1, int(numbers[1]))
    return as_asked(request, ehr, _server_page(ehr, handle, session), "Bundle")


def _server_page(ehr: Ehr, handle: str, session: Session) -> bytes:
    ehr.sessions[handle] = session
    start, size = session.start, session.size
    page = PageAt(f"{ehr.base_url}/{session.query.resource_type}", session.query, start, size, len(session.rows))
    at = f"{ehr.base_url}?_getpages={handle}&_getpagesoffset={{}}&_count={size}&_pretty=true&_bundletype=searchset"
    links = [("self", page.self_url() if start == 0 else at.format(start))]
    if page.more:
        links.append(("next", at.format(start + size)))
    if start:
        links.append(("previous", at.format(max(0, start - size))))
    return _page(ehr, page, session.rows[start : start + size], links)


def _page(ehr: Ehr, page: PageAt, shown: list[Row], links: Links) -> bytes:
    if not ehr.config.poison.isdisjoint(f"{row.type}/{row.id}" for row in shown):
        raise Refused(ehr.manner.poisoned(), "poison record")
    extra = ehr.manner.extra_entries(page.query, len(shown), page.start)
    count = {"all": page.total, "page": len(shown), "none": None}[ehr.manner.total]
    return _bundle(ehr, shown, links, count, extra)


def _bundle(ehr: Ehr, rows: list[Row], links: Links, total: int | None, extra: list[dict[str, Any]]) -> bytes:
    """Insert the rows' unchanged bytes into a searchset."""
    every = ehr.config.redact_every if ehr.manner.redacts else 0
    entries = [_entry(ehr, _redacted(row) if every and n % every == 0 else row) for n, row in enumerate(rows, start=1)]
    entries += [
        orjson.dumps({"fullUrl": uuid.uuid4().urn, "resource": body, "search": {"mode": "outcome"}}) for body in extra
    ]
    head = b'{"resourceType":"Bundle",'
    if ehr.manner.bundle_id:
        head += b'"id":"%s",' % str(uuid.uuid4()).encode()
    head += b'"type":"searchset",'
    if total is not None:
        head += b'"total":%d,' % total
    linked = orjson.dumps([{"relation": relation, "url": url} for relation, url in links])
    tail = b',"entry":[%s]}' % b",".join(entries) if entries else b"}"
    return head + b'"link":' + linked + tail


def _entry(ehr: Ehr, row: Row) -> bytes:
    url = f"{ehr.base_url}/{row.type}/{row.id}".encode()
    link = b'"link":[{"relation":"self","url":"%s"}],' % url if ehr.manner.entry_links else b""
    return b'{%s"fullUrl":"%s","resource":%s,"search":{"mode":"match"}}' % (link, url, served(ehr, row))


def _redacted(row: Row) -> Row:
    """Return the placeholder for a record that the caller may not see (VD, vendor-facts 3.3)."""
    security = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "REDACTED"}
    return row_of(orjson.dumps({"resourceType": row.type, "id": row.id, "meta": {"security": [security]}}))


def served(ehr: Ehr, row: Row) -> bytes:
    """Return a row's bytes to send: unchanged, unless the configuration asks for a change."""
    if ehr.config.strip_meta and "meta" in row.body:
        members = msgspec.json.decode(row.raw, type=dict[str, msgspec.Raw])  # values stay as written
        return msgspec.json.encode({name: value for name, value in members.items() if name != "meta"})
    return row.raw


def find(ehr: Ehr, query: SearchQuery) -> list[Row]:
    """Return the rows that match a query, in the data's order."""
    kind = query.resource_type
    rows: Iterable[Row]
    if kind == "Group":
        rows = list(ehr.groups.values())
    elif query.one("_id"):
        ids = (query.one("_id") or "").split(",")
        rows = [row for id_ in ids if (row := ehr.dataset.get(kind, id_)) is not None]
        if query.patient is not None:
            rows = [row for row in rows if row.patient == query.patient]
    elif query.patient is not None:
        rows = ehr.dataset.of_patient(kind, query.patient)
    elif ehr.manner.lists_everything or (kind == "Patient" and not PERSON_PARAMS.isdisjoint(query.params)):
        rows = ehr.dataset.of_type(kind)
    else:
        rows = []
    if ehr.config.unlisted and not query.one("_id"):
        rows = [row for row in rows if f"{row.type}/{row.id}" not in ehr.config.unlisted]
    params = {name: values for name, values in query.params.items() if name not in ehr.config.ignored_params}
    return [
        row
        for row in rows
        if matches(row, params, ehr.manner.last_updated) and dates_fit(row, params, ehr.manner.dates)
    ]


async def read(request: Request) -> Response:
    """Answer GET {type}/{id}."""
    ehr: Ehr = request.app.state.ehr
    kind, id_ = request.path_params["kind"], request.path_params["id"]
    grant = authenticate(request)
    if kind != "Binary":
        negotiate(request, ehr)
    if kind not in ehr.types:
        raise Refused(ehr.manner.unknown_type(), "unknown type")
    authorize(ehr, grant, kind, "r")
    row = ehr.groups.get(id_) if kind == "Group" else ehr.dataset.get(kind, id_)
    if kind == "Patient" and id_ in ehr.config.merged:
        raise Refused(ehr.manner.merged(f"{ehr.base_url}/Patient/{ehr.config.merged[id_]}"), "merged")
    if row is None:
        raise Refused(ehr.manner.not_found((kind, id_) in ehr.dataset.deleted), "unknown id")
    if grant is not None and grant.patient is not None and row.patient not in (None, grant.patient):
        raise Refused(ehr.manner.forbidden("Token not allowed access to this patient."), "other patient")
    if kind == "Binary":
        return binary(request, ehr, row)
    return as_asked(request, ehr, served(ehr, row), kind)
