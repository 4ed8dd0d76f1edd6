"""Content that is in JSON as base64 (FHIR's base64Binary), as servers write it. Pure."""

from __future__ import annotations

from base64 import b64decode

_URL_SAFE = str.maketrans("-_", "+/")


def base64_content(text: str) -> bytes:
    """The bytes. White space, a missing padding and the alphabet for URLs (RFC 4648 §5) leave no doubt about them.

    Raises: ValueError: it is not base64.
    """
    plain = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
