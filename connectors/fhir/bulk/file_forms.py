"""What a file is that is not NDJSON, by its first line. Pure.

The answer is a name for people. It also ends the retries: the file is not cut, but written in another form. Such a file is a
hole and is not read, because the files of an export must be NDJSON (Bulk Data IG). `file_reading` calls this.
"""

from __future__ import annotations

import re

_PACKED = (b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c")  # zip, bzip2, xz, 7z: no coding of HTTP
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_WIDE = re.compile(rb"\x00{0,3}[{\[]\x00|\x00{1,3}[{\[]")  # no UTF-8 JSON has a zero byte beside its first bracket
_GOES_ON = (b"{", b"[", b",")  # what is printed over several lines breaks them after these
_NEXT_RESOURCE = re.compile(rb'\}[ \t\r]*\{[ \t\r]*"(resourceType|id)"')

_IN_FORM = "the file is {}, not NDJSON in UTF-8 (one resource on each line)"


def form_of(first_line: bytes, *, is_last: bool) -> str | None:
    """Say what a file is if its first line cannot be read; None if that line may be damaged, or cut.

    `is_last`: the file ends with it, and without a line feed, so that it may be cut at any character.
    """
    if first_line.startswith(_PACKED):
        return _IN_FORM.format("an archive, or compressed in a way that was not requested")
    if first_line.startswith(_WIDE_MARKS) or _WIDE.match(first_line):
        return _IN_FORM.format("text in UTF-16 or UTF-32")
    if first_line.startswith(b"["):
        return _IN_FORM.format("one JSON array")
    if first_line.startswith(b"{") and first_line.endswith(_GOES_ON) and not is_last:
        return _IN_FORM.format("JSON spread over several lines")
    if _NEXT_RESOURCE.search(first_line):
        return _IN_FORM.format("resources without a line feed between them")
    return None
