"""A key of a nested table is found wherever it is written, also by the flat names that profiles once had."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from config.connections import Connection
from config.key_places import place_near, places_of, tables_of
from config.settings import problems_of
from connectors.fhir.profile import VendorProfile

PATHS = [(table, field) for table, inner in tables_of(VendorProfile).items() for field in inner.model_fields]
# flat names of profiles before the groups, and where each is now
FORMER = {
    "login_refused_waits_s": "login.refused_waits_s",
    "client_id_header": "http.client_id_header",
    "retry_after_cap_s": "retry.after_cap_s",
    "max_concurrency": "limits.max_concurrency",
    "private_hosts": "links.private_hosts",
    "search_splits": "search.splits",
    "issue_codes": "answers.issue_codes",
    "reference_paths": "references.paths",
    "bulk_types": "bulk.types",
    "type_filter_comma": "kickoff.type_filter_comma",
    "poll_early_s": "poll.early_s",
    "incremental": "changes.incremental",
    "count_query": "completeness.count_query",
}


@pytest.mark.parametrize(("key", "place"), FORMER.items())
def test_a_former_flat_key_is_reported_with_its_new_place(key: str, place: str) -> None:
    assert places_of(key, VendorProfile) == (place,)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("post_search_over", "search.post_over"),
        ("kickoff_429_means_running", "kickoff.busy_means_running"),
        ("page_sise", "search.page_size"),
    ],
)
def test_a_misspelt_key_is_reported_with_the_nearest_key(key: str, place: str) -> None:
    assert places_of(key, VendorProfile) == ()
    assert place_near(key, VendorProfile) == place


@pytest.mark.parametrize(("table", "field"), PATHS, ids=".".join)
def test_every_setting_is_found_by_its_key_with_or_without_its_table(table: str, field: str) -> None:
    assert f"{table}.{field}" in places_of(field, VendorProfile)
    assert places_of(f"{table}_{field}", VendorProfile) == (f"{table}.{field}",)


def test_a_key_of_several_tables_names_them_all() -> None:
    assert places_of("types", VendorProfile) == ("search.types", "attachments.types", "bulk.types")


def hints(model: type[BaseModel], table: dict[str, object]) -> dict[str, str]:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(table)
    return {problem.path: problem.allowed for problem in problems_of(refused.value, model, "it")}


def test_a_key_in_the_wrong_table_or_in_none_is_reported_with_the_right_table() -> None:
    named = {"name": "x", "label": "X"}
    assert hints(VendorProfile, {**named, "page_size": 5})["it.page_size"].startswith(
        "write search.page_size; one of: "
    )
    assert hints(VendorProfile, {**named, "retry": {"page_size": 5}})["it.retry.page_size"] == (
        "write search.page_size; one of: max_tries, base_s, cap_s, after_cap_s, share, floor"
    )
    assert "did you mean max_tries?" in hints(VendorProfile, {**named, "retry": {"max_tris": 5}})["it.retry.max_tris"]
    connection = {"name": "x", "vendor": "generic", "base_url": "https://ehr.example.org", "type_filters": ["Goal?a=b"]}
    assert hints(Connection, connection)["it.type_filters"].startswith("write bulk.type_filters; ")
