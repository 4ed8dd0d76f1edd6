"""observations owns the Observations of a visit, and the DiagnosticReports that group them.

Every Observation has one of the categories that Epic can search. Values come from the person's traits, so they drift with
age and illness; decimals keep their zeros (`36.60`, `5.0`).
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from mocks.synthetic.chart import Sitting
from mocks.synthetic.person import pick
from mocks.synthetic.vocabulary import (
    BLOOD_PRESSURE,
    BMI,
    CATEGORY,
    CHEST_XRAY,
    CRP,
    DIASTOLIC,
    HEART_RATE,
    HEIGHT,
    LAB_REPORT,
    NEGATIVE,
    NITRITE,
    OXYGEN,
    PAIN,
    PANELS,
    PHQ2,
    PHYSICAL_FINDINGS,
    POSITIVE,
    RADIOLOGY_REPORT,
    RADIOLOGY_STUDY,
    RESPIRATORY_RATE,
    SMOKING_ANSWERS,
    SMOKING_STATUS,
    SYSTOLIC,
    TEMPERATURE,
    UCUM,
    WEIGHT,
    Json,
    Measure,
    status,
)

_NORMAL, _HIGH, _LOW = (status("v3-ObservationInterpretation", code) for code in ("N", "H", "L"))
_NOT_PERFORMED = status("data-absent-reason", "not-performed")
_SCORE = {"unit": "{score}", "system": UCUM, "code": "{score}"}
_FINDINGS = (
    "Alert and oriented, no acute distress. Heart sounds normal, lungs clear.",
    "Well nourished. Abdomen soft, no tenderness. Gait steady. ",  # with a trailing space, as Epic's (vendor-facts 1.10)
    "Mild oedema of both ankles. Skin intact.",
)
_IMPRESSIONS = (
    "No acute cardiopulmonary process.",
    "Mild hyperinflation, no consolidation.",
    "Heart size at the upper limit of normal.",
)


def written(value: float, digits: int) -> Decimal | int:
    """Return the value rounded to that many digits, with trailing zeros; an int for no digits."""
    return Decimal(format(value, f".{digits}f")) if digits else round(value)


def quantity(measure: Measure, value: float) -> Json:
    """Return the Quantity of a measured value."""
    return {"value": written(value, measure.digits), "unit": measure.unit, "system": UCUM, "code": measure.ucum}


def _observation(sitting: Sitting, category: str, code: Json) -> Json:
    resource = sitting.entry("Observation")
    resource["status"] = "final"
    resource["category"] = CATEGORY[category]
    resource["code"] = code
    resource["subject"] = sitting.chart.subject
    resource["encounter"] = sitting.encounter
    resource["effectiveDateTime"] = sitting.starts
    resource["issued"] = sitting.issued
    resource["performer"] = [sitting.chart.doctor]
    return resource


def _vital(sitting: Sitting, measure: Measure, value: float) -> Json:
    resource = _observation(sitting, "vital-signs", measure.code)
    resource["valueQuantity"] = quantity(measure, value)
    return resource


def vital_signs(sitting: Sitting) -> Iterator[Json]:
    """Yield pressure, pulse, temperature; also height, weight and the rest at a check-up."""
    person, age = sitting.chart.person, sitting.age
    pressure = _observation(sitting, "vital-signs", BLOOD_PRESSURE)
    young = 0.75 + 0.25 * min(age, 18) / 18
    pressure["component"] = [
        {"code": SYSTOLIC.code, "valueQuantity": quantity(SYSTOLIC, person.trait("systolic", age) * young)},
        {"code": DIASTOLIC.code, "valueQuantity": quantity(DIASTOLIC, person.trait("diastolic", age) * young)},
    ]
    yield pressure
    yield _vital(sitting, HEART_RATE, person.trait("pulse", age) * (1.6 - 0.6 * min(age, 14) / 14))
    fever = 1.3 if sitting.kind == "acute" and person.rng.random() < 0.4 else 0.0
    yield _vital(sitting, TEMPERATURE, person.trait("temperature", age) + fever)
    if sitting.kind == "acute":
        return
    height, weight = person.size(age)
    yield _vital(sitting, HEIGHT, height)
    yield _vital(sitting, WEIGHT, weight)
    if age >= 2:
        yield _vital(sitting, BMI, weight / (height / 100) ** 2)
    yield _vital(sitting, RESPIRATORY_RATE, person.trait("breath", age) * (2 - min(age, 14) / 14))
    oxygen = _observation(sitting, "vital-signs", OXYGEN.code)
    if person.rng.random() < 0.05:
        oxygen["dataAbsentReason"] = _NOT_PERFORMED
    else:
        oxygen["valueQuantity"] = quantity(OXYGEN, min(person.trait("oxygen", age), 100.0))
    yield oxygen


def _laboratory(sitting: Sitting, measure: Measure, value: float) -> Json:
    resource = _observation(sitting, "laboratory", measure.code)
    resource["valueQuantity"] = measured = quantity(measure, value)
    if measure.low is not None and measure.high is not None:
        low, high = Decimal(measure.low), Decimal(measure.high)
        resource["interpretation"] = [
            _LOW if measured["value"] < low else _HIGH if measured["value"] > high else _NORMAL
        ]
        unit = {"unit": measure.unit, "system": UCUM, "code": measure.ucum}
        resource["referenceRange"] = [
            {
                "low": {"value": low, **unit},
                "high": {"value": high, **unit},
                "text": f"{measure.low}-{measure.high} {measure.unit}",
            }
        ]
    return resource


def _line(result: Json) -> str:
    measured = result.get("valueQuantity")
    value = result.get("valueString", "") if measured is None else f"{measured['value']} {measured['unit']}"
    return f"{result['code']['text']}: {value}"


def _report(sitting: Sitting, category: list[Json], code: Json, results: list[Json]) -> Json:
    report = sitting.entry("DiagnosticReport")
    report |= {
        "text": sitting.narrative(code["text"], *(_line(result) for result in results)),
        "status": "final",
        "category": category,
        "code": code,
        "subject": sitting.chart.subject,
        "encounter": sitting.encounter,
        "effectiveDateTime": sitting.starts,
        "issued": sitting.issued,
        "performer": [sitting.chart.hospital.organizations[sitting.chart.site]],
        "result": [
            {"reference": f"Observation/{result['id']}", "display": result["code"]["text"]} for result in results
        ],
    }
    return report


def laboratory_panel(sitting: Sitting, name: str) -> Iterator[Json]:
    """Yield a panel's Observations, then the DiagnosticReport that refers to them."""
    code, measures = PANELS[name]
    person, age = sitting.chart.person, sitting.age
    results = [_laboratory(sitting, measure, max(person.trait(trait, age), 0.1)) for measure, trait in measures]
    yield from results
    yield _report(sitting, LAB_REPORT, code, results)


def acute_laboratory(sitting: Sitting) -> Iterator[Json]:
    """Yield the tests of an acute visit: CRP (below the limit of detection for some) or urine nitrite (a coded value)."""
    rng = sitting.chart.person.rng
    if rng.random() < 0.5:
        crp = _laboratory(sitting, CRP, 0.5 + rng.random() ** 3 * 80)
        if rng.random() < 0.3:
            crp["valueQuantity"] = {**crp["valueQuantity"], "comparator": "<", "value": Decimal("5.0")}
            crp["interpretation"] = [_NORMAL]
        yield crp
    else:
        nitrite = _observation(sitting, "laboratory", NITRITE)
        nitrite["valueCodeableConcept"] = POSITIVE if rng.random() < 0.2 else NEGATIVE
        yield nitrite


def narrative(sitting: Sitting) -> Iterator[Json]:
    """Yield what a check-up records in words and scores: smoking, mood, pain, physical findings."""
    person, rng = sitting.chart.person, sitting.chart.person.rng
    if sitting.age >= 14:
        smoking = _observation(sitting, "social-history", SMOKING_STATUS)
        smoking["valueCodeableConcept"] = SMOKING_ANSWERS[person.smoking]
        yield smoking
        mood = _observation(sitting, "survey", PHQ2)
        mood["valueQuantity"] = {"value": int(rng.random() ** 2 * 7), **_SCORE}
        yield mood
    pain = _observation(sitting, "survey", PAIN)
    pain["valueInteger"] = int(rng.random() ** 2 * 11)
    yield pain
    findings = _observation(sitting, "exam", PHYSICAL_FINDINGS)
    findings["valueString"] = pick(rng, _FINDINGS)
    yield findings


def chest_xray(sitting: Sitting) -> Iterator[Json]:
    """Yield a chest X-ray's reading as an imaging Observation, and its report."""
    reading = _observation(sitting, "imaging", RADIOLOGY_STUDY)
    reading["valueString"] = pick(sitting.chart.person.rng, _IMPRESSIONS)
    reading["bodySite"] = {
        "coding": [
            {"system": "http://snomed.info/sct", "code": "51185008", "display": "Thoracic structure (body structure)"}
        ]
    }
    yield reading
    report = _report(sitting, RADIOLOGY_REPORT, CHEST_XRAY, [reading])
    report["conclusion"] = reading["valueString"]
    yield report
