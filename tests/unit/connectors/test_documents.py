"""Text out of documents, friendly and hostile."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import zlib
from pathlib import Path

import anyio
import anyio.lowlevel
import pypdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from connectors.documents.reading import DocumentReader
from connectors.documents.text_of import TEXT_CHARACTERS, UnreadableDocumentError, text_of


def pdf(*lines: str, password: str | None = None) -> bytes:
    """A small PDF with one page a line."""
    writer = pypdf.PdfWriter()
    for line in lines:
        page = writer.add_blank_page(200, 200)
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 10 100 Td ({line}) Tj ET".encode())
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        page[NameObject("/Contents")] = writer._add_object(stream)
    if password:
        writer.encrypt(password)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


CCDA = b"""<?xml version="1.0" encoding="UTF-8"?><?xml-stylesheet href="CDA.xsl"?>
<ClinicalDocument xmlns="urn:hl7-org:v3"><id root="1.2.3"/><title>Summary of Care</title>
<component><structuredBody><component><section><title>Allergies</title><text><table><tbody>
<tr><td>Peanut</td><td>hives &amp; more</td></tr></tbody></table></text><entry><observation><value>not narrative</value>
</observation></entry></section></component></structuredBody></component></ClinicalDocument>"""


@pytest.mark.parametrize(
    ("content", "label", "text"),
    [
        (b"a line\r\nand another", "text/plain", "a line\nand another"),
        ("Grüße".encode("cp1252"), "text/plain", "Grüße"),
        ("Grüße".encode(), "text/plain; charset=utf-8", "Grüße"),
        ("Grüße".encode("utf-16"), "text/plain", "Grüße"),
        ("Grüße".encode("iso-8859-15"), "text/plain; charset=ISO-8859-15", "Grüße"),
        ("Grüße".encode(), "text/plain; charset=no-such-charset", "Grüße"),
        (b"<html><head><title>T</title><style>p{}</style></head><p>One <b>wo</b>rd</p>two<script>x()</script></html>",
         "text/html", "One word\ntwo"),
        (b"<meta charset='iso-8859-1'><p>Gr\xfc\xdfe", "text/html", "Grüße"),
        (b"<p>a&nbsp;b &lt; c<br>d<!-- hidden --></p>", "text/html; charset=utf-8", "a b < c\nd"),
        (rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\f0 Gr\'fc\'dfe\par next}", "text/rtf", "Grüße\nnext"),
        (rb"{\rtf1\ansi mislabelled}", "text/plain", "mislabelled"),
        (CCDA, "application/xml", "Summary of Care\n\nAllergies\n\nPeanut\nhives & more"),
        (b"<note xmlns='x'>any <b>other</b> XML</note>", "text/xml", "any other XML"),
        (b"", "text/plain", ""),
    ],
)  # fmt: skip
def test_the_text_of_a_document_is_read(content: bytes, label: str, text: str) -> None:
    assert text_of(content, label) == text


def test_the_text_of_every_page_of_a_pdf_is_read() -> None:
    assert text_of(pdf("Discharge summary", "page two"), "application/pdf").split("\n") == [
        "Discharge summary",
        "page two",
    ]


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b"%PDF-1.4 and nothing that follows", "application/pdf"),
        (pdf("secret", password="x"), "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"not xml at all", "application/xml"),
        (b"\x00" * 100, "application/octet-stream"),
        (b"anything", ""),
    ],
)
def test_a_document_without_readable_text_is_reported_without_being_quoted(content: bytes, label: str) -> None:
    with pytest.raises(UnreadableDocumentError) as caught:
        text_of(content, label)
    assert "secret" not in str(caught.value)


def test_no_entity_is_expanded_and_no_file_or_address_is_read(tmp_path: object) -> None:
    lol = "".join(f'<!ENTITY l{n} "{"".join(f"&l{n - 1};" for _ in range(10))}">' for n in range(1, 10))
    hostile = (
        f'<?xml version="1.0"?><!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd" [<!ENTITY l0 "lol">{lol}'
        '<!ENTITY file SYSTEM "file:///etc/passwd"><!ENTITY % p SYSTEM "http://127.0.0.1:9/y"> %p;]>'
        "<a>before &l9; &file; after</a>"
    )
    text = text_of(hostile.encode(), "application/xml")
    assert "root:" not in text
    assert len(text) < 200


def test_a_pdf_stream_that_decompresses_to_a_gigabyte_does_no_harm() -> None:
    bomb = zlib.compress(b"0" * 200_000_000)
    head = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    page = b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj\n"
    stream = b"4 0 obj<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream endobj\n" % (len(bomb), bomb)
    content = head + page + stream + b"trailer<</Root 1 0 R/Size 5>>\n%%EOF"
    with pytest.raises(UnreadableDocumentError):
        text_of(content, "application/pdf")


def test_elements_nested_deeper_than_a_stack_are_read_or_refused() -> None:
    deep = b"<div>" * 100_000 + b"x"
    for label in ("text/html", "application/xml"):
        with contextlib.suppress(UnreadableDocumentError):
            assert "x" in text_of(deep, label) or not text_of(deep, label)


def test_a_text_longer_than_the_bound_is_cut() -> None:
    assert len(text_of(b"x" * (TEXT_CHARACTERS + 10), "text/plain")) == TEXT_CHARACTERS


STARTS = st.sampled_from([b"%PDF-1.4\n", b"{\\rtf1", b"<html>", b"<?xml ?>", CCDA[:300]])
LABELS = [
    "text/plain",
    "text/html",
    "text/rtf",
    "application/xml",
    "application/pdf",
    "text/plain; charset=utf-7",
    ";;",
    "x",
]


@settings(max_examples=60)
@given(
    content=st.binary(max_size=400) | st.builds(lambda start, rest: start + rest, STARTS, st.binary()),
    label=st.sampled_from(LABELS),
)
def test_any_input_gives_text_that_a_database_accepts_or_a_refusal(content: bytes, label: str) -> None:
    try:
        text = text_of(content, label)
    except UnreadableDocumentError:
        return
    assert "\x00" not in text
    text.encode()


@pytest.mark.anyio
async def test_a_document_that_takes_too_long_is_abandoned_and_the_next_is_read() -> None:
    deep = b"%PDF-1.4\n" + b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n" * 200_000  # minutes of looking for objects
    reader = DocumentReader(time_s=0.05)
    text, unread = await reader.read(deep, "application/pdf")
    assert (text, unread) == (None, "reading it took longer than 0.05 s")
    assert await DocumentReader().read(b"<p>next</p>", "text/html") == ("next", None)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_reading_abandoned_while_its_process_starts_leaves_no_process_behind() -> None:
    before = children()

    async def give_up() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(DocumentReader().read, b"<p>a</p>", "text/html")
            while children() == before:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    anyio.run(give_up)
    assert children() == before


def test_a_reading_process_that_does_not_start_is_abandoned_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "python"
    # a process that ends at once is no case here: anyio (4.16) leaves its pipes open, which another test would be blamed for
    stand_in.write_text("#!/bin/sh\nprintf 'READY\\n'; exec sleep 600\n")
    stand_in.chmod(0o755)
    before = children()
    monkeypatch.setattr(sys, "executable", str(stand_in))
    found = anyio.run(DocumentReader(start_s=1).read, b"<p>a</p>", "text/html")
    assert found == (None, "the reading process did not start")
    assert children() == before


def test_a_page_nested_deeper_than_the_parser_goes_is_marked_unread() -> None:
    with pytest.raises(UnreadableDocumentError, match="nested too deeply"):
        text_of(b"<div>" * 300_000 + b"deep", "text/html")


@pytest.mark.parametrize("label", ["ASCII Text", "pdf", "txt; charset=utf-8"])
def test_the_bytes_decide_where_a_label_is_no_media_type(label: str) -> None:
    assert text_of("a few w\u00f6rds".encode(), label) == "a few w\u00f6rds"
    with pytest.raises(UnreadableDocumentError):
        text_of(b"PK\x03\x04\x14\x00\x00", label)
