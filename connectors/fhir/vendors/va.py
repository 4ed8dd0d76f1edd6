"""VA Lighthouse: no public bulk; one token per patient, whose audience is not the token URL (vendors.md section 4)."""

from __future__ import annotations

from connectors.fhir.profile import VendorProfile

VA = VendorProfile(
    name="va",
    label="VA Lighthouse",
    assertion_alg_rsa="RS256",  # what VA's own clients send; RS384: not found [R] LA jwt_generator.rb
    audience=None,  # a fixed Okta URL per environment, so it belongs to the connection: profile = { audience = "…" } [D] LP
    scope_required=True,
    scope_wildcards=False,  # the gateway compares system/<Type>.read literally [R] LK
    scope_syntax="v1",
    extra_scopes=("launch",),
    token_per_patient=True,  # launch = base64 of {"patient": "<ICN>"}; the token is bound to that patient [D] LP
    max_concurrency=5,  # no number published; the field's default [R] BR
    read_timeout_s=60,  # 504 after 10 s; VA's own client waits 30 s [R] va.gov-team #113781
    mode="crawl",
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
    ),  # of these, what the CapabilityStatement declares
    page_size=100,  # default 30, maximum 100, bigger is clamped [R] LV, LQ
    last_updated_types=("Observation", "Procedure", "DiagnosticReport"),  # [R] LQ
    bulk_levels=(),
    count_query="_count=0",  # "count only", and `total` is given [R] LV, LQ
    overlap_s=172_800,  # loaded nightly from VistA: newest facts appear up to 36 h late [R] va-mobile-app #1556
)
