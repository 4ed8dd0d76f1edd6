"""The middleware around every handler: the log, limits, scripted faults, latency, bandwidth and gzip."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

from isal import igzip
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mocks.answers import FHIR_JSON, HTML_SHELL, html_answer, issue, json_answer, outcome
from mocks.ehr import STORE_PATH, Ehr
from mocks.faults import Action
from mocks.quota import WindowQuota
from mocks.request_log import LogEntry, kept_headers
from mocks.rewrites import REWRITES, Answer, Rewrite

_LEAST_GZIP = 1024
_GZIP_LEVEL = 1
_DRIP_BYTES = 64
WAF_PAGE = b"<html><head><title>Request Rejected</title></head><body>The requested URL was rejected.</body></html>"


class Gate:
    """ASGI middleware around a mock EHR's routes."""

    def __init__(self, app: ASGIApp, ehr: Ehr) -> None:
        self._app = app
        self._ehr = ehr
        self._classify = ehr.layout.classifier(STORE_PATH)
        self._pipe_free_at = 0.0
        self._allowance = max(ehr.config.max_requests_per_s or 0.0, 1.0)
        self._allowed_at = time.monotonic()
        config = ehr.config
        self._quota = None if config.quota is None else WindowQuota(config.quota, config.quota_window_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ehr = self._ehr
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        purpose, kind, template = self._classify(scope["method"], path)
        token = headers.get("authorization")
        entry = LogEntry(
            scope["method"],
            f"{path}?{query}" if query else path,
            template,
            purpose,
            kind,
            token is not None,
            token.partition(" ")[2] if token else None,
            kept_headers(headers),
            time.monotonic(),
        )
        scope["log_entry"] = entry
        ehr.log.begin(entry)
        try:
            await self._handle(scope, receive, _Outgoing(self, entry, headers, send))
        finally:
            ehr.log.end(entry, time.monotonic())

    async def _handle(self, scope: Scope, receive: Receive, outgoing: _Outgoing) -> None:
        ehr, entry = self._ehr, outgoing.entry
        if self._over_limit() or self._over_quota(outgoing):
            entry.note = "limit"
            refusal = ehr.manner.throttled()
            if ehr.config.throttle_retry_after is not None:
                refusal.headers["retry-after"] = ehr.config.throttle_retry_after
            await refusal(scope, receive, outgoing)
            return
        action = ehr.faults.pick(entry.purpose, entry.method, entry.target)
        if action is not None:
            if action.delay_s > 0:
                await asyncio.sleep(action.delay_s)
            entry.fault = True
            outgoing.cut_after = action.cut_after_bytes
            outgoing.stall_after = action.stall_after_bytes
            outgoing.drip_s = action.drip_s
            if action.ignore:
                kept = [
                    part
                    for part in scope["query_string"].split(b"&")
                    if part.split(b"=")[0].decode() not in action.ignore
                ]
                scope["query_string"] = b"&".join(kept)
            if action.forget_tokens:
                ehr.grants.clear()
            if action.rewrite is not None:  # of an answer that is not compressed
                outgoing.rewrite = REWRITES[action.rewrite]
                scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            if action.stall:
                await asyncio.Event().wait()
            if action.drop:
                self._drop(scope)
                return
            answer = _faulty(action)
            if answer is not None:
                await answer(scope, receive, outgoing)
                return
        await self._app(scope, receive, outgoing)

    def _over_limit(self) -> bool:
        config, log = self._ehr.config, self._ehr.log
        if config.max_concurrency is not None and log.now_running > config.max_concurrency:
            return True
        rate = config.max_requests_per_s
        if rate is None:
            return False
        now = time.monotonic()
        self._allowance = min(max(rate, 1.0), self._allowance + (now - self._allowed_at) * rate)  # one second's burst
        self._allowed_at = now
        if self._allowance < 1:
            return True
        self._allowance -= 1
        return False

    @property
    def origin(self) -> str:
        """The address of the EHR."""
        return self._ehr.origin

    def _over_quota(self, outgoing: _Outgoing) -> bool:
        # other servers, with their own limits
        if self._quota is None or outgoing.entry.purpose in (
            "token",
            "object",
        ):
            return False
        counted = self._quota.take(time.monotonic())
        outgoing.extra_headers = self._quota.headers(counted, self._ehr.config.rate_limit_headers, self._ehr.now())
        return not counted.allowed

    def _drop(self, scope: Scope) -> None:
        if self._ehr.abort is None:
            raise RuntimeError("a fault with `drop` needs a real socket: use mocks.serving.serve")
        self._ehr.abort(tuple(scope["client"]))

    async def wait_latency(self, since: float) -> None:
        """Start an answer `latency_s` after its request came, however long it took to make, so that the ideal stays reachable."""
        if self._ehr.config.latency_s:
            await asyncio.sleep(since + self._ehr.config.latency_s - time.monotonic())

    async def pace(self, size: int) -> None:
        """Wait until `size` bytes have passed through the bandwidth that all answers share."""
        rate = self._ehr.config.bandwidth_bytes_s
        if rate is not None and size:
            now = time.monotonic()
            self._pipe_free_at = max(now, self._pipe_free_at) + size / rate
            await asyncio.sleep(self._pipe_free_at - now)

    def date(self) -> str | None:
        """Return the Date header of a server whose clock is off; None leaves it to the web server."""
        return formatdate(self._ehr.now(), usegmt=True) if self._ehr.config.clock_skew_s else None


def _faulty(action: Action) -> Response | None:
    if action.wrong_content:
        return html_answer(WAF_PAGE, 200, action.headers)
    if action.status is None:
        return None
    if action.body == "html":
        return html_answer(HTML_SHELL, action.status, action.headers)
    if action.body == "operation-outcome":
        body = outcome(issue("error", action.issue_code, "scripted fault"))
        return json_answer(body, action.status, action.headers, FHIR_JSON)
    return Response(b"", action.status, action.headers)


class _Outgoing:
    """Sends one answer: compresses single bodies, limits their speed, counts bytes, and cuts the body if a fault says so."""

    def __init__(self, gate: Gate, entry: LogEntry, headers: dict[str, str], send: Send) -> None:
        self.entry = entry
        self.cut_after: int | None = None
        self.extra_headers: list[tuple[bytes, bytes]] = []
        self.stall_after: int | None = None
        self.drip_s = 0.0
        self.rewrite: Rewrite | None = None
        self._gate = gate
        self._send = send
        self._gzip = "gzip" in headers.get("accept-encoding", "")
        self._start: Message | None = None
        self._cut = False
        self._held = b""  # of an answer that is rewritten as a whole

    async def __call__(self, message: Message) -> None:
        if self._cut:
            return
        if message["type"] == "http.response.start":
            self._start = message
            self.entry.status = message["status"]
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if self.rewrite is not None and self._start is not None:
            self._held += body
            if more:
                return
            body = self._rewritten(self._start)
        if self._start is not None:
            await self._gate.wait_latency(self.entry.at)
            body = self._begin(self._start, body, more)
            await self._send(self._start)
            self._start = None
        await self._pass_on(body, more)

    def _begin(self, start: Message, body: bytes, more: bool) -> bytes:
        raw: list[Any] = list(start["headers"])
        if self._gzip and not more and len(body) >= _LEAST_GZIP and not any(n == b"content-encoding" for n, _ in raw):
            body = igzip.compress(body, _GZIP_LEVEL)
            raw = [(name, value) for name, value in raw if name != b"content-length"]
            raw += [
                (b"content-encoding", b"gzip"),
                (b"vary", b"accept-encoding"),
                (b"content-length", b"%d" % len(body)),
            ]
        raw += self.extra_headers
        date = self._gate.date()
        if date is not None:
            raw.append((b"date", date.encode()))
        start["headers"] = raw
        return body

    def _rewritten(self, start: Message) -> bytes:
        assert self.rewrite is not None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
        url = self._gate.origin + self.entry.target
        answer = self.rewrite(Answer(start["status"], headers, self._held, url))
        start["status"] = self.entry.status = answer.status
        kept = {**answer.headers, "content-length": str(len(answer.body))}
        start["headers"] = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept.items()]
        self._gzip = False
        return answer.body

    async def _pass_on(self, body: bytes, more: bool) -> None:
        if self.drip_s and len(body) > _DRIP_BYTES:
            for at in range(0, len(body), _DRIP_BYTES):
                last = at + _DRIP_BYTES >= len(body)
                await self._pass_on(body[at : at + _DRIP_BYTES], more or not last)
                await asyncio.sleep(self.drip_s)
            return
        if self.stall_after is not None and self.entry.sent_bytes + len(body) > self.stall_after:
            await self._send(
                {
                    "type": "http.response.body",
                    "body": body[: self.stall_after - self.entry.sent_bytes],
                    "more_body": True,
                }
            )
            await asyncio.Event().wait()
        if self.cut_after is not None and self.entry.sent_bytes + len(body) > self.cut_after:
            body = body[: self.cut_after - self.entry.sent_bytes]
            self._cut = True
        await self._gate.pace(len(body))
        self.entry.sent_bytes += len(body)
        # a cut answer never completes: the web server then closes the connection within the body
        await self._send({"type": "http.response.body", "body": body, "more_body": more or self._cut})
