"""Scopes are requested in the server's syntax, and read in every known spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.core.errors import PlanError
from connectors.fhir.auth.scopes import granted_scopes, requested_scopes, syntax_for
from connectors.fhir.profile import VendorProfile

PROFILE = VendorProfile(name="x", label="X")
TYPES = st.sampled_from(["Patient", "Observation", "Condition", "Encounter", "Binary"])


@pytest.mark.parametrize(
    ("types", "changes", "syntax", "expected"),
    [
        (["Patient", "Condition"], {}, "v1", "system/Condition.read system/Patient.read"),
        (["Patient"], {}, "v2", "system/Patient.rs"),
        ([], {}, "v1", "system/*.read"),
        ([], {}, "v2", "system/*.rs"),
        (["Patient"], {"extra_scopes": ("launch",)}, "v1", "launch system/Patient.read"),
    ],
)
def test_scopes_are_requested_by_type_or_as_a_wildcard(types, changes, syntax, expected):
    assert requested_scopes(types, PROFILE.with_overrides({"login": changes}), syntax) == expected


def test_without_types_an_ehr_without_wildcards_cannot_be_asked_for_scopes():
    with pytest.raises(PlanError, match="set the connection's types or scopes"):
        requested_scopes([], PROFILE.with_overrides({"login": {"scope_wildcards": False}}), "v1")


@pytest.mark.parametrize(
    ("configured", "capabilities", "expected"),
    [
        ("auto", [], "v1"),
        ("auto", ["permission-v1", "permission-v2"], "v1"),
        ("auto", ["permission-v2"], "v2"),
        ("v1", ["permission-v2"], "v1"),
        ("v2", [], "v2"),
    ],
)
def test_v2_scopes_are_used_only_where_nothing_else_is_accepted(configured, capabilities, expected):
    assert syntax_for(PROFILE.with_overrides({"login": {"scope_syntax": configured}}), capabilities) == expected


@pytest.mark.parametrize(
    "scope",
    [
        "system/Condition.read",
        "system/Condition.rs",
        "system/Condition.cruds",
        "system/Condition.*",
        "system/*.read",
        "system/*.rs",
        "Condition.read Condition.search",
        "system/Condition.r system/Condition.s",
        "system/Condition.Read",
        "launch openid system/Condition.rs",
        "SYSTEM/Condition.READ",
        "system/Patient.read,system/Condition.read",
        "system/Patient.rs?category=a,b,system/Condition.rs",
    ],
)
def test_read_permission_is_recognised_in_every_spelling(scope):
    assert granted_scopes(scope).may_read("Condition")


@pytest.mark.parametrize(
    "scope", ["", "launch", "system/Condition.write", "system/Condition.cud", "system/Patient.read"]
)
def test_ungranted_types_may_not_be_read(scope):
    assert not granted_scopes(scope).may_read("Condition")


def test_a_type_granted_only_by_category_is_partly_granted():
    category = "system/Condition.r?category=http://x|problem-list-item"
    assert granted_scopes(category).partly == {"Condition"}
    assert granted_scopes(f"{category} system/Condition.r").partly == frozenset()
    assert granted_scopes(f"{category} system/*.read").partly == frozenset()


@given(st.lists(TYPES, unique=True, min_size=1), st.sampled_from(["v1", "v2"]))
def test_requested_and_granted_types_may_be_read(types, syntax):
    granted = granted_scopes(requested_scopes(types, PROFILE, syntax))
    assert granted.readable == set(types)


@given(st.text())
def test_any_text_is_parsed_as_a_scope_without_error(text):
    assert granted_scopes(text) == granted_scopes(" ".join(text.split()))
