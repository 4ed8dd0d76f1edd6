"""generator owns the order in which synthetic resources come: the shared ones, then patient by patient, then the Group.

It reads no clock and no global randomness: a seed gives the same bytes in every process and on every Python.
"""

from __future__ import annotations

from collections.abc import Iterator

from mocks.synthetic.chart import Chart
from mocks.synthetic.history import History
from mocks.synthetic.hospital import Hospital, make_group, make_hospital
from mocks.synthetic.json_bytes import to_json_bytes
from mocks.synthetic.person import Person, make_person, new_id, patient_resource, patient_seed
from mocks.synthetic.visits import plan_dense, plan_life
from mocks.synthetic.vocabulary import Json

_CREATED = "2024-01-02T06:00:00.000Z"
_BYTES_A_VISIT = 35_500  # for the dense plan, measured: the last visit is close to the present
_MEGABYTE = 1_000_000


def generate(patients: int, seed: int = 0, *, last_updated: bool = True) -> Iterator[Json]:
    """Yield FHIR R4 resources of synthetic patients: valid by fhir.resources R4B, every reference resolves within them.

    Patient `k` and its chart are the same whatever the number of patients; only the Group, which comes last, lists them all.
    One patient is in memory at a time. Resources share sub-dicts: copy before changing one. Decimals whose written form
    matters are `decimal.Decimal`; `to_json_bytes` keeps it. `last_updated=False` leaves `meta` out, as Epic does.
    """
    hospital = make_hospital(seed, last_updated=last_updated)
    yield from hospital
    for number in range(patients):
        yield from generate_patient(number, seed, hospital=hospital, last_updated=last_updated)
    yield make_group(seed, [patient_id(number, seed) for number in range(patients)], last_updated=last_updated)


def generate_patient(
    number: int, seed: int = 0, *, hospital: Hospital | None = None, last_updated: bool = True
) -> Iterator[Json]:
    """Yield one patient and their whole chart, which also refers to the seed's `shared_resources`."""
    person = make_person(seed, number)
    chart = Chart(person, hospital or make_hospital(seed, last_updated=last_updated), last_updated=last_updated)
    yield _patient(chart, seed)
    yield from History(chart).tell(plan_life(person))


def generate_chart(seed: int = 0, megabytes: float = 5.0, *, last_updated: bool = True) -> Iterator[Json]:
    """Yield the chart of one very ill patient, about that many megabytes of NDJSON, with the shared resources and a Group.

    A megabyte is 10^6 bytes. The size is reached to within one visit (some 30 kB).
    """
    hospital = make_hospital(seed, last_updated=last_updated)
    wanted = megabytes * _MEGABYTE
    person = make_person(seed, 0, elderly=True)
    chart = Chart(person, hospital, last_updated=last_updated)
    yield from hospital
    yield _patient(chart, seed)
    history, size = History(chart), 0
    history.allergic = history.paced = True  # so that the chart has every type
    for visit in plan_dense(person, 1 + int(wanted / _BYTES_A_VISIT)):
        if size >= wanted:
            break
        for resource in history.tell([visit]):
            size += len(to_json_bytes(resource)) + 1
            yield resource
    yield make_group(seed, [person.id], last_updated=last_updated)


def patient_id(number: int, seed: int = 0) -> str:
    """Return the id of patient `number`, without making the chart."""
    return new_id(patient_seed(seed, number))


def shared_resources(seed: int = 0, *, last_updated: bool = True) -> Hospital:
    """Return the organizations, locations, practitioners and medications that the seed's charts refer to."""
    return make_hospital(seed, last_updated=last_updated)


def _patient(chart: Chart, seed: int) -> Json:
    person: Person = chart.person
    organization = chart.hospital.organizations[chart.site]
    patient = patient_resource(person, seed, {"versionId": "1", "lastUpdated": _CREATED}, organization, chart.doctor)
    if not chart.last_updated:
        del patient["meta"]
    return patient
