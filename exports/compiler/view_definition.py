"""ViewDefinition JSON to a typed tree of selections and columns, with all that can be refused before data is seen.

Owns the resource's shape and its static rules (SQL on FHIR v2: names, unions, iteration directives, constants). What the
expressions in it mean is left to `resolution`. Metadata is accepted and ignored; an unknown property of a selection, column,
constant or criterion is an error, since a misspelt `forEachOrNull` would silently change the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NoReturn

from config.resource_types import type_problem
from exports.compiler import fhirpath
from exports.compiler.resolution import Scope, criterion, resolve
from exports.compiler.scalar_sql import sql_type
from exports.compiler.typed_tree import Constant, Expression, Focus, Resource, category
from exports.errors import FhirPathError, ViewError

MAX_NAME_BYTES = 63  # Postgres cuts longer identifiers
_SQL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESOURCE_NAME = re.compile(r"[A-Z][A-Za-z]*")
_ANYWHERE = frozenset({"id", "extension", "modifierExtension", "description"})
_DIRECTIVES = ("forEach", "forEachOrNull", "repeat")
_SELECTION_KEYS = frozenset({"column", "select", "unionAll", *_DIRECTIVES}) | _ANYWHERE
_COLUMN_KEYS = frozenset({"path", "name", "type", "collection", "tag"}) | _ANYWHERE
_TYPE_PREFIX = "http://hl7.org/fhir/StructureDefinition/"

_CONSTANT_TYPES: dict[str, type | tuple[type, ...]] = {
    "boolean": bool,
    "decimal": (int, float, Decimal),
    **dict.fromkeys(("integer", "integer64", "positiveInt", "unsignedInt"), int),
    **dict.fromkeys(
        "base64Binary canonical code date dateTime id instant oid string time uri url uuid".split(),  # noqa: SIM905
        str,
    ),
}


@dataclass(frozen=True)
class ColumnNode:
    """One column: its value on the focus of its selection, its FHIR type, and whether it holds a list."""

    name: str
    value: Expression
    type: str
    collection: bool

    @property
    def sql_type(self) -> str:
        """The Postgres type of its values."""
        return "jsonb" if self.collection else sql_type(self.type)


@dataclass(frozen=True)
class Selection:
    """One selection structure. `each`: what it iterates over (None: it stands on its parent's focus)."""

    each: Expression | None
    or_null: bool
    columns: tuple[ColumnNode, ...]
    select: tuple[Selection, ...]
    union: tuple[Selection, ...]

    def all_columns(self) -> tuple[ColumnNode, ...]:
        """Every column in output order: own, those of nested selections, those of the union's first branch."""
        nested = tuple(column for inner in self.select for column in inner.all_columns())
        return self.columns + nested + (self.union[0].all_columns() if self.union else ())


@dataclass(frozen=True)
class View:
    """A ViewDefinition that may be run."""

    name: str
    resource: str
    where: tuple[Expression, ...]
    select: Selection  # unnamed: it holds the view's top-level selections


def parse_view(definition: Mapping[str, Any]) -> View:
    """The typed tree of a ViewDefinition.

    Raises:
        ViewError: what is wrong, at which JSON path, and what is allowed there.
    """
    name = definition.get("name") if isinstance(definition, Mapping) else None
    reader = _Reader(name if isinstance(name, str) and name else "(unnamed)")
    if not isinstance(definition, Mapping) or not definition:
        reader.fail("", "a ViewDefinition must be a JSON object with `resource` and `select`")
    kind = definition.get("resourceType", "ViewDefinition")
    if not isinstance(kind, str) or kind.rsplit("/", 1)[-1] != "ViewDefinition":
        reader.fail("resourceType", f"this is no ViewDefinition but {kind!r}", allowed="ViewDefinition")
    if name is not None:
        reader.sql_name(name, "name")
    resource = definition.get("resource")
    if not isinstance(resource, str) or not _RESOURCE_NAME.fullmatch(resource):
        reader.fail("resource", f"a resource type is required, found {resource!r}", allowed="such as Patient")
    if problem := type_problem(resource):
        reader.fail("resource", f"{resource!r} is {problem}")
    scope = Scope(resource, reader.constants(definition.get("constant")), Resource(type=resource))
    where = tuple(
        reader.expression(item, f"where[{at}]", "path", scope, boolean=True)
        for at, item in enumerate(reader.objects(definition.get("where"), "where", frozenset({"path"}) | _ANYWHERE))
    )
    if not definition.get("select"):
        reader.fail("select", "at least one selection is required")
    select = Selection(None, False, (), reader.selections(definition["select"], "select", scope), ())
    reader.unique_names(select)
    return View(reader.view, resource, where, select)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return "\0" not in value


class _Reader:
    """Reads the parts of one view; every complaint carries the view's name and a JSON path."""

    def __init__(self, view: str) -> None:
        self.view = view
        self._places: dict[int, str] = {}  # id of a column -> its JSON path, for complaints about names

    def fail(self, where: str, problem: str, *, allowed: str | None = None) -> NoReturn:
        raise ViewError(self.view, where, problem, allowed=allowed)

    def sql_name(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not _SQL_NAME.fullmatch(value):
            self.fail(where, f"{value!r} is no SQL name", allowed="a letter, then letters, digits and _")
        if len(value) > MAX_NAME_BYTES:
            self.fail(
                where, f"the name is {len(value)} characters long", allowed=f"at most {MAX_NAME_BYTES}, as in Postgres"
            )
        return value

    def objects(self, value: Any, where: str, allowed: frozenset[str] | None = None) -> list[Mapping[str, Any]]:
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            self.fail(where, "must be a list of objects")
        for at, item in enumerate(value):
            unknown = [key for key in item if allowed is not None and key not in allowed and not key.startswith("_")]
            if unknown and allowed is not None:
                self.fail(
                    f"{where}[{at}].{unknown[0]}", "no such property", allowed=", ".join(sorted(allowed - _ANYWHERE))
                )
        return value

    def constants(self, value: Any) -> dict[str, Constant]:
        found: dict[str, Constant] = {}
        for at, item in enumerate(self.objects(value, "constant")):
            where = f"constant[{at}]"
            name = self.sql_name(item.get("name"), f"{where}.name")
            values = [key for key in item if key.startswith("value")]
            if len(values) != 1:
                self.fail(where, f"{len(values)} values given", allowed="exactly one value[x]")
            suffix = values[0].removeprefix("value")
            type_ = suffix[:1].lower() + suffix[1:]
            given: Any = item[values[0]]
            wanted = _CONSTANT_TYPES.get(type_)
            if wanted is None:
                self.fail(
                    f"{where}.{values[0]}", "no such type of constant", allowed=", ".join(sorted(_CONSTANT_TYPES))
                )
            fits = isinstance(given, wanted) and (type_ == "boolean" or not isinstance(given, bool))
            if not fits:
                self.fail(f"{where}.{values[0]}", f"{given!r} is no {type_}")
            if isinstance(given, str) and not _is_text(given):
                self.fail(f"{where}.{values[0]}", "the value holds a character that JSON in Postgres cannot")
            if name in found:
                self.fail(f"{where}.name", f"the constant {name!r} is defined twice")
            found[name] = Constant(value=Decimal(str(given)) if isinstance(given, float) else given, type=type_)
        return found

    def expression(
        self, owner: Mapping[str, Any], where: str, key: str, scope: Scope, *, boolean: bool = False
    ) -> Expression:
        text, where = owner.get(key), f"{where}.{key}"
        if not isinstance(text, str) or not text.strip():
            self.fail(where, "a FHIRPath expression is required", allowed="a string")
        try:
            node = fhirpath.parse(text)
            return criterion(node, scope, what="`where`") if boolean else resolve(node, scope)
        except FhirPathError as error:
            raise ViewError(self.view, where, f"{error} in {text!r}", allowed=error.allowed) from error

    def selections(self, value: Any, where: str, scope: Scope) -> tuple[Selection, ...]:
        items = self.objects(value, where, _SELECTION_KEYS)
        return tuple(self.selection(item, f"{where}[{at}]", scope) for at, item in enumerate(items))

    def selection(self, item: Mapping[str, Any], where: str, scope: Scope) -> Selection:
        directives = [key for key in _DIRECTIVES if key in item]
        if len(directives) > 1:
            self.fail(where, f"{' and '.join(directives)} together", allowed=f"one of {', '.join(_DIRECTIVES)}")
        each = None
        if directives == ["repeat"]:
            self.fail(f"{where}.repeat", "`repeat` is not supported yet", allowed="forEach, forEachOrNull")
        if directives:
            each = self.expression(item, where, directives[0], scope)
            scope = replace(scope, focus=Focus(type=each.type))
        columns = tuple(
            self.column(column, f"{where}.column[{at}]", scope)
            for at, column in enumerate(self.objects(item.get("column"), f"{where}.column", _COLUMN_KEYS))
        )
        union = self.selections(item.get("unionAll"), f"{where}.unionAll", scope)
        self.same_columns(union, f"{where}.unionAll")
        select = self.selections(item.get("select"), f"{where}.select", scope)
        if not columns and not union and not select:
            self.fail(where, "the selection gives no column", allowed="column, select or unionAll")
        return Selection(each, directives == ["forEachOrNull"], columns, select, union)

    def column(self, item: Mapping[str, Any], where: str, scope: Scope) -> ColumnNode:
        name = self.sql_name(item.get("name"), f"{where}.name")
        value = self.expression(item, where, "path", scope)
        collection = item.get("collection", False)
        if not isinstance(collection, bool):
            self.fail(f"{where}.collection", f"found {collection!r}", allowed="true, false")
        declared = item.get("type")
        if declared is not None and not isinstance(declared, str):
            self.fail(f"{where}.type", f"found {declared!r}", allowed="the name of a FHIR type")
        type_ = (declared or value.type or "string").removeprefix(_TYPE_PREFIX)
        wanted, found = category(type_), category(value.type)
        if wanted in {"boolean", "number"} and found not in {None, wanted}:
            self.fail(
                f"{where}.type", f"the column is declared {type_}, its path gives {value.type}", allowed=value.type
            )
        column = ColumnNode(name, value, type_, collection)
        self._places[id(column)] = f"{where}.name"
        return column

    def same_columns(self, branches: tuple[Selection, ...], where: str) -> None:
        if not branches:
            return
        first = [(column.name, column.sql_type) for column in branches[0].all_columns()]
        for at, branch in enumerate(branches[1:], start=1):
            found = [(column.name, column.sql_type) for column in branch.all_columns()]
            if found != first:
                told = ", ".join(f"{name} {type_}" for name, type_ in first)
                self.fail(
                    f"{where}[{at}]", "its columns are not those of the first branch, in the same order", allowed=told
                )

    def unique_names(self, select: Selection) -> None:
        seen: set[str] = set()
        for column in select.all_columns():
            if column.name in seen:
                self.fail(self._places[id(column)], f"a second column named {column.name!r}", allowed="unique names")
            seen.add(column.name)
