"""history owns the course of a synthetic chart: which entries each visit adds, given the visits before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mocks.synthetic.chart import Chart, Sitting
from mocks.synthetic.clinical import (
    allergy,
    care,
    condition,
    device,
    document,
    encounter,
    immunization,
    medication_request,
    procedure,
)
from mocks.synthetic.observations import acute_laboratory, chest_xray, laboratory_panel, narrative, vital_signs
from mocks.synthetic.person import pick
from mocks.synthetic.visits import Visit
from mocks.synthetic.vocabulary import (
    ACUTE,
    ALLERGIES,
    CHRONIC,
    INFLUENZA,
    MEDICATION_RECONCILIATION,
    PROCEDURES,
    VACCINES,
    Json,
)

_RENEW_EVERY = 2  # number of follow-ups between prescriptions of the same lasting drug


class History:
    """What a chart remembers from visit to visit."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.problems: dict[str, Json] = {}  # chronic illness -> reference to its Condition
        self.doses: set[tuple[str, float]] = set()
        self.procedures: set[tuple[str, float]] = set()
        self.visits = 0
        self.allergic = chart.person.rng.random() < 0.35
        self.paced = chart.person.rng.random() < 0.12

    def tell(self, visits: Iterable[Visit]) -> Iterator[Json]:
        """Yield every entry of every visit; an entry refers only to the patient, the shared resources or this same chart."""
        for visit in visits:
            sitting = self.chart.sitting(visit)
            self.visits += 1
            yield from self._acute(sitting) if visit.kind in {"acute", "emergency"} else self._planned(sitting)

    def _acute(self, sitting: Sitting) -> Iterator[Json]:
        code, drug = pick(self.chart.person.rng, ACUTE)
        diagnosis = condition(sitting, code, chronic=False)
        reference = _reference(diagnosis)
        yield encounter(sitting, [reference])
        yield diagnosis
        yield from vital_signs(sitting)
        yield from acute_laboratory(sitting)
        if sitting.kind == "emergency":
            yield from chest_xray(sitting)
            yield from laboratory_panel(sitting, "basic")
        if drug is not None:
            yield medication_request(sitting, drug, reference, chronic=False)
        yield document(sitting)

    def _planned(self, sitting: Sitting) -> Iterator[Json]:
        found = list(self._new_problems(sitting))
        yield encounter(sitting, list(self.problems.values())[:3])
        yield from found
        yield from vital_signs(sitting)
        if sitting.kind == "wellness":
            yield from self._checkup(sitting)
        for illness in CHRONIC:
            if illness.name in self.problems and self.visits % _RENEW_EVERY == 0:
                yield medication_request(sitting, illness.drug, self.problems[illness.name], chronic=True)
        panels = {panel for illness in CHRONIC if illness.name in self.problems for panel in illness.panels}
        if sitting.kind == "wellness" and sitting.age >= 18:
            panels |= {"basic", "count"} if sitting.age < 35 else {"basic", "count", "lipid"}
        for panel in sorted(panels):  # a set's order varies between processes
            yield from laboratory_panel(sitting, panel)
        yield document(sitting)

    def _new_problems(self, sitting: Sitting) -> Iterator[Json]:
        for illness in CHRONIC:
            if illness.name not in self.problems and self.chart.person.has(illness.name, sitting.age):
                problem = condition(sitting, illness.code, chronic=True)
                first = not self.problems
                self.problems[illness.name] = _reference(problem)
                yield problem
                yield medication_request(sitting, illness.drug, _reference(problem), chronic=True)
                if first:
                    yield from care(sitting, _reference(problem))

    def _checkup(self, sitting: Sitting) -> Iterator[Json]:
        yield from narrative(sitting)
        if self.allergic and sitting.age > 2:
            self.allergic = False
            yield allergy(sitting, *pick(self.chart.person.rng, ALLERGIES))
        if self.paced and sitting.age > 62:
            self.paced = False
            yield device(sitting)
        for cvx, display, ages in VACCINES:
            for due in ages:
                if due <= sitting.age and (cvx, due) not in self.doses:
                    self.doses.add((cvx, due))
                    yield immunization(sitting, cvx, display)
        if sitting.age >= 18:
            yield immunization(sitting, INFLUENZA["coding"][0]["code"], INFLUENZA["text"])
        yield procedure(sitting, MEDICATION_RECONCILIATION)
        for code, ages in PROCEDURES:
            for due in ages:
                key = (code["text"], due)
                if due <= sitting.age and key not in self.procedures:
                    self.procedures.add(key)
                    yield procedure(sitting, code)


def _reference(resource: Json) -> Json:
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}
