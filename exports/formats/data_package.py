"""The files that describe tables: a Data Package (datapackage.org) with the schema of each, and a data dictionary for people.

Pure.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exports.formats.file_formats import FILE_FORMATS
from exports.formats.table_columns import Kind, TableColumn

PACKAGE_NAME = "datapackage.json"
DICTIONARY_NAME = "data_dictionary.csv"
_PROFILE = "https://datapackage.org/profiles/2.0/datapackage.json"
_HEADER = ("table", "column", "kind", "fhir_type", "fhir_path", "meaning")
_TYPES: dict[Kind, str] = {
    "text": "string", "boolean": "boolean", "integer": "integer", "long": "integer", "number": "number", "date": "date",
    "moment": "datetime",
}  # fmt: skip


@dataclass(frozen=True)
class DescribedTable:
    """One table of an export: its file or its parts, `format` (of `file_formats.TABLES`), view and columns.

    `missing` are the texts that are null. A file of DuckDB has several tables, whose names are their definitions'.
    """

    paths: tuple[str, ...]
    format: str
    definition: Mapping[str, Any]
    columns: tuple[TableColumn, ...]
    missing: tuple[str, ...] = ()


def package_content(tables: Sequence[DescribedTable]) -> bytes:
    """Return the Data Package: a resource for each table, with its fields in order, their FHIR types, paths and meanings."""
    document = {"$schema": _PROFILE, "resources": [_resource(table) for table in tables]}
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _resource(table: DescribedTable) -> dict[str, Any]:
    format_ = FILE_FORMATS[table.format]
    fields = [
        {
            "name": column.name,
            "type": _TYPES.get(column.kind, format_.of_list),
            "description": column.meaning,
            "fhirType": column.fhir_type,
            "fhirPath": list(column.paths),
        }
        for column in table.columns
    ]
    return {
        "name": f"{table.definition['name']}.{table.format}",
        "path": table.paths[0] if len(table.paths) == 1 else list(table.paths),
        **{key: table.definition[key] for key in ("title", "description") if key in table.definition},
        "format": table.format,
        "mediatype": format_.media_type,
        **({"dialect": {"table": table.definition["name"]}} if format_.database else {}),  # as Table Dialect says
        "schema": {"fields": fields, **({"missingValues": list(table.missing)} if table.missing else {})},
    }


def dictionary_content(tables: Sequence[DescribedTable]) -> bytes:
    """Return a CSV file with a row for each column of each table; for a table in two formats, of the wider one."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_HEADER)
    widest = {table.definition["name"]: table.columns for table in sorted(tables, key=lambda one: len(one.columns))}
    for name in sorted(widest):
        for one in widest[name]:
            rows.writerow((name, one.name, one.kind, one.fhir_type, "; ".join(one.paths), one.meaning))
    return text.getvalue().encode()
