"""compiler turns a SQL on FHIR ViewDefinition into one Postgres query: parse, typed tree, SQL."""

from exports.compiler.scalar_sql import MARK, RAISED, sql_type
from exports.compiler.sql import ANY_ROWS, Column, CompiledView, Source, compile_criterion, compile_view

__all__ = [
    "ANY_ROWS",
    "MARK",
    "RAISED",
    "Column",
    "CompiledView",
    "Source",
    "compile_criterion",
    "compile_view",
    "sql_type",
]
