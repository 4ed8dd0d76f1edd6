"""hospital owns what all synthetic patients of a seed share: organizations, locations, practitioners and the formulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from mocks.synthetic.person import new_id
from mocks.synthetic.vocabulary import DRUGS, HL7, Json

_LAST_UPDATED = "2015-01-05T08:00:00.000Z"
_SITES = (
    "Wexcombe General Hospital (synthetic)",
    "Port Hallow Clinic (synthetic)",
    "Saint Orrin Family Practice (synthetic)",
)
_DOCTORS = (
    ("Alma", "Featherstone"), ("Bastian", "Goodbarrel"), ("Clemence", "Hartwhistle"),
    ("Dorian", "Inkpen"), ("Elspeth", "Jollymore"), ("Florian", "Kingsley-Moor"),
)  # fmt: skip


@dataclass(frozen=True)
class Hospital:
    """The shared resources of a seed, and the references with which other resources name them."""

    resources: tuple[Json, ...]
    organizations: tuple[Json, ...]
    locations: tuple[Json, ...]
    practitioners: tuple[Json, ...]
    medications: dict[str, Json]

    def __iter__(self) -> Iterator[Json]:
        return iter(self.resources)


def make_hospital(seed: int, *, last_updated: bool = True) -> Hospital:
    """Return the hospital of the seed: three sites with a location each, six practitioners, one Medication per drug."""
    rng = Random(f"hospital:{seed}")
    meta = {"versionId": "1", "lastUpdated": _LAST_UPDATED} if last_updated else None
    resources: list[Json] = []

    def add(resource_type: str, display: str, **content: object) -> Json:
        resource: Json = {"resourceType": resource_type, "id": new_id(rng)}
        if meta is not None:
            resource["meta"] = meta
        resources.append(resource | content)
        return {"reference": f"{resource_type}/{resource['id']}", "display": display}

    provider = [{"coding": [{"system": HL7 + "organization-type", "code": "prov", "display": "Healthcare Provider"}]}]
    organizations = tuple(add("Organization", name, active=True, type=provider, name=name) for name in _SITES)
    locations = tuple(
        add(
            "Location",
            f"{name}, ground floor",
            status="active",
            name=f"{name}, ground floor",
            mode="instance",
            managingOrganization=site,
        )
        for name, site in zip(_SITES, organizations, strict=True)
    )
    practitioners = tuple(
        add(
            "Practitioner", f"Dr. {given} {family}", active=True, gender="female" if number % 2 == 0 else "male",
            # an NPI has ten digits and begins with 1 or 2: these cannot be one
            identifier=[{"system": "http://hl7.org/fhir/sid/us-npi", "value": f"999999{number:04d}"}],
            name=[{"family": family, "given": [given], "prefix": ["Dr."]}],
        )
        for number, (given, family) in enumerate(_DOCTORS)
    )  # fmt: skip
    medications = {name: add("Medication", code["text"], code=code, status="active") for name, code in DRUGS.items()}
    return Hospital(tuple(resources), organizations, locations, practitioners, medications)


def make_group(seed: int, members: Iterator[str] | list[str], *, last_updated: bool = True) -> Json:
    """Return one Group with all patients as members, as registered for bulk export."""
    rng = Random(f"group:{seed}")
    group: Json = {"resourceType": "Group", "id": new_id(rng)}
    if last_updated:
        group["meta"] = {"versionId": "1", "lastUpdated": _LAST_UPDATED}
    return group | {
        "active": True,
        "type": "person",
        "actual": True,
        "name": "All synthetic patients",
        "member": [{"entity": {"reference": f"Patient/{member}"}} for member in members],
    }
