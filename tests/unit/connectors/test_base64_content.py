"""Base64 as servers write it."""

from __future__ import annotations

import pytest

from connectors.fhir.base64_content import base64_content


@pytest.mark.parametrize("text", ["+/8=", "+/8", "-_8=", "-_8", " +/\r\n8= "])
def test_white_space_the_url_alphabet_and_missing_padding_are_accepted(text: str) -> None:
    assert base64_content(text) == b"\xfb\xff"


@pytest.mark.parametrize("text", ["!!!", "abcde", "ab=cd", "\u00e9\u00e9\u00e9\u00e9"])
def test_invalid_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever it is
        base64_content(text)
