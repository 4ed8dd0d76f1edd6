"""Any FHIR R4 server: trusts what it declares, sends nothing that the specification does not know."""

from __future__ import annotations

from connectors.fhir.profile import (
    BulkProfile,
    CompletenessProfile,
    LimitsProfile,
    LoginProfile,
    ReferencesProfile,
    SearchProfile,
    VendorProfile,
)

GENERIC = VendorProfile(
    name="generic",
    label="generic FHIR R4 server",
    login=LoginProfile(
        # servers that list scopes at all accept wildcards for backend services, as the SMART guide's own examples do
        # [D] S1, vendor-facts 5.6
        scope_wildcards=True,
    ),
    limits=LimitsProfile(
        max_concurrency=10,  # [I]
    ),
    search=SearchProfile(
        page_size=200,  # HAPI's default cap is 200 [I]; a server that caps lower says so by its pages, and `next` is all we trust
        lists_patients=True,  # the specification requires no criteria of a search [I]
        post_over=1_800,  # every R4 server takes POST; proxies begin to refuse URLs of 2 to 4 kB (vendor-facts 7)
        # search by reference needs ids first; these directories are small and listed whole where the server declares the
        # search [I]
        directory_types=("Organization", "Practitioner", "PractitionerRole", "Location", "Medication"),
    ),
    references=ReferencesProfile(
        id_batch=50,  # `_id` with a list is plain R4 (search.html, 3.1.1.5.2); sent only if `_id` is declared
    ),
    bulk=BulkProfile(
        # patient level gives charts; system level adds what belongs to no patient, and asks for far more [I]
        levels=("group", "patient", "system", "patient-list"),
    ),
    completeness=CompletenessProfile(
        # both are of the specification (search, 3.1.1.5); a server that knows them not ignores them, and is walked in full
        count_query="_summary=count",
        walk_query="_elements=id,meta",  # of the specification likewise
    ),
)
