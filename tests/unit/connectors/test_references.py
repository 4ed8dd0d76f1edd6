"""Where references occur, and what they lead to."""

from __future__ import annotations

import random
from functools import cache

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.connections import Connection
from connectors.fhir.capability import ASKED_BY_PATIENT, Capability
from connectors.fhir.linked.reference_fetch import ReferenceFetcher
from connectors.fhir.linked.reference_paths import PATHS, followed_types, paths_to
from connectors.fhir.linked.reference_resolver import Resolver
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.vendors import PROFILES, profile_for
from snapshots.referred import ReferenceTarget

BASE = "https://ehr.example.org/api/FHIR/R4"
IDS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.", min_size=1, max_size=90).filter(
    lambda text: text not in {".", ".."}
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("Medication/m1", ("Medication", "m1")),
        (f"{BASE}/Medication/m1", ("Medication", "m1")),
        ("Medication/m1/_history/3", ("Medication", "m1")),
        (f"{BASE}/Medication/m1/_history/3", ("Medication", "m1")),
        ("http://ehr.example.org/api/FHIR/R4/Medication/m1", ("Medication", "m1")),  # behind a proxy: upgraded
        (
            "https://EHR.example.org:443/api/FHIR/R4/Medication/m1",
            ("Medication", "m1"),
        ),  # the same base, spelt otherwise
        ("Medication/m1#part", ("Medication", "m1")),
        ("Observation/L-1.2", ("Observation", "L-1.2")),
        ("Medication/a%2Fb", ("Medication", "a/b")),
    ],
)
def test_a_reference_below_our_own_base_is_resolved(text: str, target: tuple[str, str] | None) -> None:
    assert Resolver(FhirBase(BASE))(text) == (ReferenceTarget(*target) if target else None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("#med", "contained"),
        ("urn:uuid:9f0a3c1e-0000-4000-8000-000000000000", "urn"),
        ("urn:oid:1.2.3", "urn"),
        ("https://other.example.com/fhir/Medication/m1", "foreign"),
        ("https://ehr.example.org.evil.example/api/FHIR/R4/Medication/m1", "foreign"),
        ("https://ehr.example.org@evil.example/api/FHIR/R4/Medication/m1", "foreign"),
        ("//evil.example/Medication/m1", "foreign"),
        ("https://ehr.example.org/api/FHIR/DSTU2/Medication/m1", "foreign"),
        ("../DSTU2/Medication/m1", "foreign"),
        ("Medication?identifier=1", "odd"),
        ("Medication", "odd"),
        ("Medication/..", "odd"),
        ("", "odd"),
        ("file:///etc/passwd", "foreign"),
        ("javascript:alert(1)", "odd"),
    ],
)
def test_a_reference_that_this_ehr_cannot_resolve_says_why(text: str, why: str) -> None:
    assert Resolver(FhirBase(BASE))(text) == why


@given(st.text())
def test_no_text_leads_off_the_base_or_raises(text: str) -> None:
    target = Resolver(FhirBase(BASE))(text)
    assert isinstance(target, str) or (target.resource_type.isalpha() and target.id not in {"", ".", ".."})


@given(kind=st.sampled_from(sorted(ASKED_BY_PATIENT)), identity=IDS, version=st.none() | IDS, absolute=st.booleans())
def test_every_way_to_write_a_reference_gives_the_same_target(
    kind: str, identity: str, version: str | None, absolute: bool
) -> None:
    text = (f"{BASE}/" if absolute else "") + f"{kind}/{identity}" + (f"/_history/{version}" if version else "")
    assert Resolver(FhirBase(BASE))(text) == ReferenceTarget(kind, identity)


def test_every_path_exists_and_leads_to_types_that_some_profile_follows() -> None:
    followed = {one for profile in PROFILES.values() for one in profile.references.follow}
    for source, elements in PATHS.items():
        assert source.isalpha()
        for element, targets in elements.items():
            assert all(part.isalpha() for part in element.split("."))
            assert set(targets) <= followed, (source, element)


def test_a_type_is_followed_if_the_profile_the_user_the_server_and_the_token_all_agree() -> None:
    profile = profile_for("epic", {"references": {"follow": ["Medication", "Practitioner", "Location", "Device"]}})
    capability = Capability(
        search_params={"Medication": frozenset(), "Practitioner": frozenset(), "Location": frozenset()}
    )
    granted = {"Medication", "Practitioner", "Device"}
    assert followed_types((), profile, capability, granted.__contains__) == ("Medication", "Practitioner")
    assert followed_types(("Practitioner",), profile, capability, granted.__contains__) == ("Practitioner",)
    assert followed_types((), profile, Capability(), granted.__contains__) == ("Medication", "Practitioner", "Device")


def test_a_site_adds_paths_of_its_own() -> None:
    profile = profile_for(
        "generic", {"references": {"follow": ["Account"], "paths": {"Encounter": {"account": ["Account"]}}}}
    )
    (path,) = paths_to(("Account",), profile)
    assert path == ("Encounter", "$.account.reference", ("Account",))


@pytest.mark.parametrize("element", ["a[*]", "a b", "$.x", "a..b", 'a".b'])
def test_a_path_to_no_element_is_refused(element: str) -> None:
    with pytest.raises(ValueError, match=r"references\.paths"):
        profile_for("generic", {"references": {"paths": {"Encounter": {element: ["Account"]}}}})


@cache
def fetcher(vendor: str) -> ReferenceFetcher:
    """One that has sent nothing: it only divides what is due."""
    connection = Connection(name="site", vendor=vendor, base_url=BASE, auth="none")
    client = EhrClient(connection, PROFILES[vendor], clock=lambda: 0.0, sleep=anyio.sleep, rng=random.Random(1))
    return ReferenceFetcher(client, Capability())


@pytest.mark.parametrize(("vendor", "most"), [("cerner", 50), ("epic", 1), ("generic", 50)])
@given(
    st.lists(
        st.tuples(st.sampled_from(["p1", "p2", "p3"]), IDS), min_size=1, max_size=200, unique_by=lambda one: one[1]
    )
)
def test_batches_request_everything_once_in_lists_that_the_vendor_accepts(
    vendor: str, most: int, found: list[tuple[str, str]]
) -> None:
    due = [ReferenceTarget("Observation", identity, patient) for patient, identity in sorted(found)]
    batches = [list(unit.ids) for unit in fetcher(vendor).units(due)]
    assert [identity for batch in batches for identity in batch] == [target.id for target in due]
    assert all(len(batch) <= most and sum(map(len, batch)) <= 2_000 for batch in batches)
    owner = {target.id: target.patient_id for target in due}
    if vendor == "cerner":
        assert all(len({owner[identity] for identity in batch}) == 1 for batch in batches)


def test_a_reference_unit_has_no_id_in_its_key_or_template() -> None:
    (unit,) = fetcher("cerner").units([ReferenceTarget("Practitioner", "secret-id", "secret-patient")])
    assert "secret" not in unit.key + unit.template
    assert unit.patient_id is None
