"""Which links are followed, as which bytes, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.errors import UnsafeLinkError
from connectors.fhir.transport.links import elsewhere, header_link, origin, redirect_target, resolve, safe_url

BASE = "https://ehr.example/api/FHIR/R4"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://EHR.example/x", "https://ehr.example"),
        ("https://ehr.example:443/x", "https://ehr.example"),
        ("https://ehr.example:8443", "https://ehr.example:8443"),
        ("http://ehr.example:80/x?y", "http://ehr.example"),
        ("http://[::1]:9000/x", "http://[::1]:9000"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url, expected):
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ftp://ehr.example/x",
        "/relative",
        "https://user:secret@ehr.example/x",
        "https://ehr.example@evil.example/x",
        "https://ehr.example\\@evil.example/x",
        "https://ehr.example/\r\nX-Evil: 1",
        "https:///x",
        "javascript:alert(1)",
        "https://[::1/x",
        "https://ehr.example:99999999/x",
    ],
)
def test_anything_but_a_plain_web_address_is_refused_without_being_quoted(url):
    with pytest.raises(UnsafeLinkError) as raised:
        origin(url)
    assert "example" not in str(raised.value)
    assert "ask the EHR's operator to correct the links" in str(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    "link",
    [
        "https://ehr.example/api/FHIR/R4/Observation?sessionID=16-ABC&x=%2C,%3A:|a%7Cb&e=",
        "https://bucket.example/f.ndjson?X-Amz-Signature=%2F+%2B==&a=b%2fc#part",
        "https://ehr.example/a/../b//c/./d?",
    ],
)
def test_an_absolute_link_keeps_its_bytes(link):
    assert safe_url(link, BASE) == link


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("Patient?page=2&x=%2C", BASE + "/Patient?page=2&x=%2C"),
        ("/other/path?x=|", "https://ehr.example/other/path?x=|"),
        ("//ehr.example/x", "https://ehr.example/x"),
        (" https://ehr.example/x ", "https://ehr.example/x"),
        ("https://ehr.example/x?name=a b&c=é", "https://ehr.example/x?name=a%20b&c=%C3%A9"),
    ],
)
def test_a_relative_link_is_resolved_and_only_impossible_bytes_are_encoded(link, expected):
    assert resolve(link, BASE) == expected


def test_an_http_link_on_the_same_host_is_requested_by_https():
    assert safe_url("http://ehr.example/x?a=%2C", BASE) == "https://ehr.example/x?a=%2C"
    assert safe_url("http://ehr.example/x", "https://ehr.example:8443/R4") == "https://ehr.example:8443/x"


@pytest.mark.parametrize("link", ["http://other.example/x", "http://ehr.example:8080/x"])
def test_an_http_link_elsewhere_is_refused_under_https(link):
    with pytest.raises(UnsafeLinkError):
        safe_url(link, BASE)


def test_an_http_base_may_be_requested_by_http():
    assert safe_url("http://127.0.0.1:5/x", "http://127.0.0.1:5/R4") == "http://127.0.0.1:5/x"


def test_a_redirect_resolves_against_its_request_and_never_leaves_https():
    assert redirect_target("../c?x=%2C", "https://ehr.example/a/b") == "https://ehr.example/c?x=%2C"
    with pytest.raises(UnsafeLinkError):
        redirect_target("http://ehr.example/a", "https://ehr.example/a")


def test_a_redirect_from_http_to_https_on_the_same_host_suggests_changing_base_url():
    advice = elsewhere("https://ehr.example/R4/metadata", "http://ehr.example/R4")
    assert advice.startswith("let base_url begin with https://ehr.example; or")
    assert "base_url" not in elsewhere("https://other.example/R4", "http://ehr.example/R4")


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (None, None),
        ("", None),
        ("/a?x=1,2", "/a?x=1,2"),
        ("/a?x=1, 2", "/a?x=1, 2"),
        ("/a, /a", "/a"),
        ("<https://h/a>", "https://h/a"),
        ('"/a"', "/a"),
        ("<https://h/a>, <https://h/a>", "https://h/a"),
        ('"', '"'),
        ("https://h/a, https://h/a", "https://h/a"),
        ("https://h/a, https://h/b", "https://h/a"),
    ],
)
def test_a_header_repeated_by_a_gateway_gives_its_first_url(value, url):
    assert header_link(value) == url


@given(st.text())
def test_any_text_is_a_safe_url_or_refused(link):
    try:
        url = safe_url(link, BASE)
    except UnsafeLinkError:
        return
    assert url.startswith("https://")
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
