"""documents owns synthetic notes as a site keeps them that stores them separately: Binary resources behind DocumentReferences.

The proportions are those of captured Epic charts (vendor-facts 1.10): half have neither url nor contentType, the others are HTML
with RTF beside it, C-CDA, and PDF. `clinical` writes the notes themselves.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from html import escape

from mocks.synthetic.vocabulary import Json


def with_documents(resources: Iterable[Json]) -> Iterator[Json]:
    """Yield the resources; move each DocumentReference's note into Binaries of varying kinds, which come before it."""
    number = 0
    for resource in resources:
        if resource["resourceType"] != "DocumentReference":
            yield resource
            continue
        number += 1
        text = b64decode(resource["content"][0]["attachment"]["data"]).decode()
        binaries = [] if number % 2 == 0 else _binaries(resource["id"], text, number // 2 % 4)
        yield from binaries
        attachments = [_attachment(binary) for binary in binaries] or [{"title": "Outside record"}]
        yield resource | {"content": [{"attachment": attachment} for attachment in attachments]}


def _binaries(note: str, text: str, turn: int) -> list[Json]:
    if turn == 0:
        return [_binary(f"XR-{note}", "application/pdf", pdf(text))]
    if turn == 1:
        return [_binary(f"XML-{note}", "application/xml", _ccda(text))]
    return [_binary(f"TR-{note}", "text/html", _html(text)), _binary(f"R-{note}", "text/rtf", _rtf(text))]


def _binary(identity: str, content_type: str, content: bytes) -> Json:
    return {"resourceType": "Binary", "id": identity, "contentType": content_type, "data": b64encode(content).decode()}


def _attachment(binary: Json) -> Json:
    content = b64decode(binary["data"])
    return {
        "contentType": binary["contentType"],
        "url": f"Binary/{binary['id']}",
        "size": len(content),
        "hash": b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode(),
    }


def _html(text: str) -> bytes:
    lines = "".join(f"<p>{escape(line)}</p>" for line in text.split("\n"))
    return f'<html><head><meta charset="utf-8"><style>p{{margin:0}}</style></head><body>{lines}</body></html>'.encode()


def _rtf(text: str) -> bytes:
    escaped = "".join(
        "\\par " if c == "\n" else f"\\{c}" if c in "\\{}" else c if c.isascii() else f"\\u{ord(c)}?" for c in text
    )
    return f"{{\\rtf1\\ansi{{\\fonttbl{{\\f0 Arial;}}}}\\f0 {escaped}}}".encode("ascii")


def _ccda(text: str) -> bytes:
    section = f"<section><title>Progress note</title><text><paragraph>{escape(text)}</paragraph></text></section>"
    body = f"<component><structuredBody><component>{section}</component></structuredBody></component>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ClinicalDocument xmlns="urn:hl7-org:v3"><title>Continuity of care</title>'
        f"{body}</ClinicalDocument>"
    ).encode()


def pdf(text: str) -> bytes:
    """Write a PDF of one page, by hand (PDF 32000-1, 7.5): header, objects, cross references, trailer."""
    shown = "".join(c if c.isascii() and c not in "\\()" else "?" for c in text)
    lines = "".join(f"({line}) Tj T* " for line in shown.split("\n"))
    stream = f"BT /F1 10 Tf 12 TL 40 760 Td {lines}ET".encode("ascii")
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(out + b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))
