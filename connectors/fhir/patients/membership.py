"""Decides to which patients' charts a resource belongs: those that it names where R4's compartment looks. Pure.

Only literal references to this EHR's Patients count: `compartment` has the elements, `fhir_base` reads the references. A resource
that names no patient in this way (but an identifier, a contained Patient, another server's) may still belong to the patient whose
search brought it (`nameless`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from connectors.fhir.patients.compartment import PATHS
from connectors.fhir.transport.fhir_base import FhirBase
from snapshots.record import Record

ABSENT = msgspec.Raw()  # of an element that is left raw
Keys = TypeVar("Keys", bound="Naming")
Places = tuple[tuple[str, tuple[str, ...]], ...]  # an attribute with raw JSON, and the elements' names below it
Shape = tuple[str, msgspec.json.Decoder[Keys], Places]  # how a type is read


class Naming(msgspec.Struct):
    """The elements that name the patient of nearly every type. `Any`, since real data disagrees with the specification."""

    subject: Any = None
    patient: Any = None
    beneficiary: Any = None


def shapes(keys: type[Keys], plain: msgspec.json.Decoder[Keys]) -> Mapping[str, Shape[Keys]]:
    """Return how to read each type of the compartment: as `plain` does, plus the other elements that name patients, left raw."""
    found: dict[str, Shape[Keys]] = {}
    for resource_type, paths in PATHS.items():
        split = [tuple(path.split(".")) for path in paths]
        places = [(names[0], names[1:]) for names in split if names[0] not in Naming.__struct_fields__ or names[1:]]
        found[resource_type] = resource_type, plain, ()
        if places:
            attributes = {f"{name}_": name for name, _ in places}  # `for` is a word of Python
            fields = [(attribute, msgspec.Raw, ABSENT) for attribute in attributes]
            own: Any = msgspec.defstruct(f"{resource_type}Keys", fields, bases=(keys,), rename=attributes)
            read = msgspec.json.Decoder(own)
            found[resource_type] = resource_type, read, tuple((f"{name}_", below) for name, below in places)
    return found


def patients_of(keys: Naming, places: Places, base: FhirBase) -> tuple[str | None, tuple[str, ...]]:
    """Return the first patient that the resource names (None: it names none), and the others, each once, in the order found.

    `keys` and `places` come from the resource's entry in `shapes`. References to other servers count as naming nobody.

    Raises:
        msgspec.DecodeError: one of the elements is no JSON.
    """
    first: str | None = None
    others: list[str] = []
    for value in (keys.subject, keys.patient, keys.beneficiary):
        if value is None:
            continue
        if type(value) is dict and "reference" in value:  # nearly all
            reference = value["reference"]
            patient = base.patient(reference) if type(reference) is str else None
            if first is None:
                first = patient
            elif patient is not None:
                others.append(patient)
        else:
            others += _patients(value, (), base)
    for attribute, below in places:
        raw = getattr(keys, attribute)
        if raw is not ABSENT and (b"Patient/" in (raw := bytes(raw)) or b"Patient\\/" in raw):
            others += _patients(msgspec.json.decode(raw), below, base)
    if not others:
        return first, ()
    found = dict.fromkeys(others if first is None else (first, *others))
    return next(iter(found)), tuple(found)[1:]


def nameless(record: Record, resource_type: str, patient: str | None) -> bool:
    """Whether a patient's search brought a record of the searched type that names no patient.

    It is that patient's, because the EHR listed it so and nothing in it says otherwise, if the EHR heeded the patient at all
    (F16). A record that names only other patients is left as it is. Records of other types came along, and were not searched by
    patient.
    """
    is_searched = patient is not None and resource_type != "Patient" and record.resource_type == resource_type
    return is_searched and record.patient_id is None


def _patients(value: Any, path: Sequence[str], base: FhirBase) -> Iterator[str]:
    """The patients that references at a path below a value name.

    Each member of a list counts, also where it is written as an object of numbers (`{"0": …}`), and a text in place of a
    Reference; other shapes are passed over.
    """
    if isinstance(value, dict) and all(map(str.isdecimal, value)):
        value = list(value.values())
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, str) and not path:
            if (patient := base.patient(one)) is not None:
                yield patient
        elif isinstance(one, dict):
            if path:
                yield from _patients(one.get(path[0]), path[1:], base)
            elif isinstance(one.get("reference"), str):
                patient = base.patient(one["reference"])
                if patient is not None:
                    yield patient
