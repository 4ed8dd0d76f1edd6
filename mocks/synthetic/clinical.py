"""clinical owns the entries of a visit that are not measured, from its Encounter to the notes about it.

Each function returns one resource as of that day; `history` decides when there is one.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode

from mocks.synthetic.chart import Sitting
from mocks.synthetic.person import pick
from mocks.synthetic.vocabulary import (
    AMBULATORY_CLASS,
    ASSESS_PLAN,
    CLINICAL_NOTE,
    CVX,
    DIAGNOSIS,
    DRUGS,
    EMERGENCY,
    EMERGENCY_CLASS,
    FOLLOW_UP,
    PACEMAKER,
    PROBLEM,
    PROGRESS_NOTE,
    SELF_CARE,
    SYMPTOM,
    WELLNESS,
    Json,
    concept,
    status,
)

_ENCOUNTER_TYPE = {"wellness": WELLNESS, "follow-up": FOLLOW_UP, "acute": SYMPTOM, "emergency": EMERGENCY}
_ATTENDER = [
    {
        "coding": [
            {
                "system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
                "code": "ATND",
                "display": "attender",
            }
        ]
    }
]
_ACTIVE, _RESOLVED = (status("condition-clinical", code) for code in ("active", "resolved"))
_CONFIRMED = status("condition-ver-status", "confirmed")
_ALLERGY_ACTIVE = status("allergyintolerance-clinical", "active")
_ALLERGY_CONFIRMED = status("allergyintolerance-verification", "confirmed")
_COMMUNITY = [status("medicationrequest-category", "community")]
_TWICE_DAILY = {"repeat": {"frequency": 2, "period": 1, "periodUnit": "d"}}
_SENTENCES = (
    "Patient seen and examined; history reviewed with the patient and updated in the chart.",
    "Denies chest pain, shortness of breath, fever or chills since the last visit.",
    "Medications reconciled; takes them as prescribed and reports no side effects.",
    "Blood pressure taken twice at rest, sitting, both arms.",
    "Discussed diet, sleep and thirty minutes of walking on most days.",
    "Laboratory results of the last visit explained; trend is steady.",
    "Will return sooner if symptoms worsen; otherwise follow up as scheduled.",
    "This is a synthetic note about a person who does not exist.",
)


def encounter(sitting: Sitting, reasons: list[Json]) -> Json:
    """Return the Encounter of the visit; reasons are references to its Conditions."""
    chart, emergency = sitting.chart, sitting.kind == "emergency"
    resource: Json = {"resourceType": "Encounter", "id": sitting.encounter_id}
    if chart.last_updated:
        resource["meta"] = sitting.meta
    resource |= {
        "text": sitting.narrative(
            "Encounter", _ENCOUNTER_TYPE[sitting.kind]["text"], f"{sitting.starts} to {sitting.ends}"
        ),
        "status": "finished",
        "class": EMERGENCY_CLASS if emergency else AMBULATORY_CLASS,
        "type": [_ENCOUNTER_TYPE[sitting.kind]],
        "subject": chart.subject,
        "participant": [
            {"type": _ATTENDER, "period": {"start": sitting.starts, "end": sitting.ends}, "individual": chart.doctor}
        ],
        "period": {"start": sitting.starts, "end": sitting.ends},
        "location": [{"location": chart.hospital.locations[chart.site]}],
        "serviceProvider": chart.hospital.organizations[chart.site],
    }
    if reasons:
        resource["reasonReference"] = reasons
    return resource


def condition(sitting: Sitting, code: Json, *, chronic: bool) -> Json:
    """Return a lasting problem-list-item, or an encounter-diagnosis that has resolved."""
    resource = sitting.entry("Condition")
    resource |= {
        "text": sitting.narrative("Condition", code["text"], f"Onset: {sitting.date}"),
        "clinicalStatus": _ACTIVE if chronic else _RESOLVED,
        "verificationStatus": _CONFIRMED,
        "category": PROBLEM if chronic else DIAGNOSIS,
        "code": code,
        "subject": sitting.chart.subject,
        "encounter": sitting.encounter,
        "onsetDateTime": sitting.starts,
        "recordedDate": sitting.date if chronic else sitting.starts,
        "recorder": sitting.chart.doctor,
    }
    if not chronic:
        resource["abatementDateTime"] = sitting.next_day
    return resource


def medication_request(sitting: Sitting, drug: str, reason: Json, *, chronic: bool) -> Json:
    """Return an order; one in three names its drug by reference, as Epic does (vendor-facts 1.10)."""
    chart = sitting.chart
    resource = sitting.entry("MedicationRequest")
    resource |= {
        "text": sitting.narrative("Medication request", DRUGS[drug]["text"], "Take one, twice a day."),
        "status": "active" if chronic else "completed",
        "intent": "order",
        "category": _COMMUNITY,
        "subject": chart.subject,
        "encounter": sitting.encounter,
        "authoredOn": sitting.date
        if chart.person.rng.random() < 0.2
        else sitting.starts,  # some are dates, some instants
        "requester": chart.doctor,
        "reasonReference": [reason],
        "dosageInstruction": [
            {"sequence": 1, "text": "Take one, twice a day.", "timing": _TWICE_DAILY, "asNeededBoolean": False}
        ],
    }
    if chart.person.rng.random() < 1 / 3:
        resource["medicationReference"] = chart.hospital.medications[drug]
    else:
        resource["medicationCodeableConcept"] = DRUGS[drug]
    return resource


def allergy(sitting: Sitting, code: Json, category: str, reaction: Json) -> Json:
    """Return an AllergyIntolerance with one reaction."""
    resource = sitting.entry("AllergyIntolerance")
    severity = pick(sitting.chart.person.rng, ("mild", "moderate", "severe"))
    return resource | {
        "clinicalStatus": _ALLERGY_ACTIVE,
        "verificationStatus": _ALLERGY_CONFIRMED,
        "type": "allergy",
        "category": [category],
        "criticality": "high" if severity == "severe" else "low",
        "code": code,
        "patient": sitting.chart.subject,
        "encounter": sitting.encounter,
        "recordedDate": sitting.starts,
        "recorder": sitting.chart.doctor,
        "reaction": [{"manifestation": [reaction], "severity": severity}],
    }


def immunization(sitting: Sitting, cvx: str, display: str) -> Json:
    """Return a completed Immunization."""
    return sitting.entry("Immunization") | {
        "text": sitting.narrative("Immunization", display),
        "status": "completed",
        "vaccineCode": concept(CVX, cvx, display),
        "patient": sitting.chart.subject,
        "encounter": sitting.encounter,
        "occurrenceDateTime": sitting.starts,
        "primarySource": True,
        "lotNumber": f"SYN{int(sitting.chart.person.rng.random() * 10_000):04d}",
        "location": sitting.chart.hospital.locations[sitting.chart.site],
        "performer": [{"actor": sitting.chart.doctor}],
    }


def procedure(sitting: Sitting, code: Json) -> Json:
    """Return a completed Procedure that took the length of the visit."""
    return sitting.entry("Procedure") | {
        "text": sitting.narrative("Procedure", code["text"]),
        "status": "completed",
        "code": code,
        "subject": sitting.chart.subject,
        "encounter": sitting.encounter,
        "performedPeriod": {"start": sitting.starts, "end": sitting.ends},
        "performer": [{"actor": sitting.chart.doctor}],
        "location": sitting.chart.hospital.locations[sitting.chart.site],
    }


def document(sitting: Sitting) -> Json:
    """Return a progress note with its text attached, size and SHA-1 included (R4 Attachment)."""
    rng = sitting.chart.person.rng
    text = (
        f"Progress note, {sitting.date}\n\n"
        + "\n".join(pick(rng, _SENTENCES) for _ in range(4 + int(rng.random() * 8)))
        + "\n"
    )
    data = text.encode()
    attachment = {
        "contentType": "text/plain; charset=utf-8",
        "language": "en-US",
        "data": b64encode(data).decode(),
        "size": len(data),
        "hash": b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode(),
        "title": "Progress note",
        "creation": sitting.starts,
    }
    return sitting.entry("DocumentReference") | {
        "status": "current",
        "docStatus": "final",
        "type": PROGRESS_NOTE,
        "category": CLINICAL_NOTE,
        "subject": sitting.chart.subject,
        "date": sitting.issued,
        "author": [sitting.chart.doctor],
        "custodian": sitting.chart.hospital.organizations[sitting.chart.site],
        "content": [{"attachment": attachment}],
        "context": {"encounter": [sitting.encounter], "period": {"start": sitting.starts, "end": sitting.ends}},
    }


def care(sitting: Sitting, problem: Json) -> list[Json]:
    """Return CareTeam, Goal and CarePlan for a problem, each referring to the ones before it."""
    chart = sitting.chart
    team = sitting.entry("CareTeam") | {
        "status": "active",
        "name": "Primary care team",
        "subject": chart.subject,
        "encounter": sitting.encounter,
        "period": {"start": sitting.starts},
        "participant": [
            {"member": chart.subject},
            {"member": chart.doctor, "onBehalfOf": chart.hospital.organizations[chart.site]},
        ],
        "managingOrganization": [chart.hospital.organizations[chart.site]],
    }
    goal = sitting.entry("Goal") | {
        "lifecycleStatus": "active",
        "achievementStatus": status("goal-achievement", "in-progress"),
        "description": {"text": "Walk thirty minutes on at least five days a week"},
        "subject": chart.subject,
        "startDate": sitting.date,
        "addresses": [problem],
    }
    plan = sitting.entry("CarePlan") | {
        "status": "active",
        "intent": "order",
        "category": ASSESS_PLAN,
        "title": SELF_CARE["text"],
        "subject": chart.subject,
        "encounter": sitting.encounter,
        "period": {"start": sitting.starts},
        "careTeam": [{"reference": f"CareTeam/{team['id']}"}],
        "addresses": [problem],
        "goal": [{"reference": f"Goal/{goal['id']}"}],
        "activity": [
            {"detail": {"kind": "Task", "status": "in-progress", "description": "Recommendation to exercise"}}
        ],
    }
    return [team, goal, plan]


def device(sitting: Sitting) -> Json:
    """Return an implanted pacemaker with an identifier that no manufacturer issued."""
    serial = f"SYN-{int(sitting.chart.person.rng.random() * 1_000_000):06d}"
    return sitting.entry("Device") | {
        "udiCarrier": [{"deviceIdentifier": "99999999999999", "carrierHRF": f"(01)99999999999999(21){serial}"}],
        "status": "active",
        "distinctIdentifier": serial,
        "manufactureDate": sitting.date,
        "lotNumber": "999",
        "serialNumber": serial,
        "deviceName": [{"name": "Synthetic pacemaker", "type": "user-friendly-name"}],
        "type": PACEMAKER,
        "patient": sitting.chart.subject,
    }
