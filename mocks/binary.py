"""Reads of Binary: the Accept header and the vendor decide whether a request gets raw bytes or JSON."""

from __future__ import annotations

import base64

from starlette.requests import Request
from starlette.responses import Response

from mocks.answers import Refused, empty_answer, json_answer
from mocks.dataset import Row
from mocks.ehr import Ehr


def binary(request: Request, ehr: Ehr, row: Row) -> Response:
    """Answer one Binary.

    Epic: the attachment's own type returns its bytes, fhir+json a Binary with base64 `data`, anything else XML
    (SF, vendor-facts 1.5). Millennium: Accept equals the contentType or application/fhir+json; anything else, even
    application/json, is 406 (CR, vendor-facts 2.8).
    Others: JSON if the client asks for FHIR, otherwise bytes (R4, binary.html).
    """
    accept = request.headers.get("accept", "*/*")
    content_type = str(row.body.get("contentType", "application/octet-stream"))
    raw = base64.b64decode(row.body.get("data", ""))
    way = ehr.manner.accept
    if accept == "application/fhir+json" or (way != "406" and "json" in accept and "json" not in content_type):
        return json_answer(row.raw, media_type="application/fhir+json")
    if accept == content_type:
        return Response(raw, media_type=None, headers={"content-type": content_type})
    if way == "406":
        raise Refused(empty_answer(406), "Accept is neither contentType nor application/fhir+json")
    if way == "xml":
        wrapped = f'<Binary xmlns="http://hl7.org/fhir"><contentType value="{content_type}"/></Binary>'
        return Response(wrapped, media_type="application/fhir+xml")
    return Response(raw, media_type=None, headers={"content-type": content_type})
