"""VA Lighthouse: no public bulk; one token per patient, whose audience is not the token URL (vendor-facts 4)."""

from __future__ import annotations

from connectors.fhir.profile import (
    BulkProfile,
    ChangesProfile,
    CompletenessProfile,
    HttpProfile,
    LimitsProfile,
    LoginProfile,
    SearchProfile,
    VendorProfile,
)

VA = VendorProfile(
    name="va",
    label="VA Lighthouse",
    mode="crawl",  # no public bulk was found [R] vendor-facts 4.4
    login=LoginProfile(
        assertion_alg_rsa="RS256",  # what VA's own clients send; RS384: not found [R] LA, vendor-facts 4.1
        # a fixed Okta URL per environment, so it belongs to the connection: profile = { login.audience = "…" }
        # [D] LP, vendor-facts 4.1
        audience=None,
        scope_required=True,  # [D] LP, vendor-facts 4.1
        scope_wildcards=False,  # the gateway compares system/<Type>.read literally [R] LK, vendor-facts 4.2
        scope_syntax="v1",  # [D] LP, vendor-facts 4.1
        extra_scopes=("launch",),  # [D] LP, vendor-facts 4.1
        # launch = base64 of {"patient": "<ICN>"}; the token is bound to that patient [D] LP, vendor-facts 4.1
        token_per_patient=True,
    ),
    http=HttpProfile(
        read_timeout_s=60,  # 504 after 10 s; VA's own client waits 30 s [R] vendor-facts 4.4
    ),
    limits=LimitsProfile(
        max_concurrency=5,  # no number published; the field's default [R] BR, vendor-facts 4.3
    ),
    search=SearchProfile(
        # of these, what the CapabilityStatement declares [I]
        types=(
            "Patient",
            "AllergyIntolerance",
            "Appointment",
            "CarePlan",
            "CareTeam",
            "Claim",
            "Condition",
            "Device",
            "DiagnosticReport",
            "DocumentReference",
            "Encounter",
            "ExplanationOfBenefit",
            "Goal",
            "ImagingStudy",
            "Immunization",
            "MedicationRequest",
            "MedicationStatement",
            "Observation",
            "Procedure",
        ),
        page_size=100,  # default 30, maximum 100, bigger is clamped [R] LV, LQ, vendor-facts 4.3
        last_updated_types=("Observation", "Procedure", "DiagnosticReport"),  # [R] LQ, vendor-facts 4.3
    ),
    bulk=BulkProfile(
        levels=(),  # [R] vendor-facts 4.4
    ),
    changes=ChangesProfile(
        overlap_s=172_800,  # loaded nightly from VistA: newest facts appear up to 36 h late [R] vendor-facts 4.4
    ),
    completeness=CompletenessProfile(
        count_query="_count=0",  # "count only", and `total` is given [R] LV, LQ, vendor-facts 4.3
    ),
)
