"""Turns a final verdict into the error to raise: what was tried, what was found, what to do next. Pure.

Messages name the request by its template and quote nothing of the answer but its status and issue codes.
"""

from __future__ import annotations

from connectors.core.errors import AuthError, ConnectorError
from connectors.fhir.errors import (
    NOT_THE_EHRS,
    BudgetExhaustedError,
    ProtocolError,
    RequestError,
    TerminalFetchError,
    TransientFetchError,
    UntrustedServerError,
)
from connectors.fhir.issue_types import shown
from connectors.fhir.transport.call import REDIRECTS, Call, Purpose
from connectors.fhir.transport.retry_table import (
    NEVER_SENT,
    NOBODY_THERE,
    OTHER_PORT,
    UNTRUSTED,
    Failure,
    TryResult,
    Verdict,
)

_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _GONE, _FAILED = 400, 401, 403, 404, 410, 500
_NOT_THE_JOBS_END = frozenset({403, 404, 410, 413})  # of a status URL: we may not see it, or it is gone, or too large

_FOUND: dict[Failure, str] = {
    "name": "the host name was not found",
    "connect": "the connection was refused, or there is no route to the host",
    "connect-timeout": "no connection was made within the time allowed",
    "handshake": "the TLS handshake failed",
    "client-certificate": "the server requires a client certificate, or does not accept ours",
    "proxy": "the proxy was not reached",
    "proxy-login": "the proxy wants a login, or does not accept ours (407)",
    "proxy-refusal": "the proxy refused to open the way to that host (4xx)",
    "proxy-failure": "the proxy did not reach that host (5xx)",
    "certificate": "the server's certificate is not trusted",
    "certificate-dates": "the server's certificate has expired, or is not valid yet",
    "certificate-name": "the server's certificate is for another host",
    "timeout": "no byte came within the time allowed",
    "dropped": "the connection was lost before the answer was complete",
    "malformed": "what came back is not valid HTTP",
    "coding": "the body is damaged, or ends too early",
    "unasked": "the body is compressed in a way that was not requested",
    "bomb": "the body unpacks to hundreds of times its size, unlike any FHIR; the rest was not unpacked",
}
# `{setting}` names where the server's address stands
_NEXT_BY_FAILURE: dict[Failure, str] = {
    "name": "check the host in {setting}, and this machine's name resolution (DNS)",
    "connect": "check host and port in {setting}, whether the EHR is up, the network and the proxy setting",
    "connect-timeout": "check host and port in {setting}, and the proxy setting: a firewall may drop our packets, or that port "
    "speaks no TLS; profile.http.connect_timeout_s says how long to wait",
    "handshake": "check whether that port speaks https (or only http), and TLS 1.2 or newer; if the server requires a "
    "client certificate, set client_cert and client_cert_key",
    "client-certificate": "set client_cert and client_cert_key to the certificate that the EHR's operator has registered for us, "
    "and check that it has not expired",
    "proxy": "check host and port in the connection's proxy setting, and whether the proxy is up",
    "proxy-login": "set the connection's proxy to http://user:password@host:port, or correct the login there",
    "proxy-refusal": "ask the proxy's operator to allow this host and port",
    "proxy-failure": "check host and port in {setting}, and whether the EHR is up; if both are right, ask the proxy's operator",
    "certificate": "if the authority that signed it is your own, or the server itself, set ca_bundle to its certificate (PEM); "
    "else ask the server's operator: it may not send an intermediate certificate",
    "certificate-dates": "check this machine's clock, and ask the server's operator to renew it",
    "certificate-name": "check the host in {setting} against the certificate's names, and ask the server's operator",
    "timeout": "if this EHR needs longer, raise profile.http.read_timeout_s or http.connect_timeout_s",
    "coding": "the EHR, or a gateway or proxy in between, truncates or damages what it sends: run again; if it happens again, "
    "ask the operators of both",
    "malformed": "run again; if it happens again, check host and port in {setting}, and ask the operator of the EHR, or of the "
    "gateway or proxy in front of it, whether its Content-Length is right",
    "bomb": "ask the EHR's administrators what this answer is",
    "unasked": "only gzip is requested (Accept-Encoding), and a retry gives the same: ask the operator of the EHR or of the "
    "gateway in front of it to send gzip or no compression",
}
_NEXT_BY_STATUS: dict[int, str] = {
    400: "this EHR does not accept the request's parameters; see the profile's search settings",
    401: "the link has expired, or it requires a login that should not be needed",
    403: "the client's scopes or its user's rights at the EHR do not cover it",
    404: "check base_url, and whether this EHR offers it",
    406: "this EHR does not support the profile's accept type",
    407: "a proxy wants a login, and no EHR answers so: check the connection's proxy setting (http://user:password@host:port)",
    413: "it is larger than the EHR, or a gateway in front of it, allows: ask its operator to raise that limit",
    414: "the URL is too long for the EHR or a gateway in front of it: lower profile.search.post_over, to search by POST",
    426: "the server, or a gateway in front of it, wants another protocol than HTTP/1.1: ask its operator to allow that",
    429: "lower profile.limits.max_concurrency, or run at a quieter hour",
    431: "our headers are longer than the EHR, or a gateway in front of it, accepts: most likely the token; request fewer scopes",
    511: "the network wants a login before it lets anything out: log this machine in, or ask its administrators",
}
_JOB_GONE = (
    "the job was deleted or has expired; sync again to start a new export; if it is gone every time, it may live on one of "
    "several machines that only a cookie can find again: set profile.http.cookies = true"
)
_FILE_GONE = (
    "the file was deleted at the server, or its link has expired, and the manifest had no better one; sync again soon after, or "
    "ask how long the EHR keeps its exports"
)
_LINK_EXPIRED = "the link has most likely expired, and the manifest had no better one; sync again to start a new export"
# what a status means for one purpose of a request, where that is more than it means in general
_NEXT_BY_PURPOSE: dict[tuple[Purpose, int], str] = {
    ("status", 400): (
        "the EHR, or a gateway in front of it, does not accept the export's status URL: sync again to start a new export; if it "
        "fails in the same way, ask its operator what its status URL answers"
    ),
    ("status", 404): _JOB_GONE,
    ("status", 410): _JOB_GONE,
    ("status", 413): (
        "the export's manifest is larger than the EHR, or a gateway in front of it, allows: request less at a time (fewer "
        "`types`, a smaller Group), or ask for a higher limit at the gateway"
    ),
    ("file", 202): "the server is still preparing this file; the export is kept there: sync again later to fetch it",
    ("file", 400): _LINK_EXPIRED,
    ("file", 403): (
        f"{_LINK_EXPIRED}; if it happens again, the client may not read this file: ask the EHR's administrators"
    ),
    ("file", 404): _FILE_GONE,
    ("file", 410): _FILE_GONE,
    ("file", 413): (
        "the file is larger than the EHR, or a gateway in front of it, allows: have it write smaller files, or raise the "
        "gateway's limit, or request less at a time (fewer `types`, a smaller Group)"
    ),
    ("search", 413): "request less at a time: lower profile.search.page_size",
    ("kickoff", 413): (
        "the request is larger than the EHR, or a gateway in front of it, accepts: name fewer patients, or make a Group of them"
    ),
}
_KICK_OFF_FAILED = (
    "the EHR failed on the request itself, or is overloaded: if it fails again later, one of the parameters is too much for "
    "it. Try fewer `types`, no `bulk` settings, another Group, or ask its administrators what their log says at this time"
)
_KICK_OFF_NOT_FOUND = "most likely the group's id: check the connection's `group` setting, or --group"
_LINK_REFUSED = (
    "no token was sent, since the manifest's requiresAccessToken is false (or missing, for another origin): "
    "the link has expired, or requires a login anyway"
)
_NO_ANSWER = "check base_url and what this EHR declares"
_REDIRECT_TO_NOWHERE = (
    "check base_url (https, and the path as the EHR's operator gave it), and ask the operator what answers there: most likely a "
    "gateway or a log-in page in front of the EHR"
)
_NO_FILE = "sync again soon; if it happens again, ask the EHR's administrators what the export's links answer"
_LINK_ELSEWHERE = "the EHR's link leads there, to another origin than base_url's"
_STATUS_OF_A_GATEWAY = (
    "that is not the EHR's own answer (an OperationOutcome), so most likely that of a gateway in front of it: ask its "
    "operator whether the export is still there; if it is gone, `chartferry runs discard RUN` gives it up"
)
_REFUSED_BY_A_PAGE = (
    "an EHR refuses with an OperationOutcome, so most likely a firewall or a gateway in front of it did: ask its operator "
    "whether our address may send this request"
)
_REFUSED_AS_NO_REQUEST = (
    "an EHR refuses with an OperationOutcome, so most likely a gateway in front of it did: check base_url (https, where it says "
    "http?), and ask its operator"
)
_UNKNOWN_STATUS = "a retry gives the same: check base_url, and ask the EHR's administrators what this status means"
_PAGE_LATER = "the EHR is down or overloaded, or the gateway in front of it, whose page this is; run again later"
_NO_JOB = (
    "sync again to start a new export; if it fails in the same way, ask the EHR's operator what its status URL answers, or use "
    "--mode crawl"
)
_NO_ANSWER_OF: dict[Purpose, str] = {"file": _NO_FILE, "status": _NO_JOB}
_ADDRESS_OF: dict[Purpose, str] = {"token": "profile.login.token_url"}
_ONLY_HTTPS = "; or its port speaks only https: then base_url must begin with https://"
_OR_CERTIFICATE = "; or the server requires a client certificate: then set client_cert and client_cert_key"
_LATER = "the EHR is down or overloaded; run again later"


def found(seen: TryResult, verdict: Verdict) -> str:
    """What came back, in words that carry no PHI."""
    if seen.status is None:
        where = f" ({seen.origin})" if seen.failure in NEVER_SENT and seen.origin else ""
        packed = f" ({seen.coding})" if seen.coding else ""
        return _FOUND[seen.failure or "dropped"] + where + packed
    kind = " with a web page instead of FHIR" if verdict.html else ""
    if verdict.xml:
        kind = " with XML instead of JSON"
    elif seen.status == 200 and not seen.body_start.strip():  # noqa: PLR2004
        kind = " with an empty body"
    elif seen.status in (_NOT_FOUND, _GONE) and seen.speaker in NOT_THE_EHRS and not kind:
        kind = " without an OperationOutcome"
    codes = f" (issue codes {', '.join(shown(seen.codes))})" if seen.codes else ""
    return f"the answer was {seen.status}{kind}{codes}"


def next_after(failure: Failure, setting: str = "base_url") -> str:
    """What to do about a server that was not reached; `setting` is what names its address."""
    return _NEXT_BY_FAILURE.get(failure, _LATER).format(setting=setting)


def error_for(
    call: Call, seen: TryResult, verdict: Verdict, *, tries: int, budget_empty: bool = False
) -> ConnectorError:
    """The error for a try that was not accepted and is the last one."""

    def failed(kind: type[RequestError], text: str) -> RequestError:
        return kind(text, status=seen.status, codes=seen.codes, speaker=seen.speaker, led_to=seen.led_to)

    times = f" after {tries} tries" if tries > 1 else ""
    problem = f"{call.template}: {found(seen, verdict)}{times}"
    if verdict.action == "auth":
        if seen.token_sent:
            advice = (
                "check the client's registration and scopes at the EHR, or put a new token where bearer_token points to"
            )
            return AuthError(f"{problem}, even to a new token, if there was one; {advice}")
        return AuthError(f"{problem}, and this connection has no login; set its auth, client_id and key")
    if verdict.action == "retry":
        if budget_empty:
            text = f"{problem}; the retry budget is used up: the EHR fails too often. Run again later, or see profile.retry.share"
            return failed(BudgetExhaustedError, text)
        return failed(TransientFetchError, f"{problem}; {_next(call, seen, verdict)}")
    if verdict.xml:
        text = f"{problem}; check that base_url is a FHIR R4 endpoint that speaks JSON, and profile.http.accept"
        return failed(ProtocolError, text)
    if verdict.action == "protocol":
        nowhere = seen.status in REDIRECTS  # others are followed
        what = "a redirect that does not say where to (Location)" if nowhere else "which is no answer to this request"
        advice = _NO_ANSWER_OF.get(call.purpose, _REDIRECT_TO_NOWHERE if nowhere else _NO_ANSWER)
        return failed(ProtocolError, f"{problem}, {what}; {advice}")
    if call.purpose == "status" and seen.codes and seen.status not in _NOT_THE_JOBS_END:
        why = f"status {seen.status}, issue codes {', '.join(shown(seen.codes))}"
        text = f"{call.template}: the server's export failed ({why}); sync again to start a new one"
        return failed(TerminalFetchError, text)
    kind = UntrustedServerError if seen.failure in UNTRUSTED else TerminalFetchError
    return failed(kind, f"{problem}; {_next(call, seen, verdict)}")


def _next_unanswered(call: Call, seen: TryResult, failure: Failure) -> str:
    if seen.elsewhere is not None and failure in NOBODY_THERE:
        return f"{_LINK_ELSEWHERE}: {seen.elsewhere}; otherwise check whether this machine may reach it"
    advice = next_after(failure, _ADDRESS_OF.get(call.purpose, "base_url"))
    if failure in OTHER_PORT and call.purpose == "discovery" and (seen.origin or "").startswith("http:"):
        return advice + _ONLY_HTTPS
    if failure == "dropped" and call.purpose == "discovery" and (seen.origin or "").startswith("https:"):
        return advice + _OR_CERTIFICATE
    return advice


def _next(call: Call, seen: TryResult, verdict: Verdict) -> str:
    if seen.failure is not None:
        return _next_unanswered(call, seen, seen.failure)
    if call.purpose == "status" and seen.status in (_NOT_FOUND, _GONE) and verdict.action == "retry":
        return _STATUS_OF_A_GATEWAY
    if verdict.html and seen.status == _FORBIDDEN:
        return _REFUSED_BY_A_PAGE
    if verdict.html and seen.status == _BAD_REQUEST and call.purpose != "status":
        return _REFUSED_AS_NO_REQUEST
    if verdict.html and verdict.action == "retry" and (seen.status or 0) >= _FAILED:
        return _PAGE_LATER
    if verdict.html and verdict.action == "retry" and seen.status not in _NEXT_BY_STATUS:
        return "a firewall's block, or not a FHIR address: check base_url, and whether the EHR allows our address"
    if call.purpose == "kickoff" and seen.status == _FAILED:
        return _KICK_OFF_FAILED
    if call.purpose == "kickoff" and seen.status in (_NOT_FOUND, _GONE) and "/Group/" in call.template:
        return _KICK_OFF_NOT_FOUND
    if call.purpose == "file" and seen.status == _UNAUTHORIZED and not call.auth:
        return _LINK_REFUSED
    if (call.purpose, seen.status) in _NEXT_BY_PURPOSE:
        return _NEXT_BY_PURPOSE[call.purpose, seen.status or 0]
    return _NEXT_BY_STATUS.get(seen.status or 0, _LATER if verdict.action == "retry" else _UNKNOWN_STATUS)
