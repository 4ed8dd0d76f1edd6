"""Veradigm and Altera (Allscripts): thinly documented, so driven by what the tenant declares (vendors.md section 3)."""

from __future__ import annotations

from connectors.fhir.profile import VendorProfile

ALLSCRIPTS = VendorProfile(
    name="allscripts",
    label="Veradigm / Altera (Allscripts)",
    scope_wildcards=True,  # scopes_supported lists system/*.read and system/*.rs [R] AA
    max_concurrency=4,  # no limit published: small by choice [I]
    file_concurrency=2,
    mode="bulk",
    types=(
        "Patient",
        "AllergyIntolerance",
        "CarePlan",
        "CareTeam",
        "Condition",
        "Device",
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "Goal",
        "Immunization",
        "MedicationAdministration",
        "MedicationRequest",
        "MedicationStatement",
        "Observation",
        "Procedure",
        "Provenance",
        "RelatedPerson",
    ),  # MedicationStatement holds old charts' medications [R] AA
    page_size=50,  # default and maximum: not found [I]
    last_updated_types=(
        "AllergyIntolerance",
        "CarePlan",
        "CareTeam",
        "Condition",
        "Device",
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "Goal",
        "Immunization",
        "MedicationAdministration",
        "MedicationRequest",
        "MedicationStatement",
        "Observation",
        "Procedure",
        "RelatedPerson",
    ),  # documented as common, with ge, gt, le, lt; not declared [D] VD, [R] AA
    patient_by="_id",
    next_expired_statuses=(404, 410),
    bulk_levels=("group",),  # system and patient level: not found [D] VD
    bulk_types=(),  # without `_type` the server gives everything authorised; Provenance only when listed [D] VD
    bulk_since=True,  # not found; the IG's first version has it [I]
    # Bundles have a total [D] VD; `_summary` is not documented, so the smallest page is asked for its total
    count_query="_count=1",
    bulk_leaves_out=("Provenance",),  # only if listed in `_type` [D] VD
    poll_first_s=2,
)
