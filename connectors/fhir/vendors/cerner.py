"""Oracle Health Millennium (Cerner): bulk by Group; searches are well paged and carry meta (vendor-facts 2)."""

from __future__ import annotations

from connectors.fhir.profile import (
    BulkProfile,
    ChangesProfile,
    CompletenessProfile,
    KickoffProfile,
    LimitsProfile,
    LoginProfile,
    PollProfile,
    ReferencesProfile,
    RetryProfile,
    SearchProfile,
    VendorProfile,
)

CERNER = VendorProfile(
    name="cerner",
    label="Oracle Health (Cerner)",
    mode="bulk",  # Group export, with `_since`, is documented [D] CB, vendor-facts 2.7
    login=LoginProfile(
        scope_required=True,  # an explicit list [D] CR, [R] TM, vendor-facts 2.3
        scope_wildcards=False,  # refused with invalid_scope [D] CR, [R] TM, vendor-facts 2.3
    ),
    retry=RetryProfile(
        after_cap_s=300,  # Retry-After of 5 h was seen; smart-fetch caps at 300 s [R] SF, vendor-facts 2.7
    ),
    limits=LimitsProfile(
        max_concurrency=20,  # no limit published; the field runs 20 [R] AC, BR, vendor-facts 2.6
        file_concurrency=2,  # parallel file downloads drew 429 until one at a time [R] vendor-facts 2.6
    ),
    search=SearchProfile(
        # the types whose search is documented [D] CR, vendor-facts 2.5
        types=(
            "Patient",
            "AllergyIntolerance",
            "CarePlan",
            "CareTeam",
            "Condition",
            "Coverage",
            "Device",
            "DiagnosticReport",
            "DocumentReference",
            "Encounter",
            "Goal",
            "Immunization",
            "MedicationAdministration",
            "MedicationDispense",
            "MedicationRequest",
            "NutritionOrder",
            "Observation",
            "Procedure",
            "Provenance",
            "RelatedPerson",
            "ServiceRequest",
        ),
        # documented maxima [D] CR, vendor-facts 2.5
        page_size_by_type={
            "Observation": 200,
            "DiagnosticReport": 100,
            "DocumentReference": 100,
        },
        # the other types are unpaged or of unknown maximum [R] TM, vendor-facts 2.5: `_count` is left out
        patient_by="_id",  # the documented form [D] CR, vendor-facts 2.5
        # it moves with "clinically significant" changes only: hence the periodic full listing [D] CR, [R] TM, vendor-facts 2.5
        last_updated_types=(
            "Observation",
            "DiagnosticReport",
            "DocumentReference",
            "Encounter",
            "AllergyIntolerance",
            "Condition",
            "Procedure",
            "Immunization",
            "NutritionOrder",
            "ServiceRequest",
            "MedicationRequest",  # ge, le, with time, which our instants have
            "MedicationDispense",
        ),
        last_updated_once=("Immunization", "MedicationDispense"),  # a single value [D] CR, vendor-facts 2.5
    ),
    references=ReferencesProfile(
        id_batch=50,  # the longest list: not found [I] vendor-facts 2.5
        id_batch_by_type={"CareTeam": 1, "Goal": 1},  # they take one id [D] CR, vendor-facts 2.5
        # a list of laboratory ones must be of one patient [D] CR, vendor-facts 2.5
        id_batch_one_patient=("Observation",),
    ),
    bulk=BulkProfile(
        # Patient level wants POST with an explicit list [D] OD, vendor-facts 2.7, so for `mode = "bulk"` with a cohort;
        # system: none
        levels=("group", "patient-list"),
        # the documented list [D] CB, vendor-facts 2.7
        types=(
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
            "Location",
            "MedicationRequest",
            "Patient",
            "Procedure",
            "Observation",
            "Organization",
            "Practitioner",
            "Provenance",
        ),
        since=True,  # [D] CB, vendor-facts 2.7
        # need a clinical type beside them [D] CB, vendor-facts 2.7
        not_alone=("Location", "Organization", "Practitioner", "Provenance"),
        companion="Patient",  # the smallest of them [I]
    ),
    kickoff=KickoffProfile(
        method="auto",  # Group by GET only [D] CB, vendor-facts 2.7
        lists="comma",  # a repeated `_type` is refused [R] SF, vendor-facts 2.7
        busy_means_running=True,  # one live job per client and tenant [D] CB, vendor-facts 2.7
    ),
    poll=PollProfile(
        first_s=5,  # [I]
        cap_s=300,  # the server says Retry-After: 600 [D] CB, and 5 h has been seen [R] SF, vendor-facts 2.7
    ),
    changes=ChangesProfile(
        overlap_s=300,  # [I] vendor-facts 7
    ),
    completeness=CompletenessProfile(
        # total was absent in 20 of 22 captured bundles, `_summary` is not documented [R] TM, [D] CR, vendor-facts 2.5
        count_query=None,
    ),
)
