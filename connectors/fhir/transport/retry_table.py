"""The one table that says what an answer, or the lack of one, means: use it, ask again, give up, log in again.

Pure. Sources: vendor-facts 2.4, 5.4, 6.1, 6.2, 7, 8 (the faults). Only machine-readable codes of an
OperationOutcome are read; its text may carry PHI. How long the wait becomes, and whether the budget allows it, is left to
`client`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from connectors.fhir.errors import NOT_THE_EHRS, Speaker
from connectors.fhir.instants import http_date, wait_until
from connectors.fhir.json_answers import UnreadableJsonError, json_from
from connectors.fhir.outcomes import UnreadableOutcomeError, is_outcome, outcome_from
from connectors.fhir.transport.call import Call

Action = Literal["ok", "retry", "terminal", "auth", "protocol"]
Signal = Literal["fine", "refused", "strained", "nothing"]
Failure = Literal[
    "name",
    "connect",
    "connect-timeout",
    "handshake",
    "client-certificate",
    "proxy",
    "proxy-login",
    "proxy-refusal",
    "proxy-failure",
    "certificate",
    "certificate-dates",
    "certificate-name",
    "timeout",
    "dropped",
    "malformed",
    "coding",
    "unasked",
    "bomb",
]

RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})  # vendor-facts 7; 425: too early (RFC 8470)
# 5xx statuses that another try does not change: 501, 505 (unsupported), 506, 508 (loops), 510, 511 (the network wants a login)
LASTING = frozenset({501, 505, 506, 508, 510, 511})
STRAINED = frozenset({502, 503, 504})  # F3, F4, F39
SLOW_TRIES = 3  # of a search that takes too long; then it is sent in smaller pages (F39)
FEW_TRIES = 5  # a web page with 200: a soft 404 never turns into FHIR, a firewall's block may (F1)
# the run's first questions to a host that is not there, and links to one: a mistyped base_url is reported within seconds
TYPO_TRIES = 3
NOBODY_THERE = frozenset({"name", "connect", "connect-timeout", "handshake", "client-certificate"})
# what a port answers that is not the EHR's: one that speaks only https hangs up, or sends an alert that is not HTTP
OTHER_PORT = frozenset({"dropped", "malformed"})
UNTRUSTED: frozenset[Failure] = frozenset({"certificate", "certificate-dates", "certificate-name"})
NEVER_SENT = NOBODY_THERE | {"proxy", "proxy-login", "proxy-refusal", "proxy-failure"}
# 6.2
TRANSIENT_CODES = frozenset({"transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled"})
OUTCOME_BYTES = 1 << 20  # an OperationOutcome longer than this is not read for codes
MAX_CODES = 16

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SECONDS = re.compile(r"[+-]?\d+(\.\d+)?")
_XML_OUTCOME = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?<(?:\w+:)?OperationOutcome\b")
_HTML = re.compile(
    rb"(?i)\s*(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body|title|script)\b", re.DOTALL
)


class TryResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one try brought: a status and the start of its body, or the failure that came instead."""

    status: int | None = None
    failure: Failure | None = None
    media_type: str = ""
    body_start: bytes = b""
    codes: tuple[str, ...] = ()
    speaker: Speaker = "other"
    retry_after_s: float | None = None
    coding: str | None = None  # of a body that was encoded unrequested
    origin: str | None = None  # of the server that was not reached, without path
    elsewhere: str | None = None  # advice, if the request went to an origin that is not the EHR's
    foreign: bool = False  # redirected to an origin that does not get the token
    led_to: str | None = None  # the address that answered, where a redirect led there; PHI
    token_sent: bool = False


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. `after_s`: not before; `tries`: at most so many in all, where less than the profile's."""

    action: Action
    after_s: float | None = None
    tries: int | None = None
    paced: bool = False  # a refusal that asking less answers: it has a retry budget of its own
    html: bool = False
    xml: bool = False


def judge(call: Call, seen: TryResult, *, busy_means_running: bool = False) -> Verdict:
    """The table, first match wins.

    | seen | verdict |
    | --- | --- |
    | certificate refused, a body that is a decompression bomb or in a coding that was not requested | terminal |
    | no connection, proxy trouble | retry: the server never saw the request; few in discovery and at other origins |
    | time-out, cut, damaged | retry; a kick-off once only: a job may have started; few in discovery: another port |
    | a status that the call accepts, with a web page where JSON was requested, or 200 with nothing for a page | retry, few |
    | … with XML where JSON was requested | protocol |
    | … otherwise | ok |
    | 401 | auth (terminal where no token was due) |
    | status poll, 4xx or 5xx with an OperationOutcome | retry if its code is transient, else terminal: the job failed |
    | status poll, 404 or 410 in somebody else's words | retry, few: a gateway does not know whether the job is gone |
    | kick-off 429 where that means "a job is running" | one try: the caller deletes the stale job |
    | 500 with issue code `required` | terminal: a stored record is poison (Cerner) |
    | 202 to a file | retry: it is not ready yet, so that asking later costs the server nothing |
    | 408, 425, 429, any 5xx but those that last (501, 505, …) | retry; 5xx of a kick-off once only |
    | 2xx and 3xx | protocol |
    | everything else | terminal |
    """
    once = 1 if call.purpose == "kickoff" else None
    if seen.status is None:
        return _judge_failure(call, seen.failure, once, elsewhere=seen.elsewhere is not None)
    if seen.status in call.ok:
        return _judge_accepted(call, seen)
    html = is_html(seen)
    if seen.status == 401:  # noqa: PLR2004 - status codes are this table's subject
        return Verdict(action="auth" if call.auth and not seen.foreign else "terminal", html=html)
    if call.purpose == "status" and seen.status >= 400 and seen.codes and seen.status != 429:  # noqa: PLR2004
        action: Action = "retry" if TRANSIENT_CODES.intersection(seen.codes) else "terminal"
        return Verdict(action=action, after_s=seen.retry_after_s)
    if call.purpose == "status" and seen.status in (404, 410) and seen.speaker in NOT_THE_EHRS:
        return Verdict(action="retry", tries=FEW_TRIES, html=html)
    if seen.status == 500 and "required" in seen.codes:  # noqa: PLR2004
        return Verdict(action="terminal")
    if seen.status in RETRYABLE or _is_as_500(seen.status):
        paced = seen.status == 429 and (once is None or not busy_means_running)  # noqa: PLR2004
        if paced:  # refused before it began: safe to repeat, a kick-off too
            once = None
        if seen.status == 504 and call.purpose == "search":  # noqa: PLR2004
            once = SLOW_TRIES
        return Verdict(action="retry", after_s=seen.retry_after_s, tries=once, paced=paced, html=html)
    if seen.status == 202 and call.purpose == "file":  # noqa: PLR2004
        return Verdict(action="retry", after_s=seen.retry_after_s, paced=True, html=html)
    if seen.status < 400:  # noqa: PLR2004
        return Verdict(action="protocol", html=html)
    return Verdict(action="terminal", html=html)


def _is_as_500(status: int) -> bool:
    """Whether a status means what 500 does: an unknown one means what its class does (RFC 9110 15; Cloudflare's 520-530)."""
    return 500 <= status <= 599 and status not in LASTING | STRAINED  # noqa: PLR2004


def known_status(status: int) -> int:
    """The status by which an answer is judged: a 203 is a 200 whose content a gateway has changed (RFC 9110 15.3.4)."""
    return 200 if status == 203 else status  # noqa: PLR2004


def _judge_failure(call: Call, failure: Failure | None, once: int | None, *, elsewhere: bool) -> Verdict:
    if failure in UNTRUSTED or failure in ("bomb", "unasked"):
        return Verdict(action="terminal")
    if failure in (NEVER_SENT | OTHER_PORT if call.purpose == "discovery" else NOBODY_THERE if elsewhere else ()):
        return Verdict(action="retry", tries=TYPO_TRIES)
    return Verdict(action="retry", tries=None if failure in NEVER_SENT else once)


def signal_of(call: Call, seen: TryResult, verdict: Verdict) -> Signal:
    """What a try says about how much the EHR can take: fine, refused, strained, or nothing.

    A kick-off or a poll that comes too often says nothing about the number of requests at a time.
    """
    if seen.status is None:
        return "strained" if seen.failure == "timeout" else "nothing"
    if seen.status == 429:  # noqa: PLR2004
        return "refused" if verdict.paced and call.purpose not in ("kickoff", "status") else "nothing"
    if seen.status in STRAINED:
        return "strained"
    return "fine" if verdict.action in ("ok", "terminal") and not verdict.html else "nothing"


def nobody_home(call: Call, seen: TryResult, verdict: Verdict) -> bool:
    """Whether a try was not answered by the EHR itself, but by nobody, a gateway, a web page or a refusal to listen.

    A 500 with issue codes is the EHR speaking of one record; a damaged body came from somebody; a 429 to a kick-off or a poll
    says that a job runs, or that it was polled too soon.
    """
    if seen.status is None:
        return seen.failure not in ("coding", "bomb", "unasked")
    if _is_as_500(seen.status) and not seen.codes:
        return True
    if seen.status == 429:  # noqa: PLR2004
        return call.purpose not in ("kickoff", "status")
    return seen.status in STRAINED or seen.status == 408 or (verdict.html and verdict.action == "retry")  # noqa: PLR2004


def _judge_accepted(call: Call, seen: TryResult) -> Verdict:
    if not expects_json(call.accept):
        return Verdict(action="ok")
    if not seen.body_start.strip():  # a job's 202 and an empty file have none; a page and a resource always do
        empty = seen.status == 200 and call.purpose in {"search", "read"}  # noqa: PLR2004
        return Verdict(action="retry", tries=FEW_TRIES) if empty else Verdict(action="ok")
    if seen.status == 206 and seen.media_type != "text/html":  # noqa: PLR2004 - begins anywhere, so in a note's markup too
        return Verdict(action="ok")
    if is_html(seen):
        once = 1 if call.purpose == "kickoff" else FEW_TRIES
        return Verdict(action="retry", tries=once, html=True)
    if seen.body_start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return Verdict(action="protocol", xml=True)
    return Verdict(action="ok")


def expects_json(accept: str) -> bool:
    """Whether an Accept header asks for JSON or NDJSON."""
    return "json" in accept


def is_html(seen: TryResult) -> bool:
    """Whether the answer is a web page, by its label or by its first bytes."""
    return _is_page(seen.media_type, seen.body_start)


def _is_page(media_type: str, body_start: bytes) -> bool:
    return media_type in ("text/html", "application/xhtml+xml") or bool(_HTML.match(body_start))


def speaker_of(body: bytes, media_type: str = "") -> Speaker:
    """Whose words the body of a refusal are: an OperationOutcome, in JSON or XML, is the EHR's; no body is nobody's."""
    if not body.strip():
        return "nobody"
    if _XML_OUTCOME.match(body):
        return "ehr"
    try:
        found = json_from(body)
    except UnreadableJsonError:
        return "page" if _is_page(media_type, body) else "other"
    return "ehr" if is_outcome(found) else "other"


def issue_codes(body: bytes) -> tuple[str, ...]:
    """`issue.code` and `issue.details.coding.code` of an OperationOutcome, each once, in order; () for anything else.

    Never its text. What does not look like a code is left out: servers write free text into odd places.
    """
    if len(body) > OUTCOME_BYTES or b"OperationOutcome" not in body:
        return ()
    try:
        issues = outcome_from(body).issues
    except UnreadableOutcomeError:
        return ()  # harmless: codes refine what the status says, and without them the status alone is judged
    found = dict.fromkeys(
        code for issue in issues for code in (issue.code, *issue.vendor_codes) if _CODE.fullmatch(code)
    )
    return tuple(found)[:MAX_CODES]


def server_wait_s(headers: Mapping[str, str], *, now: float, cap_s: float) -> float | None:
    """Seconds that an answer's Retry-After asks for, within 0 and `cap_s`; None where it has none that makes sense.

    Its moments are of the server's own clock, which may be off: its Date is what they are measured from, else `now`.
    """
    wanted = headers.get("retry-after")
    if wanted is None:
        return None
    return retry_after_s(wanted, now=server_time(headers.get("date")) or now, cap_s=cap_s)


def retry_after_s(value: str | None, *, now: float, cap_s: float) -> float | None:
    """Seconds to wait by a Retry-After header, within 0 and `cap_s`; None where there is none or it makes no sense.

    Takes seconds (also negative and fractional), epoch seconds or ms and HTTP-dates, past moments meaning now. What asks for
    more than a week is an accident, and no answer. `now` is epoch seconds. Five hours were seen from Cerner (F6),
    hence the cap.
    """
    text = (value or "").strip()
    parts = [part.strip() for part in text.split(",")]  # several where a gateway has added its own: the longest holds
    if all(map(_SECONDS.fullmatch, parts)):
        waits = [wait_until(float(part), now=now) for part in parts]
        wait_s = max((wait for wait in waits if wait is not None), default=None)
    else:
        found = http_date(text)
        wait_s = None if found is None else wait_until(max(found.timestamp() - now, 0.0), now=now)
    return None if wait_s is None else min(wait_s, cap_s)


def server_time(value: str | None) -> float | None:
    """A Date header as epoch seconds; None where there is none or it makes no sense."""
    found = http_date(value.strip()) if value else None
    return None if found is None else found.timestamp()
