"""Reads the text of one document: by what its first bytes are, else by its label. Pure; expects hostile input.

The text is bounded. No network, no entity is expanded, nothing is executed; `reading` bounds time and memory. Layout is
given up: lines and words in the order in which the document has them.
"""

from __future__ import annotations

import codecs
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from functools import lru_cache
from typing import Any

TEXT_CHARACTERS = 5_000_000  # of one document; a text that is longer is cut, and says so by its length
_PDF_PAGES = 5_000
_XML_LIKE = re.compile(rb"\s*<\?xml|\s*<[A-Za-z][\w.:-]*[^>]*\sxmlns", re.DOTALL)
_HTML_LIKE = re.compile(rb"(?i)\s*(<!doctype\s+html|<html|<head|<body|<div|<p[\s>]|<table|<span|<pre)")
_META_CHARSET = re.compile(rb"(?i)<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})")
_XML_ENCODING = re.compile(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{1,40})[\"']")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BLANKS = re.compile(r"[ \t\u00a0\u3000]+")
_EMPTY_LINES = re.compile(r"\n\s*\n\s*")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
         (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_BLOCK = frozenset(
    ["address", "article", "aside", "blockquote", "br", "caption", "dd", "div", "dl", "dt", "fieldset", "footer", "form",
     "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "item", "li", "list", "main", "nav", "ol", "p", "paragraph", "pre",
     "section", "table", "tbody", "td", "text", "th", "thead", "title", "tr", "ul"]
)  # fmt: skip
_NO_TYPE = ""
_SILENT = frozenset(["script", "style", "head", "template", "noscript"])


class UnreadableDocumentError(ValueError):
    """No text could be read. The message says why and quotes nothing of the document."""


def text_of(content: bytes, content_type: str = "") -> str:
    """The text of a document, at most TEXT_CHARACTERS long; `content_type` is its label, charset included.

    Raises:
        UnreadableDocumentError: it is of a kind that has no text here (images), is encrypted, or is damaged.
    """
    media_type, charset = _label(content_type)
    read = _READERS.get(_kind(content, media_type))
    if read is None:
        raise UnreadableDocumentError("text cannot be read from this kind of document")
    try:
        text = read(content, charset)
    except UnreadableDocumentError:
        raise
    except Exception as error:  # noqa: BLE001 -- three parsers, hostile input: whatever they raise, there is no text
        raise UnreadableDocumentError(f"damaged, or not what it claims to be ({type(error).__name__})") from None
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))[:TEXT_CHARACTERS].strip()


@lru_cache(maxsize=256)  # few labels, many documents: reading one costs as much as reading a short text
def _label(content_type: str) -> tuple[str, str | None]:
    """The media type and charset that a label names."""
    label = Message()
    label["Content-Type"] = content_type or "application/octet-stream"
    odd = bool(content_type) and "/" not in content_type.partition(";")[0]  # `Message` would take it for text/plain
    return _NO_TYPE if odd else label.get_content_type(), str(label.get_param("charset") or "") or None


def _kind(content: bytes, media_type: str) -> str:
    start = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"%PDF-" in content[:1024]:
        return "pdf"
    if start.startswith(b"{\\rtf"):
        return "rtf"
    if media_type in ("text/html", "application/xhtml+xml"):
        return "html"
    if media_type.endswith(("/xml", "+xml")) or _XML_LIKE.match(start):
        return "html" if _HTML_LIKE.match(start) else "xml"
    if media_type.startswith("text/"):
        return "html" if media_type == "text/plain" and start[:9].lower() == b"<!doctype" else "plain"
    if _HTML_LIKE.match(start):
        return "html"
    return "plain" if media_type == _NO_TYPE and _reads_as_text(start) else media_type


def _reads_as_text(start: bytes) -> bool:
    """Whether a beginning is UTF-8 without control characters: "ASCII Text" and "pdf" are no types, and may be either."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(start)  # its last character may be cut
    return bool(text) and "\ufffd" not in text and not _CONTROL.search(text)


def _plain(content: bytes, charset: str | None) -> str:
    return _decoded(content, charset)


def _decoded(content: bytes, charset: str | None) -> str:
    """By its mark, its label, as UTF-8, or as what old Windows systems write: every byte means something there."""
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    for named in (charset or "utf-8", "utf-8"):
        try:
            return content.decode(named)
        except (UnicodeDecodeError, LookupError, ValueError):
            continue
    return content.decode("cp1252", errors="replace")


def _rtf(content: bytes, charset: str | None) -> str:
    from striprtf.striprtf import rtf_to_text

    return str(rtf_to_text(content.decode("latin-1"), errors="ignore"))  # type: ignore[no-untyped-call]


def _pdf(content: bytes, charset: str | None) -> str:
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)  # it quotes documents
    reader = pypdf.PdfReader(io.BytesIO(content), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnreadableDocumentError("encrypted")
    pages: list[str] = []
    size = 0
    for number, page in enumerate(reader.pages):
        if number >= _PDF_PAGES or size >= TEXT_CHARACTERS:
            break
        pages.append(page.extract_text())
        size += len(pages[-1])
    return "\n".join(pages)


def _html(content: bytes, charset: str | None) -> str:
    from lxml import html

    named = _META_CHARSET.search(content[:4096])
    xml_named = _XML_ENCODING.match(content[:256])
    found = named or xml_named
    text = _decoded(content, charset or (found[1].decode("ascii") if found else None))
    parser = html.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=False, recover=True
    )
    # as bytes: lxml refuses a str that declares an encoding
    root = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    _check_depth(parser)
    return _flowed(root)


def _xml(content: bytes, charset: str | None) -> str:
    """The narrative of a C-CDA (titles and section texts), or all text of any other XML."""
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        recover=True,
        remove_comments=True,
        remove_pis=True,
    )
    root = etree.fromstring(content, parser=parser)
    if root is None:
        raise UnreadableDocumentError("not XML")
    _check_depth(parser)
    if etree.QName(root).localname != "ClinicalDocument":
        return _flowed(root)
    parts = [_flowed(title) for title in root.findall("{*}title")]
    for section in root.iter("{*}section"):
        parts += [_flowed(part) for name in ("title", "text") for part in section.findall(f"{{*}}{name}")]
    for body in root.iter("{*}nonXMLBody"):
        parts += [_flowed(part) for part in body.findall("{*}text") if part.get("representation") != "B64"]
    return "\n\n".join(part for part in parts if part)


def _check_depth(parser: Any) -> None:
    """Refuse a document if the parser left out deeply nested parts: half a text would pass for the whole."""
    if any("depth" in entry.message for entry in parser.error_log):
        raise UnreadableDocumentError("nested too deeply")


def _flowed(root: Any) -> str:
    text = "".join(_pieces(root))
    lines = (_BLANKS.sub(" ", line).strip() for line in text.split("\n"))
    return _EMPTY_LINES.sub("\n", "\n".join(lines)).strip()


def _pieces(root: Any) -> Iterator[str]:
    """Text in document order without recursion: documents may be nested deeper than Python's stack."""
    from lxml import etree

    silent: Any = None
    for event, node in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
        if event == "start":
            name = etree.QName(node).localname.lower() if isinstance(node.tag, str) else ""
            if silent is None and name in _SILENT:
                silent = node
            if silent is None:
                yield "\n" if name in _BLOCK else ""
                yield _one_line(node.text)
        elif event == "end":
            if silent is not None and node is not silent:
                continue
            if silent is None and isinstance(node.tag, str) and etree.QName(node).localname.lower() in _BLOCK:
                yield "\n"
            silent = None
            if node is not root:
                yield _one_line(node.tail)
        elif silent is None and node is not root:
            yield _one_line(node.tail)


def _one_line(text: str | None) -> str:
    return text.replace("\n", " ").replace("\r", " ") if text else ""


_READERS: Mapping[str, Callable[[bytes, str | None], str]] = {
    "plain": _plain,
    "rtf": _rtf,
    "pdf": _pdf,
    "html": _html,
    "xml": _xml,
}
