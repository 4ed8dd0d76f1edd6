"""The table of elements, against the R4B models of `fhir.resources`, which were made of other definitions."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from fhir.resources.R4B import get_fhir_model_class

from exports.elements.table import (
    PRIMITIVE_TYPES,
    all_types,
    element,
    elements_of,
    is_a,
    is_known,
    is_resource,
    nearest,
)

# R4B added or changed these: medicines' definitions, substances, evidence, subscriptions
CHANGED_SINCE = (
    "MedicinalProduct", "Substance", "Evidence", "EffectEvidence", "RiskEvidence", "ResearchElement", "SubscriptionStatus",
    "DeviceDefinition", "PlanDefinition", "ActivityDefinition", "Subscription", "Citation", "ElementDefinition",
    "RelatedArtifact", "MarketingStatus", "ProdCharacteristic", "ProductShelfLife", "Population",
)  # fmt: skip
ABSTRACT = {"Resource", "DomainResource", "Element", "BackboneElement"}
COMMON = {"id", "extension", "modifierExtension", "resourceType", "fhir_comments", "resource_type", "contained"}


def _model_name(type_: str) -> str:
    return "".join(part[0].upper() + part[1:] for part in type_.split("."))


TYPES = [type_ for type_ in all_types() if not type_.startswith(CHANGED_SINCE) and type_ not in ABSTRACT]


def _is_list(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (list, typing.List):  # noqa: UP006 - the models are written so
        return True
    return any(_is_list(argument) for argument in typing.get_args(annotation))


def unlike_the_model(type_name: str) -> Iterator[str]:
    model = get_fhir_model_class(_model_name(type_name))
    fields = {field.alias or name: field for name, field in model.model_fields.items() if not name.endswith("__ext")}
    names = set()
    for name, field in fields.items():
        if name in COMMON:
            continue
        choice = (field.json_schema_extra or {}).get("one_of_many")
        names.add(choice or name)
        found = element(type_name, choice or name)
        if found is None or found.many != (_is_list(field.annotation) and not choice):
            yield f"{type_name}.{name}"
    yield from (f"{type_name}.{name}" for name in set(elements_of(type_name)) - COMMON - names - {"class"})


def test_elements_exist_and_repeat_as_in_the_models() -> None:
    assert [one for type_name in TYPES for one in unlike_the_model(type_name)] == []


def test_every_possible_type_of_an_element_is_known() -> None:
    for type_name in all_types():
        for name, found in elements_of(type_name).items():
            for type_ in found.types:
                assert type_ in PRIMITIVE_TYPES or type_ in all_types(), f"{type_name}.{name}: {type_}"


def test_elements_that_r4_lacks_are_unknown() -> None:
    assert element("Patient", "nme") is None
    assert element("Invention", "item") is None
    assert element(None, "name") is None
    assert not is_known("Invention")


def test_an_unknown_name_is_reported_with_the_nearest_one() -> None:
    assert nearest("Observation", "statsu") == "status"
    assert nearest("Observation", "zzz") is None


def test_every_element_has_extensions() -> None:
    assert element("HumanName", "extension") is not None
    assert element("code", "extension") is not None
    assert element("Patient", "meta") is not None


def test_a_specialised_type_is_also_its_base_type() -> None:
    assert is_a("Age", "Quantity")
    assert is_a("code", "string")
    assert not is_a("string", "code")
    assert is_resource("Claim")
    assert not is_resource("Coding")


def test_a_nested_element_has_a_type_of_its_own() -> None:
    assert element("Questionnaire.item", "item") == element("Questionnaire", "item")
    assert element("Patient", "contact").types == ("Patient.contact",)  # type: ignore[union-attr]  # it is there
