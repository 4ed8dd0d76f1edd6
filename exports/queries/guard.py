"""Checks the SQL of a library with Postgres' own parser, before Postgres sees it, and cuts it where parameters stand. Pure.

A library may come from others, and the store's login may do more than read this tenant: so a query is one SELECT, over tables
that it declares, with functions that only compute. What has effects, reads files, settings or other tables is refused by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from exports.errors import QueryError
from exports.queries.library import Library

# beside what Postgres calls immutable: what depends on the time zone, the moment or chance, and reads nothing
HARMLESS = frozenset(
    (
        *("age", "clock_timestamp", "date", "date_part", "date_trunc", "extract", "generate_series", "now", "overlaps"),
        *("timestamptz", "timezone", "to_char", "to_date", "to_number", "to_timestamp", "to_tsvector"),
        *("array_agg", "array_to_json", "concat", "concat_ws", "format", "string_agg", "row_to_json", "to_json", "to_jsonb"),
        *("json_agg", "json_build_array", "json_build_object", "json_object_agg"),
        *("jsonb_agg", "jsonb_build_array", "jsonb_build_object", "jsonb_object_agg"),
        *("gen_random_uuid", "random"),
    )
)  # fmt: skip
_STATEMENTS = frozenset({"RawStmt", "SelectStmt"})
_COLON, _IDENT_BYTES = 58, b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"


@dataclass(frozen=True)
class Checked:
    """SQL that may run: `pieces` of it, with the name of a parameter between each two, and the functions that it calls."""

    pieces: tuple[str, ...]
    parameters: tuple[str, ...]
    functions: frozenset[str]
    # `x.name`: a column, or, where there is none, Postgres calls the function of that name with x
    attributes: frozenset[str]


def check(library: Library) -> Checked:
    """Check a library's SQL.

    Raises:
        QueryError: it does not parse, or does more than select from the tables that the library declares.
    """
    declared = {one.name for one in library.parameters}
    pieces, parameters = _split(library, declared)
    # each is a whole token of the same kind of place: what parses with it parses with the value
    text = "".join(part for pair in zip(pieces, [*["NULL"] * len(parameters), ""], strict=True) for part in pair)
    import postgast  # a tenth of a second, for exports that have a query

    try:
        tree = postgast.parse(text)
    except postgast.PgQueryError as error:
        raise QueryError(f"{library.origin}: {_without_quotes(error.message)} at character {error.cursorpos}") from None
    if len(tree.stmts) != 1:
        raise QueryError(f"{library.origin}: expected one statement, a SELECT, found {len(tree.stmts) or 'none'}")
    walk = _Walk(library.origin)
    walk.node(tree.stmts[0], frozenset(one.label for one in library.dependencies))
    if unused := sorted(declared - set(parameters)):
        raise QueryError(f"{library.origin}: the SQL does not use the parameter {', '.join(unused)}")
    return Checked(tuple(pieces), tuple(parameters), frozenset(walk.functions), frozenset(walk.attributes))


def _without_quotes(message: str) -> str:
    """The parser quotes the query, which may hold what somebody pasted into it: `syntax error at or near "selct"`."""
    return message.partition(' "')[0].removesuffix(" at or near")


def _split(library: Library, declared: Collection[str]) -> tuple[list[str], list[str]]:
    """Cut the SQL at `:name`; the end of the statement and its semicolon are cut off."""
    import postgast

    raw = library.sql.encode()
    try:
        tokens = list(postgast.scan(library.sql).tokens)
    except postgast.PgQueryError as error:
        raise QueryError(f"{library.origin}: {_without_quotes(error.message)}") from None
    while tokens and raw[tokens[-1].start : tokens[-1].end] in {b";"}:
        raw = raw[: tokens.pop().start]
    pieces: list[str] = []
    names: list[str] = []
    at = 0
    for colon, word in itertools.pairwise(tokens):
        name = raw[word.start : word.end]
        if raw[colon.start : colon.end] != b":" or colon.end != word.start or not name or name[0] in b"0123456789":
            continue
        if set(name) <= set(_IDENT_BYTES) and name.decode() in declared:
            pieces.append(raw[at : colon.start].decode())
            names.append(name.decode())
            at = word.end
    pieces.append(raw[at:].decode())
    return pieces, names


class _Walk:
    """One walk through the parsed statement, with the tables that are in scope."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.functions: set[str] = set()
        self.attributes: set[str] = set()

    def node(self, node: Any, tables: frozenset[str]) -> None:
        kind = node.DESCRIPTOR.name
        if kind.endswith("Stmt") and kind not in _STATEMENTS:
            raise self._refused("only SELECT may run")
        if kind in {"IntoClause", "LockingClause"}:
            raise self._refused("SELECT INTO and FOR UPDATE change the store")
        if kind == "SelectStmt" and node.HasField("with_clause"):
            tables = self._with(node.with_clause, tables)
        elif kind == "RangeVar":
            self._table(node, tables)
        elif kind == "FuncCall":
            self._function([one.string.sval for one in node.funcname])
        elif kind in {"ColumnRef", "A_Indirection"}:
            names = node.fields[1:] if kind == "ColumnRef" else node.indirection
            self.attributes |= {one.string.sval for one in names if one.HasField("string")}
        elif kind == "A_Expr" and len(node.name) > 1:
            raise self._refused("an operator with a schema")
        elif kind == "RangeTableSample":
            raise self._refused("TABLESAMPLE")
        for child in _children(node):
            if child.DESCRIPTOR.name != "WithClause":
                self.node(child, tables)

    def _with(self, clause: Any, tables: frozenset[str]) -> frozenset[str]:
        """Walk through WITH, in whose order its tables come into scope; return all that are."""
        named = [one.common_table_expr for one in clause.ctes]
        if clause.recursive:
            tables |= {one.ctename for one in named}
        for one in named:
            self.node(one, tables)
            tables |= {one.ctename}
        return tables

    def _table(self, node: Any, tables: frozenset[str]) -> None:
        name = node.relname
        if node.schemaname or node.catalogname or name not in tables:
            shown = f"{node.schemaname}.{name}" if node.schemaname else name
            raise self._refused(
                f"table {shown} is not declared: begin with -- @relatedDependency: VIEW as {name}, where VIEW is a view's name, "
                "file or URL (`chartferry views list` lists the built-in ones)"
            )

    def _function(self, name: list[str]) -> None:
        if len(name) > 1 and name[0] != "pg_catalog":
            raise self._refused(f"function {'.'.join(name)}: only Postgres' own may be called")
        self.functions.add(name[-1])

    def _refused(self, why: str) -> QueryError:
        return QueryError(f"{self._origin}: {why}")


def _children(node: Any) -> Iterator[Any]:
    for field, value in node.ListFields():
        if field.message_type is not None:
            yield from value if field.is_repeated else (value,)
