"""A contract for import-linter that names what a package may import, and forbids the rest (`[tool.importlinter]`).

The standard library is allowed; what pure modules may take from it is `tests/unit/test_house_rules.py`'s.
"""

from __future__ import annotations

import sys
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AllowListContract(Contract):
    """`importer` imports `allowed` and nothing else, below itself and the standard library aside.

    An entry allows a module and all below it.
    """

    type_name = "allow_list"
    importer = fields.StringField()
    allowed = fields.ListField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look at every direct import of every module of the importer."""
        importer = str(self.importer)
        entries = [importer, *map(str, self.allowed or ())]
        found = {
            (module, imported)
            for module in {importer, *graph.find_descendants(importer)}
            for imported in graph.find_modules_directly_imported_by(module)
            if imported.partition(".")[0] not in sys.stdlib_module_names
            and not any(imported == entry or imported.startswith(f"{entry}.") for entry in entries)
        }
        return ContractCheck(kept=not found, metadata={"found": sorted(found)})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each import that is not allowed."""
        pairs: list[Any] = check.metadata["found"]
        for module, imported in pairs:
            output.print_error(
                f"{module} imports {imported}: allow it here, or leave it to whom it is allowed", bold=False
            )
