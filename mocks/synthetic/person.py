"""person owns one synthetic patient: who they are, which illnesses they will have, and how their values change with age.

Everything comes from a generator seeded by (seed, number), so patient k is the same whatever the number of patients. Python
promises equal `random()` and `getrandbits()` across versions, so nothing else of `random` is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import TypeVar

from mocks.synthetic.vocabulary import CHRONIC, HL7, Chronic, Json

T = TypeVar("T")

PRESENT = date(2025, 6, 30)  # the day on which all histories end: no clock is read
OLDEST_YEARS = 92
DAYS_A_YEAR = 365.25

# the 2.999 arc is reserved for examples (ITU-T X.660)
MRN_SYSTEM = "urn:oid:2.999.7.5.737384.14"
OTHER_MRN_SYSTEM = "urn:oid:2.999.7.5.737384.0"

_GIVEN = {
    "female": (
        "Abrielle", "Brindle", "Corva", "Delphia", "Esmerelle", "Fennoa",
        "Gwenda", "Ilsabet", "Jorinde", "Kessia", "Lunetta", "Marigold",
    ),
    "male": (
        "Aldric", "Bramwell", "Corwin", "Dunstan", "Evander", "Fenwick",
        "Gareth", "Ivorn", "Jasker", "Kelvan", "Lorcan", "Matthis",
    ),
}  # fmt: skip
_FAMILY = (
    "Ashgrove", "Brackenbury", "Cobblewick", "Drummondale", "Elderfen", "Fairwater", "Greymantle", "Hollowell",
    "Ironside", "Juniperson", "Kettlewood", "Larkspurre", "Mossgrave", "Nettleship", "Oakhaven", "Pennyquick",
    "Quillfeather", "Rookwood", "Silverthorn", "Thistledown",
)  # fmt: skip
_STREETS = ("Juniper Lane", "Mill Road", "Harbour Street", "Orchard Way", "Station Avenue", "Quarry Hill")
_CITIES = (("Lower Wexcombe", "MA", "01999"), ("Port Hallow", "MA", "02999"), ("Saint Orrin", "CT", "06999"))
_RACES = (("2106-3", "White"), ("2054-5", "Black or African American"), ("2028-9", "Asian"), ("2131-1", "Other Race"))
_US_CORE_RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"

# trait -> (mean at 20 years, change per year, spread among people, noise from visit to visit)
_TRAITS: dict[str, tuple[float, float, float, float]] = {
    "systolic": (112, 0.35, 7, 5),
    "diastolic": (72, 0.12, 5, 4),
    "pulse": (72, 0.0, 8, 5),
    "breath": (15, 0.0, 1.5, 1),
    "temperature": (36.7, 0.0, 0.15, 0.2),
    "oxygen": (98, -0.02, 0.5, 0.7),
    "glucose": (86, 0.2, 6, 5),
    "urea": (13, 0.06, 2, 2),
    "creatinine": (0.85, 0.003, 0.12, 0.05),
    "calcium": (9.5, 0.0, 0.25, 0.2),
    "sodium": (140, 0.0, 1.5, 1.5),
    "potassium": (4.2, 0.0, 0.25, 0.25),
    "chloride": (102, 0.0, 1.5, 1.5),
    "co2": (25, 0.0, 1.2, 1.2),
    "cholesterol": (165, 0.5, 18, 8),
    "triglyceride": (105, 0.4, 25, 15),
    "ldl": (95, 0.3, 15, 7),
    "hdl": (55, 0.0, 8, 3),
    "leukocytes": (7.0, 0.0, 1.0, 0.9),
    "erythrocytes": (4.9, -0.003, 0.3, 0.1),
    "hemoglobin": (14.5, -0.008, 0.9, 0.3),
    "hematocrit": (43.5, -0.02, 2.2, 0.9),
    "platelets": (260, -0.3, 35, 18),
    "a1c": (5.2, 0.004, 0.2, 0.1),
}
# what an illness adds to a trait once it has begun
_SHIFTS: dict[str, dict[str, float]] = {
    "hypertension": {"systolic": 16, "diastolic": 9},
    "diabetes": {"glucose": 48, "a1c": 1.9},
    "hyperlipidemia": {"cholesterol": 45, "ldl": 40, "triglyceride": 40},
    "asthma": {"oxygen": -1},
}


def pick(rng: Random, choices: Sequence[T]) -> T:
    """Return one of the choices, all equally likely."""
    return choices[int(rng.random() * len(choices))]


def new_id(rng: Random) -> str:
    """Return 32 random hex digits written as a UUID: a valid FHIR id (R4 datatypes, id)."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclass(slots=True)
class Person:
    """One synthetic patient, and the random generator for the rest of the history."""

    rng: Random
    id: str
    number: int
    sex: str
    born: date
    ends: date  # the day of death, else the present: no visit after it
    died: bool
    adult_height: float
    adult_weight: float
    smoking: int
    chronic: dict[str, tuple[Chronic, float]]  # name -> illness, age at which it begins
    leanings: dict[str, float] = field(default_factory=dict)  # how far each trait differs from the mean, for life

    def age_on(self, day: date) -> float:
        """Return the age in years."""
        return (day - self.born).days / DAYS_A_YEAR

    def has(self, name: str, age: float) -> bool:
        """Return whether the chronic illness has begun by that age."""
        found = self.chronic.get(name)
        return found is not None and found[1] <= age

    def trait(self, name: str, age: float) -> float:
        """Return the trait's value at that age: mean, drift, this person's deviation, illness, and the day's noise."""
        mean, yearly, _, noise = _TRAITS[name]
        value = (
            mean + yearly * (age - 20 if age > 20 else 0.0) + self.leanings[name] + noise * (2 * self.rng.random() - 1)
        )
        for illness, shifts in _SHIFTS.items():
            if name in shifts and self.has(illness, age):
                value += shifts[name]
        return value

    def size(self, age: float) -> tuple[float, float]:
        """Return height in cm and weight in kg at that age: growth until 18, slow gain after it."""
        grown = min(age, 18.0) / 18.0
        height = 50 + (self.adult_height - 50) * grown**0.75
        weight = 3.4 + (self.adult_weight - 3.4) * grown**1.5
        if age > 18:
            weight += 0.22 * (min(age, 65.0) - 18) + 1.2 * (2 * self.rng.random() - 1)
        return height, weight


def patient_seed(seed: int, number: int) -> Random:
    """Return the generator of patient `number`: its first draw is the patient's id."""
    return Random(f"patient:{seed}:{number}")


def make_person(seed: int, number: int, *, elderly: bool = False) -> Person:
    """Return patient `number` of the seed; `elderly` gives the patient every chronic illness from 40 on."""
    rng = patient_seed(seed, number)
    ident = new_id(rng)
    sex = "female" if rng.random() < 0.51 else "male"
    age = 78.0 if elderly else rng.random() * OLDEST_YEARS
    born = PRESENT - timedelta(days=int(age * DAYS_A_YEAR) + 1)
    died = not elderly and age > 70 and rng.random() < 0.35
    ends = PRESENT - timedelta(days=int(rng.random() * 1500)) if died else PRESENT
    tall = sex == "male"
    chronic: dict[str, tuple[Chronic, float]] = {}
    for illness in CHRONIC:
        struck, when = rng.random() < illness.likelihood, rng.random()
        if struck or elderly:
            chronic[illness.name] = (illness, 40.0 if elderly else illness.from_age + 20 * when)
    person = Person(
        rng=rng, id=ident, number=number, sex=sex, born=born, ends=ends, died=died, chronic=chronic,
        adult_height=(176 if tall else 163) + 8 * (2 * rng.random() - 1),
        adult_weight=(76 if tall else 64) + 12 * (2 * rng.random() - 1),
        smoking=int(rng.random() ** 2 * 3),
    )  # fmt: skip
    person.leanings = {name: spread * (2 * rng.random() - 1) for name, (_, _, spread, _) in _TRAITS.items()}
    return person


def patient_resource(person: Person, seed: int, meta: Json, organization: Json, practitioner: Json) -> Json:
    """Return the Patient resource; identifiers use example arcs and the 999- block that no SSN uses."""
    rng = person.rng
    city, state, code = pick(rng, _CITIES)
    race, race_display = pick(rng, _RACES)
    race_coding = {"system": "urn:oid:2.16.840.1.113883.6.238", "code": race, "display": race_display}
    given, second, family = pick(rng, _GIVEN[person.sex]), pick(rng, _GIVEN[person.sex]), pick(rng, _FAMILY)
    name = {"use": "official", "family": family, "given": [given, second], "text": f"{given} {family}"}
    mrn = {"coding": [{"system": HL7 + "v2-0203", "code": "MR", "display": "Medical Record Number"}], "text": "MRN"}
    ssn = {"coding": [{"system": HL7 + "v2-0203", "code": "SS", "display": "Social Security Number"}]}
    ssn_value = f"999-{person.number // 10_000 % 100:02d}-{person.number % 10_000:04d}"
    resource: Json = {
        "resourceType": "Patient",
        "id": person.id,
        "meta": meta,
        "extension": [{
            "url": _US_CORE_RACE,
            "extension": [
                {"url": "ombCategory", "valueCoding": race_coding},
                {"url": "text", "valueString": race_display},
            ],
        }],
        "identifier": [
            {"use": "usual", "type": mrn, "system": MRN_SYSTEM, "value": f"SYN{seed}-{person.number:06d}"},
            {"use": "secondary", "type": mrn, "system": OTHER_MRN_SYSTEM, "value": f"E{person.number + 1000}"},
            {"type": ssn, "system": "http://hl7.org/fhir/sid/us-ssn", "value": ssn_value},
            {"value": f"{person.number + 7_000_000}"},  # Millennium writes one without a system (vendor-facts 2.8)
        ],
        "active": True,
        "name": [name],
        "telecom": [
            {"system": "phone", "value": f"555-01{int(rng.random() * 100):02d}", "use": "home"},
            {"system": "email", "value": f"{given}.{family}{person.number}@example.org".lower()},
        ],
        "gender": person.sex,
        "birthDate": person.born.isoformat(),
        "address": [{
            "use": "home", "line": [f"{1 + int(rng.random() * 400)} {pick(rng, _STREETS)}"],
            "city": city, "state": state, "postalCode": code, "country": "US",
        }],
        "communication": [{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "en-US"}]}, "preferred": True}],
        "generalPractitioner": [practitioner],
        "managingOrganization": organization,
    }  # fmt: skip
    if person.died:
        resource["deceasedDateTime"] = f"{person.ends.isoformat()}T23:10:00-05:00"
    return resource
