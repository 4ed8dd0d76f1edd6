"""Epic: crawled by patient with category splits; bulk by Group on request only (vendor-facts 1)."""

from __future__ import annotations

from connectors.fhir.profile import (
    AnswersProfile,
    BulkProfile,
    ChangesProfile,
    CompletenessProfile,
    HttpProfile,
    KickoffProfile,
    LimitsProfile,
    LoginProfile,
    PollProfile,
    SearchProfile,
    VendorProfile,
)

EPIC = VendorProfile(
    name="epic",
    label="Epic",
    # bulk is one request per group, client and 24 h; smart-fetch crawls by default [D] ET, [R] SF, vendor-facts 1.9
    mode="crawl",
    login=LoginProfile(
        # no parameter of the token request; the grant follows the app's registration [D] EO, [R] TM, vendor-facts 1.3
        scope_required=False,
        assertion_life_s=240,  # at most 5 min ahead at receipt, else invalid_client [D] EO, vendor-facts 1.3
    ),
    http=HttpProfile(
        # logins without OAuth need it, and at some sites those with OAuth too [D] EO, [R] CF, vendor-facts 1.3
        client_id_header="Epic-Client-ID",
    ),
    limits=LimitsProfile(
        # the field uses 5; no rate is published, load must stay under 1 % of the database [R] CF, BR, [D] EA, vendor-facts 1.8
        max_concurrency=5,
    ),
    search=SearchProfile(
        page_size=None,  # default page is 1000; 1-999 honoured [R] TM, vendor-facts 1.6
        # of these, what the site's CapabilityStatement declares; EpisodeOfCare needs a site code: cannot be crawled
        # [R] SF, vendor-facts 1.6
        types=(
            "Patient",
            "AllergyIntolerance",
            "CarePlan",
            "CareTeam",
            "Claim",
            "Condition",
            "Coverage",
            "Device",
            "DiagnosticReport",
            "DocumentReference",
            "Encounter",
            "ExplanationOfBenefit",
            "FamilyMemberHistory",
            "Goal",
            "ImagingStudy",
            "Immunization",
            "MedicationAdministration",
            "MedicationDispense",
            "MedicationRequest",
            "Observation",
            "Procedure",
            "QuestionnaireResponse",
            "RelatedPerson",
            "ServiceRequest",
        ),
        splits={
            # patient + category or code, else 400 59108; procedure, therapy, activity give server errors
            # [R] TM, SF, vendor-facts 1.6
            "Observation": (
                "category=social-history",
                "category=vital-signs",
                "category=imaging",
                "category=laboratory",
                "category=survey",
                "category=exam",
            ),
            # without category a mix chosen by site, so the plain search is sent as well [R] TM, vendor-facts 1.6
            "Condition": ("", "category=problem-list-item", "category=encounter-diagnosis", "category=health-concern"),
        },
        # `_lastUpdated` is not supported on clinical types, and meta is absent: full listing, content hash
        # [R] TM, vendor-facts 1.6
        last_updated_types=(),
        # what was made since, not what was changed: the periodic full listing (`changes.reconcile_every_d`) finds
        # changes
        # [R] SF, vendor-facts 1.6
        created_params={
            "AllergyIntolerance": "date",
            "Condition": "recorded-date",
            "DiagnosticReport": "issued",
            "DocumentReference": "date",
            "MedicationRequest": "authoredon",
            "Observation": "issued",
            "ServiceRequest": "authored",
        },
        # supported; the query is in the body, where no proxy cuts it [D] EA, vendor-facts 1.6
        post_over=1_800,
    ),
    answers=AnswersProfile(
        issue_codes={
            # [D] EA; rows marked + are from Epic's bulk tutorials or captures [R] ET, TM, vendor-facts 1.7
            "4100": "missing",  # invalid parameter, such as a patient id that does not exist
            "4101": "note",  # found nothing
            "4102": "missing",  # read with an invalid id
            "4103": "gone",  # record deleted
            "4104": "fatal",  # a required element could not be produced
            "4107": "merged",  # comes with a redirect to the survivor
            "4113": "restart",  # cached search session expired
            "4117": "note",  # Immunization lacks CVX
            "4118": "restricted",  # user not authorised
            "4119": "incomplete",  # more data may exist than this user sees
            "4122": "ignored",  # unknown parameter
            "4130": "restricted",  # break-the-glass
            "4131": "restricted",
            "4134": "restricted",
            "4135": "pause",  # daily cap of document queries
            "40000": "fatal",  # a code mapping is missing at the site: permanent, as 4104
            "59100": "ignored",  # unknown parameter
            "59101": "ignored",  # bad value of an optional one
            "59102": "missing",
            "59109": "incomplete",  # optional element ignored: the filter was not applied
            "59133": "incomplete",
            "59204": "incomplete",  # + sub-resources suppressed: client not authorised
            "59205": "incomplete",  # + the same for the user
        },
        restricts_patient=("4131",),  # break-the-glass forbids the patient, 4130 the resource [D] EA, vendor-facts 1.7
    ),
    bulk=BulkProfile(
        levels=("group",),  # system /$export is an IIS 404 page [D] ET, [R] TM, vendor-facts 1.9
        since=False,  # rejected or ignored [D] ET, vendor-facts 1.9
        # `_type=Patient` alone failed with 59159 on a real site [R] FHIRBridge, vendor-facts 1.9
        not_alone=("Patient",),
        companion="AllergyIntolerance",  # small [I]
    ),
    kickoff=KickoffProfile(
        method="GET",  # [D] ET, vendor-facts 1.9
        lists="comma",  # as in the guide's first version, which Epic follows [D] ET, vendor-facts 1.9
        type_filter_comma="backslash",  # the document says so; %2C works too [D] ET, [R] SF, vendor-facts 1.9
        # one live export per client and group [R] SF, vendor-facts 1.9; the refusal's status: not found
        busy_means_running=True,
        # one request per client, group and 24 h; a site's table may say otherwise [D] ET, vendor-facts 1.9
        window_s=86_400,
    ),
    poll=PollProfile(
        # Epic asks for 10 min under 100 patients; sooner polls were not refused [D] ET, [I], vendor-facts 1.9
        first_s=60,
        cap_s=600,  # [D] ET, vendor-facts 1.9
    ),
    changes=ChangesProfile(
        overlap_s=86_400,  # [I] vendor-facts 7
    ),
    completeness=CompletenessProfile(
        # Bundle.total is the size of the page; `_summary=count` gives the true number [R] TM. Types that are searched by
        # category are walked all the same: one Observation may be in two categories [R] SF, vendor-facts 1.6
        count_query="_summary=count",
    ),
)
