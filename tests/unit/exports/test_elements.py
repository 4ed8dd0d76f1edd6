"""The table of elements, against the R4B models of `fhir.resources`."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from exports.compiler.elements import PRIMITIVE_TYPES, RESOURCE_TYPES, _known_elements, element

# these have no class of their own there, or hold what every element has
NOT_COMPARED = {"Extension", "Meta", "Narrative"}
TYPES = sorted(set(_known_elements()) - NOT_COMPARED)


def _is_list(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (list, typing.List):  # noqa: UP006 - the models are written so
        return True
    return any(_is_list(argument) for argument in typing.get_args(annotation))


@pytest.mark.parametrize("type_name", TYPES)
def test_elements_repeat_as_the_models_say(type_name: str) -> None:
    model = get_fhir_model_class(type_name)
    common = {"id", "extension", "modifierExtension", "resourceType", "fhir_comments", "resource_type"}
    fields = {field.alias or name: field for name, field in model.model_fields.items() if not name.endswith("__ext")}
    for name, field in fields.items():
        if name in common or (type_name in RESOURCE_TYPES and name in {"meta", "text", "contained", "implicitRules"}):
            continue
        choice = (field.json_schema_extra or {}).get("one_of_many")
        found = element(type_name, choice or name)
        assert found is not None, name
        assert found.many == (_is_list(field.annotation) and not choice), name
        if choice:
            written = {choice + type_[0].upper() + type_[1:] for type_ in found.types}
            assert name in written


def test_every_type_that_an_element_may_have_is_known() -> None:
    for type_name, elements in _known_elements().items():
        for name, found in elements.items():
            for type_ in found.types:
                assert type_ in PRIMITIVE_TYPES or type_ in _known_elements(), f"{type_name}.{name}: {type_}"


def test_what_is_not_listed_is_unknown() -> None:
    assert element("Patient", "nme") is None
    assert element("Claim", "item") is None
    assert element(None, "name") is None


def test_every_element_has_extensions() -> None:
    assert element("HumanName", "extension") is not None
    assert element("Patient", "meta") is not None
