"""Profile overrides by the flat names from before the groups go on working."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from config.key_places import tables_of
from connectors.fhir.former_keys import former_places, placed
from connectors.fhir.profile import VendorProfile
from connectors.fhir.vendors import profile_for

# every flat name that a profile of the first version had
FLAT = re.findall(
    r"\w+",
    """
accept assertion_alg_ec assertion_alg_rsa assertion_life_s audience breaker_failures breaker_open_s
bulk_companion bulk_file_hosts bulk_leaves_out bulk_lenient bulk_levels bulk_not_alone bulk_partial
bulk_patients_max bulk_separate_status bulk_since bulk_types client_id_header connect_timeout_s
cookies count_query created_params delete_job directory_types divide_max extra_scopes
file_concurrency follow id_batch id_batch_by_type id_batch_one_patient incremental issue_codes
job_timeout_s kickoff_429_means_running kickoff_again_s kickoff_lists kickoff_method
kickoff_too_soon kickoff_wait_s kickoff_window_s last_updated_once last_updated_types lists_patients
login_refused_waits_s max_concurrency max_pages max_tries next_expired_statuses overlap_s page_size
page_size_by_type patient_by poll_cap_s poll_early_s poll_first_s poll_floor_s post_search_over
private_hosts quiet_hours quiet_max_concurrency quiet_wait_s read_timeout_s reconcile_every_d
reference_depth reference_fresh_d reference_paths requests_per_minute restricted_retry_d
restricts_patient retry_after_cap_s retry_base_s retry_cap_s retry_floor retry_share rewrite_origins
scope_required scope_syntax scope_wildcards search_splits since_mode time_zone token_per_patient
token_url type_filter_comma types unwitnessed_reads walk_query
""",
)


def test_every_flat_name_of_the_first_version_has_a_place() -> None:
    places = former_places(dict.fromkeys(FLAT), VendorProfile)
    assert places.keys() == set(FLAT)
    groups = tables_of(VendorProfile)
    for place in places.values():
        table, _, field = place.partition(".")
        assert field in groups[table].model_fields


def test_former_flat_keys_and_grouped_ones_mean_the_same() -> None:
    flat = {"incremental": True, "max_concurrency": 2, "issue_codes": {"4119": "incomplete"}, "post_search_over": 9}
    grouped = {
        "changes": {"incremental": True},
        "limits": {"max_concurrency": 2},
        "answers": {"issue_codes": {"4119": "incomplete"}},
        "search": {"post_over": 9},
    }
    assert profile_for("generic", flat) == profile_for("generic", grouped)


def test_the_flat_key_types_means_the_types_of_the_search() -> None:
    assert former_places({"types": ["Goal"], "mode": "bulk"}, VendorProfile) == {"types": "search.types"}


def test_a_key_given_both_flat_and_in_its_group_has_the_groups_value() -> None:
    both = {"page_size": 5, "search": {"page_size": 7, "patient_by": "_id"}, "max_pages": 3}
    assert placed(both, VendorProfile)["search"] == {"page_size": 7, "patient_by": "_id", "max_pages": 3}


@pytest.mark.parametrize("override", [{"page_sise": 5}, {"max_concurrency": 0}, {"limits": 3, "max_concurrency": 2}])
def test_unknown_keys_and_invalid_values_are_refused(override: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        profile_for("generic", override)
