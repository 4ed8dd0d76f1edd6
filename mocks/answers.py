"""HTTP answers that carry FHIR: OperationOutcomes, JSON bodies, and the exception that ends a request with one.

The manner chooses a vendor's answer; this module only builds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

FHIR_JSON = "application/fhir+json; charset=utf-8"
IIS_404 = (
    b'<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">\r\n'
    b'<html xmlns="http://www.w3.org/1999/xhtml">\r\n<head>\r\n<title>404 - File or directory not found.</title>\r\n</head>\r\n'
    b"<body><h2>404 - File or directory not found.</h2><h3>The resource you are looking for might have been removed, had its "
    b"name changed, or is temporarily unavailable.</h3></body></html>\r\n"
)
HTML_SHELL = (
    b"<!DOCTYPE html>\n<html><head><title>Developer Portal</title></head><body><div id='app'></div></body></html>\n"
)
TIMEOUT_PAGE = b"<html><head><title>504 Gateway Time-out</title></head><body>504 Gateway Time-out</body></html>\n"


class Refused(Exception):  # noqa: N818 (not an error: an answer that ends the request early)
    """Ends the handling of a request with `response`; `note` says why, for the request log."""

    def __init__(self, response: Response, note: str = "") -> None:
        super().__init__(note)
        self.response = response
        self.note = note


def issue(severity: str, code: str, text: str | None = None, **rest: Any) -> dict[str, Any]:
    """Return one OperationOutcome.issue; `text` becomes details.text."""
    found: dict[str, Any] = {"severity": severity, "code": code}
    if text is not None:
        found["details"] = {"text": text}
    return {**found, **rest}


def outcome(*issues: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    """Return an OperationOutcome with these issues."""
    return {"resourceType": "OperationOutcome", **rest, "issue": list(issues)}


def json_answer(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = FHIR_JSON
) -> Response:
    """Answer with `body` as JSON: bytes unchanged, anything else serialised."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(raw, status, headers=dict(headers or {}), media_type=media_type)


def html_answer(body: bytes, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with an HTML page, as gateways and web servers in front of EHRs do."""
    return Response(body, status, headers=dict(headers or {}), media_type="text/html")


def empty_answer(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Answer without a body."""
    return Response(b"", status, headers=dict(headers or {}))
