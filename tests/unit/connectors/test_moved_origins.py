"""Links by the name that a server knows itself by, and the origin where it is reached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.errors import UnsafeLinkError
from connectors.fhir.linked.attachment_fetch import place_of
from connectors.fhir.linked.reference_resolver import Resolver
from connectors.fhir.search.paging import follow
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.links import origin, redirect_target, resolve, safe_url, written_origin
from connectors.fhir.vendors import profile_for
from snapshots.referred import ReferenceTarget

BASE = "https://ehr.example.org/fhir"
HOME = "https://ehr.example.org"
MOVED = {
    "http://localhost:8080": HOME,
    "https://fhir.internal": f"{HOME}/",
    "https://odd.example:443:8443": HOME,
    "https://twice.example:443:443": HOME,
}


@pytest.mark.parametrize(
    ("link", "reached"),
    [
        ("http://localhost:8080/fhir/Patient?_getpages=a%2Fb", f"{BASE}/Patient?_getpages=a%2Fb"),
        ("HTTP://LocalHost:8080/fhir", BASE),
        ("https://fhir.internal/fhir/x", f"{BASE}/x"),
        ("https://fhir.internal:443/fhir/x", f"{BASE}/x"),
        ("//fhir.internal/fhir/x", f"{BASE}/x"),
        ("https://odd.example:443:8443/fhir/x", f"{BASE}/x"),
        ("https://twice.example:443:443/fhir/x", f"{BASE}/x"),
        ("http://localhost:8080", HOME),
        ("https://ehr.example.org/fhir/x?next=http://localhost:8080/y", f"{BASE}/x?next=http://localhost:8080/y"),
        ("Patient/p1", f"{BASE}/Patient/p1"),
    ],
)
def test_a_mapped_origin_is_replaced_and_the_rest_of_the_link_is_unchanged(link: str, reached: str) -> None:
    assert safe_url(link, BASE, MOVED) == reached
    assert resolve(link, BASE, MOVED) == reached


@pytest.mark.parametrize("link", ["http://localhost:8081/x", "http://localhost/x", "http://localhost.evil.org:8080/x"])
def test_an_unmapped_origin_is_unchanged(link: str) -> None:
    assert origin(resolve(link, BASE, MOVED)) != HOME


@pytest.mark.parametrize("link", ["https://ehr.example.org:443:443/fhir/x?a=1:1", "https://ehr.example.org:443:443"])
def test_a_repeated_equal_port_is_that_port(link: str) -> None:
    assert safe_url(link, BASE) == link.replace(":443:443", ":443")
    assert origin(safe_url(link, BASE)) == HOME


def test_conflicting_ports_are_refused_with_the_ports_and_the_setting() -> None:
    with pytest.raises(UnsafeLinkError) as caught:
        safe_url("https://ehr.example.org:443:8443/fhir/Patient/SECRET", BASE)
    assert '"https://ehr.example.org:443:8443" = "https://ehr.example.org"' in str(caught.value)
    assert "rewrite_origins" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("link", ["http://localhost:8080/fhir/SECRET", "https://10.0.0.7/fhir/SECRET?name=SECRET"])
def test_the_refusal_of_a_next_link_names_the_origin_without_its_path_and_the_setting(link: str) -> None:
    with pytest.raises(UnsafeLinkError) as caught:
        follow(FhirBase(BASE), f"{BASE}/Patient", link)
    assert f'profile.links.rewrite_origins = {{ "{origin(link)}" = "{HOME}" }}' in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_origins_are_mapped_in_every_kind_of_link() -> None:
    link = "http://localhost:8080/fhir/Patient/p1"
    assert follow(FhirBase(BASE, MOVED), f"{BASE}/Patient", link) == f"{BASE}/Patient/p1"
    assert redirect_target(link, f"{BASE}/x", MOVED) == f"{BASE}/Patient/p1"
    assert FhirBase(BASE, MOVED).patient(link) == "p1"
    assert FhirBase(BASE).patient(link) is None
    assert Resolver(FhirBase(BASE, MOVED))(link) == ReferenceTarget("Patient", "p1")
    assert Resolver(FhirBase(BASE))(link) == "foreign"
    assert place_of("http://localhost:8080/fhir/Binary/b1", FhirBase(BASE, MOVED)) == "below"


@pytest.mark.parametrize(
    "wrong",
    [
        {"localhost:8080": HOME},
        {"http://localhost:8080/fhir": HOME},
        {"http://localhost:8080": "ehr.example.org"},
        {"http://localhost:8080": f"{HOME}/fhir"},
        {"http://user:pw@localhost": HOME},
    ],
)
def test_only_origins_are_mapped(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"links\.rewrite_origins"):
        profile_for("generic", {"links": {"rewrite_origins": wrong}})


def test_the_setting_is_accepted_as_documented() -> None:
    assert (
        profile_for("generic", {"links": {"rewrite_origins": MOVED}}).links.rewrite_origins["http://localhost:8080"]
        == HOME
    )


@given(st.text(max_size=60))
def test_only_the_origin_of_a_link_is_ever_shown(text: str) -> None:
    shown = written_origin(f"https://host/{text}")
    assert shown in (None, "https://host")
    found = written_origin(text)
    assert found is None or "/" not in found.partition("://")[2]
