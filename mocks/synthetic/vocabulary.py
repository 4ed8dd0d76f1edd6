"""vocabulary owns the codes of synthetic charts: LOINC, SNOMED CT, RxNorm, CVX and the HL7 code systems.

A small set; each code was checked to mean what its display says. The histories decide when and for whom they are used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
CVX = "http://hl7.org/fhir/sid/cvx"
UCUM = "http://unitsofmeasure.org"
HL7 = "http://terminology.hl7.org/CodeSystem/"


def concept(system: str, code: str, display: str) -> Json:
    """Return a CodeableConcept with one coding, its display as text."""
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def status(system: str, code: str) -> Json:
    """Return a CodeableConcept of an HL7 code system that needs no display."""
    return {"coding": [{"system": HL7 + system, "code": code}]}


class Measure(NamedTuple):
    """One quantity: its code, unit, digits after the point, and reference range where a laboratory gives one."""

    code: Json
    unit: str
    ucum: str
    digits: int
    low: str | None = None
    high: str | None = None


def _loinc(code: str, display: str) -> Json:
    return concept(LOINC, code, display)


# the categories that Epic can search (vendor-facts 1.6); it answers with an error to procedure, therapy and activity
CATEGORY: dict[str, list[Json]] = {
    code: [concept(HL7 + "observation-category", code, display)]
    for code, display in {
        "social-history": "Social History",
        "vital-signs": "Vital Signs",
        "imaging": "Imaging",
        "laboratory": "Laboratory",
        "survey": "Survey",
        "exam": "Exam",
    }.items()
}
PROBLEM = [concept(HL7 + "condition-category", "problem-list-item", "Problem List Item")]
DIAGNOSIS = [concept(HL7 + "condition-category", "encounter-diagnosis", "Encounter Diagnosis")]

BLOOD_PRESSURE = _loinc("85354-9", "Blood pressure panel with all children optional")
SYSTOLIC = Measure(_loinc("8480-6", "Systolic blood pressure"), "mmHg", "mm[Hg]", 0)
DIASTOLIC = Measure(_loinc("8462-4", "Diastolic blood pressure"), "mmHg", "mm[Hg]", 0)
HEIGHT = Measure(_loinc("8302-2", "Body height"), "cm", "cm", 1)
WEIGHT = Measure(_loinc("29463-7", "Body weight"), "kg", "kg", 1)
BMI = Measure(_loinc("39156-5", "Body mass index (BMI) [Ratio]"), "kg/m2", "kg/m2", 2)
HEART_RATE = Measure(_loinc("8867-4", "Heart rate"), "/min", "/min", 0)
RESPIRATORY_RATE = Measure(_loinc("9279-1", "Respiratory rate"), "/min", "/min", 0)
TEMPERATURE = Measure(_loinc("8310-5", "Body temperature"), "Cel", "Cel", 2)
OXYGEN = Measure(_loinc("2708-6", "Oxygen saturation in Arterial blood"), "%", "%", 0)
CRP = Measure(_loinc("1988-5", "C reactive protein [Mass/volume] in Serum or Plasma"), "mg/L", "mg/L", 1, "0.0", "5.0")


def _cells(code: str, what: str, unit: str, digits: int, span: tuple[str, str]) -> Measure:
    return Measure(_loinc(code, f"{what} Blood by Automated count"), unit, unit, digits, *span)


# panel -> (its report code, [(measure, trait that determines its value)]); `person` has the traits
BASIC_PANEL = _loinc("51990-0", "Basic metabolic panel - Blood")
LIPID_PANEL = _loinc("57698-3", "Lipid panel with direct LDL - Serum or Plasma")
BLOOD_COUNT = _loinc("58410-2", "CBC panel - Blood by Automated count")
_MASS = "[Mass/volume] in Serum or Plasma"
_MOLES = "[Moles/volume] in Serum or Plasma"
PANELS: dict[str, tuple[Json, tuple[tuple[Measure, str], ...]]] = {
    "basic": (
        BASIC_PANEL,
        (
            (Measure(_loinc("2345-7", f"Glucose {_MASS}"), "mg/dL", "mg/dL", 0, "70", "99"), "glucose"),
            (Measure(_loinc("3094-0", f"Urea nitrogen {_MASS}"), "mg/dL", "mg/dL", 0, "7", "20"), "urea"),
            (Measure(_loinc("2160-0", f"Creatinine {_MASS}"), "mg/dL", "mg/dL", 2, "0.60", "1.30"), "creatinine"),
            (Measure(_loinc("17861-6", f"Calcium {_MASS}"), "mg/dL", "mg/dL", 1, "8.5", "10.5"), "calcium"),
            (Measure(_loinc("2951-2", f"Sodium {_MOLES}"), "mmol/L", "mmol/L", 0, "135", "145"), "sodium"),
            (Measure(_loinc("2823-3", f"Potassium {_MOLES}"), "mmol/L", "mmol/L", 1, "3.5", "5.1"), "potassium"),
            (Measure(_loinc("2075-0", f"Chloride {_MOLES}"), "mmol/L", "mmol/L", 0, "98", "107"), "chloride"),
            (Measure(_loinc("2028-9", f"Carbon dioxide, total {_MOLES}"), "mmol/L", "mmol/L", 0, "22", "29"), "co2"),
        ),
    ),
    "lipid": (
        LIPID_PANEL,
        (
            (Measure(_loinc("2093-3", f"Cholesterol {_MASS}"), "mg/dL", "mg/dL", 0, "100", "200"), "cholesterol"),
            (Measure(_loinc("2571-8", f"Triglyceride {_MASS}"), "mg/dL", "mg/dL", 0, "0", "150"), "triglyceride"),
            (Measure(_loinc("18262-6", f"Cholesterol in LDL {_MASS} by Direct assay"), "mg/dL", "mg/dL", 0, "0", "130"), "ldl"),
            (Measure(_loinc("2085-9", f"Cholesterol in HDL {_MASS}"), "mg/dL", "mg/dL", 0, "40", "90"), "hdl"),
        ),
    ),
    "count": (
        BLOOD_COUNT,
        (
            (_cells("6690-2", "Leukocytes [#/volume] in", "10*3/uL", 1, ("4.5", "11.0")), "leukocytes"),
            (_cells("789-8", "Erythrocytes [#/volume] in", "10*6/uL", 2, ("4.10", "5.90")), "erythrocytes"),
            (Measure(_loinc("718-7", "Hemoglobin [Mass/volume] in Blood"), "g/dL", "g/dL", 1, "12.0", "17.5"), "hemoglobin"),
            (_cells("4544-3", "Hematocrit [Volume Fraction] of", "%", 1, ("36.0", "50.0")), "hematocrit"),
            (_cells("777-3", "Platelets [#/volume] in", "10*3/uL", 0, ("150", "400")), "platelets"),
        ),
    ),
    "a1c": (
        _loinc("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"),
        ((Measure(_loinc("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"), "%", "%", 1, "4.0", "5.6"), "a1c"),),
    ),
}  # fmt: skip

SMOKING_STATUS = _loinc("72166-2", "Tobacco smoking status")
SMOKING_ANSWERS = (
    concept(SNOMED, "266919005", "Never smoked tobacco (finding)"),
    concept(SNOMED, "8517006", "Ex-smoker (finding)"),
    concept(SNOMED, "77176002", "Smoker (finding)"),
)
PHQ2 = _loinc("55758-7", "Patient Health Questionnaire 2 item (PHQ-2) total score [Reported]")
PAIN = _loinc("72514-3", "Pain severity - 0-10 verbal numeric rating [Score] - Reported")
PHYSICAL_FINDINGS = _loinc("29545-1", "Physical findings Narrative")
RADIOLOGY_STUDY = _loinc("18782-3", "Radiology Study observation (narrative)")
CHEST_XRAY = _loinc("36643-5", "XR Chest 2 Views")
NITRITE = _loinc("5802-4", "Nitrite [Presence] in Urine by Test strip")
NEGATIVE = concept(SNOMED, "260385009", "Negative (qualifier value)")
POSITIVE = concept(SNOMED, "10828004", "Positive (qualifier value)")


class Chronic(NamedTuple):
    """A lasting illness: its code, its age of onset, its probability, its drug, the panels that monitor it."""

    name: str
    code: Json
    from_age: int
    likelihood: float
    drug: str
    panels: tuple[str, ...]


def _sct(code: str, display: str) -> Json:
    return concept(SNOMED, code, display)


CHRONIC = (
    Chronic("asthma", _sct("195967001", "Asthma (disorder)"), 6, 0.10, "albuterol", ()),
    Chronic("hypertension", _sct("59621000", "Essential hypertension (disorder)"), 38, 0.45, "lisinopril", ("basic",)),
    Chronic("diabetes", _sct("44054006", "Diabetes mellitus type 2 (disorder)"), 42, 0.18, "metformin", ("basic", "a1c")),
    Chronic("hyperlipidemia", _sct("55822004", "Hyperlipidemia (disorder)"), 45, 0.35, "atorvastatin", ("lipid",)),
    Chronic("hypothyroidism", _sct("40930008", "Hypothyroidism (disorder)"), 35, 0.08, "levothyroxine", ()),
    Chronic("osteoarthritis", _sct("396275006", "Osteoarthritis (disorder)"), 55, 0.30, "acetaminophen", ()),
)  # fmt: skip

# (condition, drug or None): reasons for acute visits
ACUTE = (
    (_sct("444814009", "Viral sinusitis (disorder)"), None),
    (_sct("195662009", "Acute viral pharyngitis (disorder)"), "acetaminophen"),
    (_sct("10509002", "Acute bronchitis (disorder)"), "amoxicillin"),
    (_sct("65363002", "Otitis media (disorder)"), "amoxicillin"),
    (_sct("38822007", "Cystitis (disorder)"), "amoxicillin"),
    (_sct("44465007", "Sprain of ankle (disorder)"), "ibuprofen"),
)

DRUGS = {
    "lisinopril": concept(RXNORM, "314076", "lisinopril 10 MG Oral Tablet"),
    "metformin": concept(RXNORM, "861007", "metformin hydrochloride 500 MG Oral Tablet"),
    "atorvastatin": concept(RXNORM, "617310", "atorvastatin 20 MG Oral Tablet"),
    "levothyroxine": concept(RXNORM, "966222", "levothyroxine sodium 0.075 MG Oral Tablet"),
    "albuterol": concept(RXNORM, "745679", "200 ACTUAT albuterol 0.09 MG/ACTUAT Metered Dose Inhaler"),
    "amoxicillin": concept(RXNORM, "308182", "amoxicillin 250 MG Oral Capsule"),
    "acetaminophen": concept(RXNORM, "313782", "acetaminophen 325 MG Oral Tablet"),
    "ibuprofen": concept(RXNORM, "310965", "ibuprofen 200 MG Oral Tablet"),
}

# (substance, category, reaction)
ALLERGIES = (
    (
        _sct("91936005", "Allergy to penicillin (finding)"),
        "medication",
        _sct("271807003", "Eruption of skin (disorder)"),
    ),
    (_sct("91935009", "Allergy to peanut (finding)"), "food", _sct("39579001", "Anaphylaxis (disorder)")),
    (_sct("300913006", "Allergy to shellfish (finding)"), "food", _sct("247472004", "Wheal (finding)")),
    (_sct("419474003", "Allergy to mould (finding)"), "environment", _sct("76067001", "Sneezing (finding)")),
)

# (CVX, display, the ages at which it is due)
VACCINES: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("08", "Hep B, adolescent or pediatric", (0, 1)),
    ("20", "DTaP", (1, 4)),
    ("10", "IPV", (1, 4)),
    ("03", "MMR", (1, 4)),
    ("21", "varicella", (1, 4)),
    ("115", "Tdap", (12,)),
    ("113", "Td (adult), 5 Lf tetanus toxoid, preservative free, adsorbed", (30, 40, 50, 60, 70)),
    ("187", "zoster recombinant", (50,)),
    ("33", "pneumococcal polysaccharide PPV23", (65,)),
)
INFLUENZA = concept(CVX, "140", "Influenza, split virus, trivalent, PF")

MEDICATION_RECONCILIATION = _sct("430193006", "Medication reconciliation (procedure)")
# (procedure, the ages at which it is due)
PROCEDURES: tuple[tuple[Json, tuple[int, ...]], ...] = (
    (_sct("73761001", "Colonoscopy (procedure)"), (50, 60, 70)),
    (_sct("29303009", "Electrocardiographic procedure (procedure)"), (40, 55, 65, 75)),
    (_sct("80146002", "Excision of appendix (procedure)"), (18,)),
)
PACEMAKER = _sct("14106009", "Cardiac pacemaker, device (physical object)")
SELF_CARE = _sct("735985000", "Diabetes self management plan (record artifact)")

WELLNESS = _sct("162673000", "General examination of patient (procedure)")
FOLLOW_UP = _sct("390906007", "Follow-up encounter (procedure)")
SYMPTOM = _sct("185345009", "Encounter for symptom (procedure)")
EMERGENCY = _sct("50849002", "Emergency room admission (procedure)")
AMBULATORY_CLASS = {"system": HL7 + "v3-ActCode", "code": "AMB", "display": "ambulatory"}
EMERGENCY_CLASS = {"system": HL7 + "v3-ActCode", "code": "EMER", "display": "emergency"}

PROGRESS_NOTE = _loinc("11506-3", "Progress note")
CLINICAL_NOTE = [
    concept(
        "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category", "clinical-note", "Clinical Note"
    )
]
LAB_REPORT = [concept(HL7 + "v2-0074", "LAB", "Laboratory")]
RADIOLOGY_REPORT = [concept(HL7 + "v2-0074", "RAD", "Radiology")]
ASSESS_PLAN = [
    concept(
        "http://hl7.org/fhir/us/core/CodeSystem/careplan-category", "assess-plan", "Assessment and Plan of Treatment"
    )
]
