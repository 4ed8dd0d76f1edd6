"""While rows pass by, exactly those references are found that a plain walk of the decoded JSON finds at the listed paths."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.linked.reference_finder import ABOUT, ReferenceFinder
from connectors.fhir.linked.reference_paths import paths_to
from connectors.fhir.linked.reference_resolver import Resolver
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.vendors import PROFILES
from snapshots.record import Record
from snapshots.referred import ReferencePath, ReferenceTarget
from snapshots.unit import Counted
from tests.unit.connectors.spelling import SPELLINGS, spelt

BASE = "https://ehr.example.org/R4"
EVERYTHING = paths_to(PROFILES["generic"].references.follow, PROFILES["generic"])
PATHS = [
    ReferencePath("Encounter", "$.serviceProvider.reference", ("Organization",)),
    ReferencePath("Encounter", "$.participant.individual.reference", ("Practitioner", "PractitionerRole")),
    ReferencePath("Encounter", "$.participant.actor.reference", ("Location",)),
    ReferencePath("Encounter", "$.class.reference", ("Location",)),
]

TEXTS = st.sampled_from(
    [
        "Practitioner/1",
        "Practitioner/2",
        "PractitionerRole/1/_history/2",
        "Organization/1",
        f"{BASE}/Organization/2",
        "Location/1",
        "Location/é",
        "Patient/1",
        "#contained",
        "urn:uuid:1",
        "https://other.example/Location/3",
        "",
        "Location",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | TEXTS
REFERENCES = st.fixed_dictionaries(
    {"reference": TEXTS | SCALARS | st.lists(TEXTS, max_size=2)}, optional={"display": TEXTS}
)
NAMES = st.sampled_from(["individual", "actor", "reference", "serviceProvider", "note"])
ODD = st.recursive(
    SCALARS | REFERENCES, lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(NAMES, deeper, max_size=3)
)
ELEMENTS = st.fixed_dictionaries(
    {"note": ODD},
    optional={
        "serviceProvider": REFERENCES | ODD,
        "class": REFERENCES | ODD,
        "participant": st.lists(
            st.fixed_dictionaries({"individual": REFERENCES}, optional={"actor": REFERENCES}), max_size=3
        )
        | ODD,
        "contained": ODD,
    },
)


def record(body: bytes, patient: str | None = "p1", kind: str = "Encounter") -> Record:
    return Record(kind, "1", patient, None, None, b"", body)


def walked(value: Any, names: Sequence[str]) -> Iterator[Any]:
    """A lax jsonpath, implemented a second time: at each step a list means its members."""
    if not names:
        yield value
        return
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict) and names[0] in one:
            yield from walked(one[names[0]], names[1:])


def expected(resource: Any, paths: Sequence[ReferencePath] = PATHS) -> set[tuple[str, str]]:
    found = set()
    for path in paths:
        for text in walked(resource, path.path.split(".")[1:]):
            target = Resolver(FhirBase(BASE))(text) if isinstance(text, str) else None
            if isinstance(target, ReferenceTarget) and target.resource_type in path.targets:
                found.add(target[:2])
    return found


def finder(paths: Sequence[ReferencePath] = PATHS) -> ReferenceFinder:
    return ReferenceFinder(paths, Resolver(FhirBase(BASE)))


def found_by(find: ReferenceFinder, *records: Record) -> set[tuple[str, str]]:
    return {target[:2] for target in find(records).mentions}


@given(resource=ELEMENTS, spelling=st.sampled_from(SPELLINGS), seed=st.integers())
def test_a_resource_in_any_spelling_gives_the_references_that_walking_it_gives(
    resource: Any, spelling: str, seed: int
) -> None:
    body = spelt({"resourceType": "Encounter", **resource}, spelling, random.Random(seed))
    assert json.loads(body) == {"resourceType": "Encounter", **resource}
    assert found_by(finder(), record(body)) == expected(resource)


@given(st.lists(st.tuples(ELEMENTS, st.sampled_from(["p1", None])), max_size=6), st.integers(1, 6))
def test_many_resources_together_give_the_references_that_walking_each_gives(
    resources: list[tuple[Any, str | None]], size: int
) -> None:
    find, found = finder(), set()
    records = [record(json.dumps(resource).encode(), patient) for resource, patient in resources]
    for start in range(0, len(records), size):
        found |= found_by(find, *records[start : start + size])
    assert found == {target for resource, _ in resources for target in expected(resource)}


@given(
    st.lists(
        st.tuples(st.sampled_from(["Organization/1", "Organization/2"]), st.sampled_from(["p1", "p2", None])),
        max_size=6,
    )
)
def test_a_reference_in_several_charts_is_reported_with_one_of_their_patients(
    mentions: list[tuple[str, str | None]],
) -> None:
    find = finder()
    reported: dict[tuple[str, str], set[str | None]] = {}
    for text, patient in mentions:
        body = json.dumps({"serviceProvider": {"reference": text}}).encode()
        for target in find([record(body, patient)]).mentions:
            reported.setdefault(target[:2], set()).add(target.patient_id)
    for target, patients in reported.items():
        charts = {patient for text, patient in mentions if target in expected({"serviceProvider": {"reference": text}})}
        assert patients <= charts
        assert bool(patients - {None}) == bool(charts - {None})


def test_every_listed_path_is_searched() -> None:
    for path in EVERYTHING:
        resource: Any = f"{path.targets[0]}/x"
        for name in reversed(path.path.split(".")[1:]):
            resource = {name: resource}
        body = json.dumps(resource).encode()
        assert (path.targets[0], "x") in found_by(finder(EVERYTHING), record(body, kind=path.source)), path


def test_a_repeated_reference_is_reported_once_and_again_after_it_is_forgotten() -> None:
    find = finder()

    def mentioning(number: int) -> Record:
        return record(b'{"serviceProvider":{"reference":"Organization/%d"}}' % number)

    assert find([mentioning(0), mentioning(0)]).mentions == [ReferenceTarget("Organization", "0", "p1")]
    assert find([mentioning(0)]).mentions == []
    assert len(find([mentioning(number) for number in range(1, 25_000)]).mentions) == 24_999
    assert find([mentioning(0)]).mentions == [ReferenceTarget("Organization", "0", "p1")]


def test_a_dangling_reference_is_counted_once_however_often_it_occurs() -> None:
    find = finder()
    far = {"serviceProvider": {"reference": "https://other.example/Organization/1", "display": "x" * 500}}
    counted = [find([record(json.dumps(far).encode(), patient)]).counted for patient in ("p1", None, "p2")]
    assert counted == [{Counted(ABOUT, "Encounter", "foreign"): 1}, {}, {}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'{"serviceProvider":{"reference":"Organization/1"}',
        b'{"serviceProvider":{"reference":"\xff"}}',
    ],
)
def test_a_body_that_no_store_accepts_has_no_references_and_fails_nothing_else(body: bytes) -> None:
    good = record(b'{"serviceProvider":{"reference":"Organization/2"}}')
    assert found_by(finder(), record(body), good) == {("Organization", "2")}


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1" * 6_000, b"1.50"])
def test_a_number_too_large_for_a_double_hides_no_reference_beside_it(number: bytes) -> None:
    body = b'{"serviceProvider":{"reference":"Organization/2","x":%s}}' % number
    assert found_by(finder(), record(body)) == {("Organization", "2")}


@pytest.mark.parametrize("identity", ["%00", "a%00b", "é" * 600, "x" * 1025, "\\ud800"])
def test_a_reference_to_an_id_that_no_store_accepts_is_odd(identity: str) -> None:
    find = finder()
    body = b'{"serviceProvider":{"reference":"Organization/%s"}}' % identity.encode()
    assert found_by(find, record(body)) == set()
