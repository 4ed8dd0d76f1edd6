"""How a run is planned."""

from __future__ import annotations

from typing import Literal

import pytest

from connectors.core.errors import PlanError
from connectors.fhir.capability import Capability, capability_from
from connectors.fhir.plan import bulk_levels, bulk_types, choose_mode, crawl_types, named
from connectors.fhir.vendors import PROFILES, profile_for

EPIC, CERNER, VA, GENERIC = (PROFILES[name] for name in ("epic", "cerner", "va", "generic"))


def everything(resource_type: str) -> bool:
    return True


def statement(*types: str, root: tuple[str, ...] = (), **operations: str) -> dict:
    return {
        "resourceType": "CapabilityStatement",
        "rest": [
            {
                "mode": "server",
                "operation": [{"name": name} for name in root],
                "resource": [
                    {
                        "type": t,
                        "interaction": [{"code": "search-type"}],
                        "searchParam": []
                        if t in {"Organization", "Patient"}
                        else [{"name": "patient"}, {"name": "_lastUpdated"}],
                        "operation": [{"name": operations[t]}] if t in operations else [],
                    }
                    for t in types
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("declared", "levels"),
    [
        (statement("Patient", "Group", root=("export",)), {"system"}),
        (statement("Patient", "Group", Group="group-export"), {"group"}),
        (statement("Patient", "Group", Group="export", Patient="patient-export"), {"group", "patient"}),
        (statement("Patient", Patient="$export"), {"patient"}),
        (statement("Patient", root=("group-export", "patient-export")), {"group", "patient"}),
        (statement("Patient", Patient="match"), set()),
        ({"rest": "nonsense"}, set()),
        ([], set()),
    ],
)
def test_the_levels_of_export_are_read_however_they_are_declared(declared: object, levels: set[str]) -> None:
    assert capability_from(declared).bulk_levels == levels


@pytest.mark.parametrize(
    ("vendor", "wanted", "declared", "group", "cohort", "mode"),
    [
        ("epic", "auto", statement("Group", Group="group-export"), "g", False, "crawl"),
        ("epic", "bulk", statement("Group", Group="group-export"), "g", False, "bulk"),
        ("cerner", "auto", statement("Group"), "g", False, "bulk"),
        ("cerner", "auto", statement("Group"), None, True, "crawl"),
        ("va", "auto", statement("Patient"), None, True, "crawl"),
        ("generic", "auto", statement("Patient", root=("export",)), None, False, "bulk"),
        ("generic", "auto", statement("Patient", Patient="export"), None, False, "bulk"),
        ("generic", "auto", statement("Patient", Patient="export"), None, True, "crawl"),
        ("generic", "auto", statement("Patient"), None, False, "crawl"),
        ("generic", "crawl", statement("Patient", Patient="export"), None, False, "crawl"),
        ("generic", "bulk", statement("Patient"), None, False, "bulk"),
        ("generic", "bulk", statement("Patient"), "g", False, "bulk"),
        ("generic", "bulk", statement("Patient"), None, True, "bulk"),
    ],
)
def test_the_mode_is_the_requested_one_or_the_profiles_or_what_the_server_declares(
    vendor: str, wanted: str, declared: dict, group: str | None, cohort: bool, mode: str
) -> None:
    found = choose_mode(wanted, PROFILES[vendor], capability_from(declared), group=group, has_cohort=cohort)  # type: ignore[arg-type]
    assert found == mode


@pytest.mark.parametrize(("vendor", "wanted"), [("cerner", "auto"), ("va", "bulk"), ("epic", "bulk")])
def test_an_impossible_mode_is_refused_with_the_next_step(vendor: str, wanted: str) -> None:
    with pytest.raises(PlanError, match=r"group|--mode crawl"):
        choose_mode(wanted, PROFILES[vendor], Capability(), group=None, has_cohort=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", ["auto", "crawl", "bulk"])
def test_a_group_that_no_login_could_read_is_refused(wanted: Literal["auto", "crawl", "bulk"]) -> None:
    with pytest.raises(PlanError, match="gives a token for one patient at a time, and none reads a Group"):
        choose_mode(wanted, PROFILES["va"], Capability(), group="g", has_cohort=False)
    if wanted != "bulk":
        assert choose_mode(wanted, PROFILES["va"], Capability(), group="g", has_cohort=True) == "crawl"


def test_an_ehr_without_exports_is_not_told_to_name_a_group() -> None:
    with pytest.raises(PlanError, match="exports no named patients as far as we know: crawl the cohort"):
        choose_mode("bulk", PROFILES["va"], Capability(), group=None, has_cohort=True)


def test_levels_are_tried_in_the_profiles_order_and_declarations_matter_only_without_a_request() -> None:
    declared = capability_from(statement("Patient", root=("export",)))
    assert bulk_levels(GENERIC, declared, group=None) == ("system",)
    assert bulk_levels(GENERIC, declared, group=None, insisted=True) == ("patient", "system")
    assert bulk_levels(GENERIC, declared, group="g", insisted=True) == ("group",)
    assert bulk_levels(GENERIC, declared, group=None, named=True, insisted=True) == ("patient-list",)
    assert bulk_levels(CERNER, declared, group=None, insisted=True) == ()


def test_a_bulk_profile_exports_whatever_is_declared_and_never_everyone_for_a_cohort() -> None:
    site = profile_for("generic", {"mode": "bulk"})
    assert choose_mode("auto", site, Capability(), group=None, has_cohort=False) == "bulk"
    declared = capability_from(statement("Patient", Patient="export"))
    assert choose_mode("auto", site, declared, group=None, has_cohort=True) == "crawl"


def test_undeclared_or_ungranted_types_are_reported_and_not_dropped() -> None:
    plan = crawl_types((), EPIC, capability_from(statement("Patient", "Condition", "Goal")), lambda t: t != "Goal")
    assert plan.types == ("Patient", "Condition")
    assert "Observation" in plan.notes[0]
    assert "Goal" in plan.notes[1]


def test_types_named_by_the_user_are_always_requested() -> None:
    assert crawl_types(("Basic",), EPIC, capability_from(statement("Patient")), lambda t: False).types == ("Basic",)


def test_a_generic_server_is_searched_for_every_declared_type_by_patient_and_for_whole_directories() -> None:
    plan = crawl_types(
        (), GENERIC, capability_from(statement("Condition", "Organization", "Patient", "AuditEvent")), everything
    )
    assert (plan.types, plan.directory) == (("Patient", "Condition"), ("Organization",))


def test_a_server_that_declares_no_parameters_is_searched_by_the_specification() -> None:
    bare = capability_from({"rest": [{"resource": [{"type": "Condition"}, {"type": "ValueSet"}, {"type": "Patient"}]}]})
    assert crawl_types((), GENERIC, bare, everything).types == ("Patient", "Condition")
    assert {"Patient", "Observation", "Device"} <= set(crawl_types((), GENERIC, Capability(), everything).types)


def test_bulk_types_are_the_granted_ones_of_the_profile() -> None:
    plan = bulk_types((), CERNER, lambda t: t != "Goal")
    assert "Goal" not in plan.types
    assert "Goal" in plan.notes[0]


def test_a_sites_override_is_laid_over_the_vendors_profile_and_checked() -> None:
    assert profile_for("epic", {"limits": {"max_concurrency": 3}}).limits.max_concurrency == 3
    with pytest.raises(ValueError, match="max_concurency"):
        profile_for("epic", {"limits": {"max_concurency": 3}})
    with pytest.raises(ValueError, match=r"limits\.max_concurrency"):
        profile_for("epic", {"limits": {"max_concurrency": 0}})


def test_types_can_be_read_if_they_declare_reads_or_no_interactions() -> None:
    declared = {
        "Condition": [{"code": "read"}, {"code": "search-type"}],
        "Observation": [{"code": "search-type"}, {"code": "vread"}],
        "Goal": [],
        "Flag": "nonsense",
    }
    resources = [{"type": kind, "interaction": interactions} for kind, interactions in declared.items()]
    found = capability_from({"rest": [{"resource": [*resources, {"type": "Procedure"}]}]})
    assert found.reads == {"Condition", "Goal", "Flag", "Procedure"}
    assert Capability().reads == frozenset()


def test_a_note_names_a_few_types_or_the_first_of_many() -> None:
    assert named(["A", "B"]) == "A, B"
    many = [f"T{number}" for number in range(85)]
    assert named(many) == "85 types (T0, T1, T2, T3, T4, … 80 more)"
