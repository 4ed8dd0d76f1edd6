"""Veradigm and Altera (Allscripts): thinly documented, so driven by what the tenant declares (vendor-facts 3)."""

from __future__ import annotations

from connectors.fhir.profile import (
    BulkProfile,
    CompletenessProfile,
    LimitsProfile,
    LoginProfile,
    PollProfile,
    SearchProfile,
    VendorProfile,
)

_SEARCHED = (
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
)

ALLSCRIPTS = VendorProfile(
    name="allscripts",
    label="Veradigm / Altera (Allscripts)",
    mode="bulk",  # Group export is documented [D] VD, vendor-facts 3.4
    login=LoginProfile(
        scope_wildcards=True,  # scopes_supported lists system/*.read and system/*.rs [R] AA, vendor-facts 3.1
    ),
    limits=LimitsProfile(
        max_concurrency=4,  # no limit published: small by choice [I] vendor-facts 3.3
        file_concurrency=2,  # likewise [I]
    ),
    search=SearchProfile(
        types=_SEARCHED,  # MedicationStatement holds old charts' medications [R] AA, vendor-facts 3.3
        page_size=50,  # default and maximum: not found [I] vendor-facts 3.3
        # documented as common, with ge, gt, le, lt; not declared [D] VD, [R] AA, vendor-facts 3.3
        last_updated_types=tuple(one for one in _SEARCHED if one not in {"Patient", "Provenance"}),
        patient_by="_id",  # a search parameter that is documented as common [D] VD, vendor-facts 3.3
    ),
    bulk=BulkProfile(
        levels=("group",),  # system and patient level: not found [D] VD, vendor-facts 3.4
        # without `_type` the server gives everything authorised; Provenance only when listed [D] VD, vendor-facts 3.4
        types=(),
        since=True,  # not found; the IG's first version has it [I] vendor-facts 3.4
        leaves_out=("Provenance",),  # only if listed in `_type` [D] VD, vendor-facts 3.4
    ),
    poll=PollProfile(
        first_s=2,  # [I]
    ),
    completeness=CompletenessProfile(
        # Bundles have a total; `_summary` is not documented, so the total is read from the smallest page [D] VD, vendor-facts 3.3
        count_query="_count=1",
    ),
)
