"""How the EHR in memory answers over HTTP: CapabilityStatement, search with offset paging, read, export; and the transport.

Written from FHIR R4 and the Bulk Data guide, and shares nothing with the client. What rows there are is `ehr`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from email.utils import format_datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from tests.histories import steps as s
from tests.histories.ehr import Ehr
from tests.histories.rows import Row, fhir_instant

BASE = "http://ehr.example/fhir"
_PREFIX = urlsplit(BASE).path
_SEARCH = {
    s.PATIENT: ("_id", "_lastUpdated"),
    s.OBSERVATION: ("patient", "category", "_id", "_lastUpdated"),
    s.CONDITION: ("patient", "_id", "_lastUpdated"),
    s.DEVICE: ("_id",),
    s.ORGANIZATION: ("_id", "_lastUpdated"),
    "Group": ("_id",),
}
_EXPORT = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition"


class Answer(NamedTuple):
    status: int
    body: Any = None  # bytes go as they are, all else as JSON
    headers: dict[str, str] = {}  # noqa: RUF012  never changed


class Job(NamedTuple):
    """An export as it was when it was kicked off."""

    time: str
    files: dict[str, list[str]]
    deleted: list[str]
    errors: list[str]
    whose: list[str]
    refused: set[str]  # types


class Server:
    """Answers one EHR's requests; keeps its export jobs."""

    def __init__(self, ehr: Ehr) -> None:
        self._ehr = ehr
        self._jobs: dict[str, Job] = {}

    def answer(self, method: str, url: str, body: bytes) -> Answer:
        """Answer one request, and note what it asked for, and what the answer was."""
        ehr = self._ehr
        parts = urlsplit(url)
        path = parts.path[len(_PREFIX) :].strip("/").split("/")
        query = parse_qs(parts.query)
        if path == ["metadata"]:
            return Answer(200, self._capability())
        for fault in ehr.faults:
            if isinstance(fault, s.Flaky) and ehr.heard.requests % fault.every == 0:
                return _outcome(503, "transient")
        if path[-1] == "$export":
            return self._kick_off(path, query, body)
        if path[0] == "job":
            return self._job(method, path[1])
        if path[0] == "file":
            return self._file(path[1], path[2])
        if path[-1] == "_search":
            return self._search(path[0], parse_qs(body.decode()))
        if len(path) == 1:
            return self._search(path[0], query)
        return self._read(path[0], path[1])

    def _capability(self) -> dict[str, Any]:
        ehr = self._ehr
        resources = []
        for kind, parameters in _SEARCH.items():
            if kind in ehr.unserved:
                continue
            names = [
                name
                for name in parameters
                if (name != "_lastUpdated" or ehr.site.dated)
                and (kind, name) != (s.PATIENT, "_id" if not ehr.site.batches else "")
            ]
            served = ["search-type"] + (["read"] if kind == s.PATIENT or ehr.site.reads else [])
            one = {
                "type": kind,
                "interaction": [{"code": code} for code in served],
                "searchParam": [{"name": name, "type": "token"} for name in names],
            }
            for level, of in (("patient", s.PATIENT), ("group", "Group")):
                if level in ehr.levels and kind == of:
                    one["operation"] = [{"name": "export", "definition": f"{_EXPORT}/{level}-export"}]
            resources.append(one)
        system = [{"name": "export", "definition": f"{_EXPORT}/export"}] if "system" in ehr.levels else []
        return {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "kind": "instance",
            "fhirVersion": "4.0.1",
            "format": ["json"],
            "date": "2020-01-01",
            "rest": [{"mode": "server", "resource": resources, "operation": system}],
        }

    def _read(self, kind: str, id_: str) -> Answer:
        ehr = self._ehr
        if kind == "Group":
            if not ehr.site.readable_groups:
                return _outcome(403, "forbidden")
            member = [{"entity": {"reference": f"Patient/{one}"}} for one in ehr.groups[id_]]
            return Answer(200, {"resourceType": "Group", "id": id_, "type": "person", "actual": True, "member": member})
        status = ehr.read_status((kind, id_))
        if status == 301:
            to = ehr.misled(id_) or ehr.led[id_]
            return Answer(301, b"", {"Location": f"{BASE}/Patient/{to}"})
        if status != 200:
            return _outcome(status)
        return Answer(200, ehr.shown(ehr.rows[kind, id_]))

    def _search(self, kind: str, query: dict[str, list[str]]) -> Answer:
        ehr = self._ehr
        patient = query["patient"][0].removeprefix("Patient/") if "patient" in query else None
        by_id = "_id" in query and (
            kind != s.PATIENT or ehr.site.batches
        )  # a parameter that is not declared is ignored
        ids = query["_id"][0].split(",") if by_id else None
        question = {("search", kind, one) for one in ids or (patient or "*",)}
        if (status := ehr.refusal(kind, patient)) is not None:
            ehr.heard.refused |= question
            return _outcome(status, "not-supported" if status == 404 else "exception")
        if ehr.incomplete(kind):
            ehr.heard.refused |= question
            return Answer(200, _bundle([], None, None, [_INCOMPLETE]))
        rows = [row for row in ehr.of_type(kind) if ehr.listed(row)]
        if ids is not None:
            rows = [row for row in rows if row.id in ids]
        if patient is not None and not ehr.unnarrowed(kind):
            rows = [row for row in rows if row.patient == ehr.led.get(patient, patient)]
        if "category" in query:
            rows = [row for row in rows if row.category == query["category"][0]]
        for limit in query.get("_lastUpdated", ()) if ehr.site.heeds_since else ():
            rows = [row for row in rows if _within(row.at, limit)]
        if patient is not None and all(
            row.patient in {patient, None} for row in rows
        ):  # nothing shows that others' may come
            for row in rows:
                if row.key in ehr.ever_of:
                    ehr.ever_of[row.key].add(patient)
        lost = next((fault.status for fault in ehr.faults if isinstance(fault, s.LostPage)), None)
        if lost is not None and "_offset" in query:
            ehr.heard.answered -= question
            ehr.heard.refused |= question
            return _outcome(lost, "exception")
        ehr.heard.refused -= question
        if ids is None:
            ehr.heard.answered |= question
        return self._page(kind, query, sorted(rows, key=lambda row: row.id))

    def _page(self, kind: str, query: dict[str, list[str]], rows: list[Row]) -> Answer:
        site = self._ehr.site
        size = site.page or 1_000
        at = int(query.get("_offset", ["0"])[0])
        following = None
        if at + size < len(rows):
            rest = [(name, value) for name, values in query.items() if name != "_offset" for value in values]
            following = f"{BASE}/{kind}?{urlencode([*rest, ('_offset', at + size)])}"
        total = len(rows) if site.totals else None
        return Answer(200, _bundle([self._ehr.shown(row) for row in rows[at : at + size]], total, following, []))

    def _kick_off(self, path: list[str], query: dict[str, list[str]], body: bytes) -> Answer:
        ehr = self._ehr
        asked_at = {"$export": "system", "Patient": "patient", "Group": "group"}[path[0]]
        if ehr.has(s.NoExport) or asked_at not in ehr.levels:
            return _outcome(404, "not-supported")
        values = {name: value[0] for name, value in query.items()}
        named: list[str] = []
        for one in json.loads(body)["parameter"] if body else ():
            value = next(v for k, v in one.items() if k.startswith("value"))
            if one["name"] == "patient":
                named.append(value["reference"].removeprefix("Patient/"))
            else:
                values[one["name"]] = value
        level, members = asked_at, ["*"]
        if level == "group":
            members = list(ehr.groups[path[1]])
        elif named:
            level, members = "patient-list", named
        types = tuple(values["_type"].split(",")) if values.get("_type") else ()
        until = datetime.fromisoformat(values["_until"]) if "_until" in values else None
        rows = list(ehr.exported(level, members, types, filtered="_typeFilter" in values, until=until))
        deleted = []
        if (since := values.get("_since")) and ehr.site.heeds_since:
            after = datetime.fromisoformat(since)
            rows = [row for row in rows if row.at >= after]
            gone = [key for key, (row, at) in ehr.dropped.items() if at >= after and (not types or row.type in types)]
            entries = [{"request": {"method": "DELETE", "url": "/".join(key)}} for key in gone]
            if entries and ehr.site.tells_deletions:
                deleted = [json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})]
                ehr.heard.deleted |= {*gone}
        files: dict[str, list[str]] = {}
        for row in sorted(rows, key=lambda row: row.key):
            contents = ehr.written(row, partly="_elements" in values)
            # in another order each night
            files.setdefault(row.type, []).extend(
                map(json.dumps, contents if len(self._jobs) % 2 else reversed(contents))
            )
        refused = {f.type for f in ehr.faults if isinstance(f, s.Refuse) and (not types or f.type in types)}
        whose = [*members, ""] if level == "system" else members
        lost = ehr.has(s.LostJob)
        for kind in {*(types or s.TYPES)} - ehr.unserved - (set() if lost else files.keys()):
            self._tells(kind, whose, refused=lost or kind in refused)
        number = str(len(self._jobs) + 1)
        errors = [json.dumps(_issue("error", "exception", f"{kind} could not be exported")) for kind in sorted(refused)]
        self._jobs[number] = Job(fhir_instant(ehr.now()), files, deleted, errors, whose, refused)
        return Answer(202, b"", {"Content-Location": f"{BASE}/job/{number}"})

    def _tells(self, kind: str, whose: list[str], *, refused: bool) -> None:
        """Note whose rows of a type an export tells of, or does not."""
        heard, about = self._ehr.heard, {("export", kind, one) for one in whose}
        heard.answered = heard.answered - about if refused else heard.answered | about
        heard.refused = heard.refused | about if refused else heard.refused - about

    def _job(self, method: str, number: str) -> Answer:
        if method == "DELETE":
            return Answer(202, b"")
        if self._ehr.has(s.LostJob):
            return _outcome(404)
        job = self._jobs[number]

        def listed(name: str, kind: str, lines: list[str]) -> dict[str, Any]:
            return {"type": kind, "url": f"{BASE}/file/{number}/{name}", "count": len(lines)}

        return Answer(
            200,
            {
                "transactionTime": job.time,
                "request": f"{BASE}/$export",
                "requiresAccessToken": False,
                "output": [listed(kind, kind, lines) for kind, lines in job.files.items()],
                "deleted": [listed("deleted", "Bundle", job.deleted)] if job.deleted else [],
                "error": [listed("error", "OperationOutcome", job.errors)] if job.errors else [],
            },
        )

    def _file(self, number: str, name: str) -> Answer:
        job = self._jobs[number]
        lines = {"deleted": job.deleted, "error": job.errors}.get(name) or job.files[name]
        body = "".join(f"{line}\n" for line in lines).encode()
        broken = [f for f in self._ehr.faults if isinstance(f, s.LostFile | s.CutFile) and f.type == name]
        if name in job.files:
            self._tells(name, job.whose, refused=bool(broken) or name in job.refused)
            self._ehr.heard.filed |= set() if broken else {name}
        for fault in broken:
            if isinstance(fault, s.LostFile):
                return _outcome(fault.status)
            body = body[: -len(lines[-1]) // 2]
        return Answer(200, body, {"Content-Type": "application/fhir+ndjson"})


class Wire(httpx.AsyncBaseTransport):
    """Takes requests where the client's own transport would send them. `before` is called first, with the request's number."""

    def __init__(self, server: Server, ehr: Ehr, before: Callable[[int], None]) -> None:
        self._server = server
        self._ehr = ehr
        self._before = before

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._ehr.heard.requests += 1
        self._before(self._ehr.heard.requests)
        url = str(request.extensions["url"])
        answer = self._server.answer(request.method, url, await request.aread())
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        now = self._ehr.now() if self._ehr.site.date_skewed else self._ehr.true_time()
        headers = {"Content-Type": "application/fhir+json", "Date": format_datetime(now, usegmt=True), **answer.headers}
        return httpx.Response(answer.status, headers=headers, content=body, request=request)


def _within(at: datetime, limit: str) -> bool:
    prefix, moment = limit[:2], datetime.fromisoformat(limit[2:])
    return {"ge": at >= moment, "gt": at > moment, "le": at <= moment, "lt": at < moment}[prefix]


def _issue(severity: str, code: str, text: str = "", vendor_code: str | None = None) -> dict[str, Any]:
    issue: dict[str, Any] = {"severity": severity, "code": code, "diagnostics": text}
    if vendor_code is not None:
        issue["details"] = {"coding": [{"code": vendor_code}]}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


_INCOMPLETE = {"resource": _issue("warning", "suppressed", vendor_code="4119"), "search": {"mode": "outcome"}}


def _outcome(status: int, code: str = "not-found") -> Answer:
    return Answer(status, _issue("error", code))


def _bundle(rows: list[dict[str, Any]], total: int | None, following: str | None, more: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        found["total"] = total
    if following is not None:
        found["link"] = [{"relation": "next", "url": following}]
    found["entry"] = [*({"resource": row, "search": {"mode": "match"}} for row in rows), *more]
    return found
