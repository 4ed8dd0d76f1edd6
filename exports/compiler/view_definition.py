"""Turns ViewDefinition JSON into a typed tree of selections and columns, and refuses all that is wrong before any data are read.

Owns the resource's shape and its static rules (SQL on FHIR v2: names, unions, iteration directives, constants). `resolution`
decides what its expressions mean. Metadata is accepted and ignored. An unknown property of a selection, column, constant or
criterion is an error, because a misspelt `forEachOrNull` would silently change the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn

from config.resource_types import type_problem
from exports.compiler import fhirpath
from exports.compiler.ansi_type import ALLOWED, SORTS, AnsiType, read_ansi_type
from exports.compiler.functions import FUNCTIONS
from exports.compiler.moments import is_moment
from exports.compiler.paths import from_any_item, goes_down
from exports.compiler.resolution import Scope, criterion, resolve
from exports.compiler.sealed_elements import focus_on, require_no_whole_compared, require_not_computed, shows_sealed
from exports.compiler.typed_tree import Constant, Expression, Focus, Resource, category
from exports.compiler.view_tree import ColumnNode, Selection, View
from exports.elements.table import TEMPORAL_TYPES
from exports.errors import EncryptedElementError, FhirPathError, ViewError
from snapshots.identifying import SealedElements

MAX_COLUMNS = 1_000  # Postgres takes 1,664, and needs some to order and to look up
MAX_EXPONENT = 1_000  # of a constant's ten; Postgres has numbers up to 131,072 digits
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


def parse_view(
    definition: Mapping[str, Any],
    *,
    as_of: datetime | None = None,
    sealed: SealedElements | None = None,
    shows: bool = False,
) -> View:
    """The typed tree of a ViewDefinition; `as_of`, `sealed` and `shows` are those of `compile_view`.

    Raises:
        ViewError: what is wrong, at which JSON path, and what is allowed there.
    """
    name = definition.get("name") if isinstance(definition, Mapping) else None
    reader = _Reader(name if isinstance(name, str) and name else "(unnamed)")
    if not isinstance(definition, Mapping) or not definition:
        reader.fail("", "a ViewDefinition must be a JSON object with `resource` and `select`")
    kind = definition.get("resourceType", "ViewDefinition")
    if not isinstance(kind, str) or kind.rsplit("/", 1)[-1] != "ViewDefinition":
        reader.fail("resourceType", f"this is not a ViewDefinition but {kind!r}", allowed="ViewDefinition")
    if name is not None:
        reader.sql_name(name, "name")
    resource = definition.get("resource")
    if not isinstance(resource, str) or not _RESOURCE_NAME.fullmatch(resource):
        reader.fail("resource", f"a resource type is required, found {resource!r}", allowed="such as Patient")
    versions = definition.get("fhirVersion")
    of_r4 = not isinstance(versions, list) or not versions or any(str(one).startswith("4.") for one in versions)
    if of_r4 and (problem := type_problem(resource)):
        reader.fail("resource", f"{resource!r} is {problem}")
    constants = reader.constants(definition.get("constant"))
    scope = Scope(resource, constants, Resource(type=resource), FUNCTIONS, None, as_of, sealed, shows, of_r4)
    where = tuple(
        reader.expression(item, f"where[{at}]", "path", scope, boolean=True)
        for at, item in enumerate(reader.objects(definition.get("where"), "where", frozenset({"path"}) | _ANYWHERE))
    )
    if not definition.get("select"):
        reader.fail("select", "at least one selection is required")
    select = Selection(None, (), False, (), reader.selections(definition["select"], "select", scope), ())
    reader.check_columns(select)
    return View(reader.view, resource, where, select, tuple(reader.notes) if of_r4 else (), of_r4)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return "\0" not in value


def _is_number(value: float | Decimal) -> bool:
    number = Decimal(str(value))
    return number.is_finite() and abs(number.adjusted()) <= MAX_EXPONENT


class _Reader:
    """Reads the parts of one view; every complaint carries the view's name and a JSON path."""

    def __init__(self, view: str) -> None:
        self.view = view
        self.notes: list[str] = []
        self._places: dict[int, str] = {}  # id of a column -> its JSON path, for complaints about names

    def fail(self, where: str, problem: str, *, allowed: str | None = None) -> NoReturn:
        raise ViewError(self.view, where, problem, allowed=allowed)

    def sql_name(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not _SQL_NAME.fullmatch(value):
            self.fail(where, f"{value!r} is not an SQL name", allowed="a letter, then letters, digits and _")
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
            if type_ == "integer64" and isinstance(given, str) and re.fullmatch(r"-?[0-9]{1,19}", given):
                given = int(given)  # R5's JSON has it as a string
            wanted = _CONSTANT_TYPES.get(type_)
            if wanted is None:
                self.fail(
                    f"{where}.{values[0]}", "no such type of constant", allowed=", ".join(sorted(_CONSTANT_TYPES))
                )
            fits = isinstance(given, wanted) and (type_ == "boolean" or not isinstance(given, bool))
            if not fits:
                self.fail(f"{where}.{values[0]}", f"{given!r} is not of type {type_}")
            if isinstance(given, (float, Decimal)) and not _is_number(given):
                self.fail(f"{where}.{values[0]}", f"{given} is not a number that a resource can hold")
            if type_ in TEMPORAL_TYPES and not is_moment(str(given)):
                self.fail(f"{where}.{values[0]}", f"there is no such day or time as {given!r}")
            if isinstance(given, str) and not _is_text(given):
                self.fail(f"{where}.{values[0]}", "the value holds a character that JSON in Postgres cannot")
            if name in found:
                self.fail(f"{where}.name", f"the constant {name!r} is defined twice")
            found[name] = Constant(value=Decimal(str(given)) if isinstance(given, float) else given, type=type_)
        return found

    def expression(
        self, owner: Mapping[str, Any], where: str, key: str, scope: Scope, *, boolean: bool = False, each: bool = False
    ) -> Expression:
        text, where = owner.get(key), f"{where}.{key}"
        if not isinstance(text, str) or not text.strip():
            self.fail(where, "a FHIRPath expression is required", allowed="a string")
        return self.path(text, where, scope, boolean=boolean, each=each)

    def path(self, text: str, where: str, scope: Scope, *, boolean: bool = False, each: bool = False) -> Expression:
        scope = replace(scope, context=scope.focus, notes=[])
        try:
            node = fhirpath.parse(text)
            found = criterion(node, scope, what="`where`") if boolean else resolve(node, scope)
            require_not_computed(found, shown=each)
            if scope.sealed is not None:
                require_no_whole_compared(found, scope.resource_type, scope.sealed.further)
        except FhirPathError as error:
            quoted = fhirpath.without_literals(text) if isinstance(error, EncryptedElementError) else text
            raise ViewError(self.view, where, f"{error} in {quoted!r}", allowed=error.allowed) from error
        placed = [f"{where}: {note.problem}, at character {note.offset + 1} of {text!r}" for note in scope.notes]
        self.notes += [note for note in placed if note not in self.notes]
        return found

    def selections(self, value: Any, where: str, scope: Scope) -> tuple[Selection, ...]:
        items = self.objects(value, where, _SELECTION_KEYS)
        return tuple(self.selection(item, f"{where}[{at}]", scope) for at, item in enumerate(items))

    def selection(self, item: Mapping[str, Any], where: str, scope: Scope) -> Selection:
        directives = [key for key in _DIRECTIVES if key in item]
        if len(directives) > 1:
            self.fail(where, f"{' and '.join(directives)} together", allowed=f"one of {', '.join(_DIRECTIVES)}")
        each: Expression | None = None
        repeat: tuple[Expression, ...] = ()
        if directives == ["repeat"]:
            repeat = self.repeated(item["repeat"], f"{where}.repeat", scope)
            types = {path.type for path in repeat}
            scope = replace(scope, focus=Focus(type=types.pop() if len(types) == 1 else None))
        elif directives:
            each = self.expression(item, where, directives[0], scope, each=True)
            scope = replace(scope, focus=focus_on(each))
        columns = tuple(
            self.column(column, f"{where}.column[{at}]", scope)
            for at, column in enumerate(self.objects(item.get("column"), f"{where}.column", _COLUMN_KEYS))
        )
        union = self.selections(item.get("unionAll"), f"{where}.unionAll", scope)
        self.same_columns(union, f"{where}.unionAll")
        select = self.selections(item.get("select"), f"{where}.select", scope)
        if not columns and not union and not select:
            self.fail(where, "the selection gives no column", allowed="column, select or unionAll")
        return Selection(each, repeat, directives == ["forEachOrNull"], columns, select, union)

    def repeated(self, value: Any, where: str, scope: Scope) -> tuple[Expression, ...]:
        """The paths of `repeat`. The type of what is found deeper is known where it is the same at every depth."""
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(text, str) and text.strip() for text in value)
        ):
            self.fail(where, "must be a list of FHIRPath expressions", allowed="one path or more, as strings")
        paths, before = [], list(self.notes)
        doubts: list[list[str]] = []
        # a path must begin at the item in focus: the resource is given as one, and `%resource`, which never moves, is refused
        begins = replace(scope, focus=focus_on(scope.focus))
        for at, text in enumerate(value):
            self.notes = []
            first = self.path(text, f"{where}[{at}]", begins, each=True)
            doubts.append(self.notes)
            if not goes_down(first):
                problem = f"{text!r} cannot be repeated"
                allowed = "a path of elements, such as item, also with where(…), ofType(…) or a fixed position"
                self.fail(f"{where}[{at}]", problem, allowed=allowed)
            paths.append(first)
        self.notes = before
        types = {path.type for path in paths}
        # `answer.item` is nothing in a response, and right in the items that `item` finds there
        inside = [replace(scope, focus=Focus(type=type_)) for type_ in sorted(one for one in types if one)]
        for at, (text, doubt) in enumerate(zip(value, doubts, strict=True)):
            if not any(self.is_known(text, f"{where}[{at}]", one) for one in inside):
                self.notes += [note for note in doubt if note not in self.notes]
        deeper = replace(scope, focus=Focus(type=types.pop() if len(types) == 1 else None), notes=[])
        below = [self.deeper(text, f"{where}[{at}]", deeper) for at, text in enumerate(value)]
        paths = [from_any_item(path) for path in paths]
        same = all(one is not None and from_any_item(one) == path for one, path in zip(below, paths, strict=True))
        unknown = replace(scope, focus=Focus())
        return tuple(
            path if same else self.path(text, f"{where}[{at}]", unknown, each=True)
            for at, (text, path) in enumerate(zip(value, paths, strict=True))
        )

    def deeper(self, text: str, where: str, scope: Scope) -> Expression | None:
        """The path as it continues from what it found itself; None if it can lead nowhere from there."""
        kept = list(self.notes)
        try:
            return self.path(text, where, scope, each=True)
        except ViewError:
            return None
        finally:
            self.notes = kept

    def is_known(self, text: str, where: str, scope: Scope) -> bool:
        """Whether R4 has everything that the path names from there."""
        kept, self.notes = self.notes, []
        try:
            self.path(text, where, scope, each=True)
        except ViewError:
            return False
        else:
            return not self.notes
        finally:
            self.notes = kept

    def column(self, item: Mapping[str, Any], where: str, scope: Scope) -> ColumnNode:
        name = self.sql_name(item.get("name"), f"{where}.name")
        value = self.expression(item, where, "path", scope, each=scope.shows)
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
        ansi = self.ansi_type(item.get("tag"), f"{where}.tag", value, collection=collection)
        if (sealed := scope.shows and shows_sealed(value)) and (ansi or (wanted != "string" and type_ != "date")):
            self.fail(f"{where}.type", "the path gives an encrypted element", allowed="string, date; no ansi/type")
        column = ColumnNode(name, value, type_, collection, ansi, sealed)
        self._places[id(column)] = f"{where}.name"
        return column

    def ansi_type(self, tags: Any, where: str, value: Expression, *, collection: bool) -> AnsiType | None:
        named = [
            (at, tag.get("value")) for at, tag in enumerate(self.objects(tags, where)) if tag.get("name") == "ansi/type"
        ]
        if not named:
            return None
        at, text = named[0]
        found = read_ansi_type(text) if isinstance(text, str) else None
        if found is None or len(named) > 1:
            self.fail(f"{where}[{at}]", f"{text!r} is not an SQL type, or not the only one", allowed=ALLOWED)
        if collection:
            self.fail(f"{where}[{at}]", "a column of lists has no SQL type of its own", allowed="no ansi/type")
        if category(value.type) not in SORTS[found.sort]:
            self.fail(f"{where}[{at}]", f"{text} cannot be made of {value.type}, which the path gives", allowed=ALLOWED)
        return found

    def same_columns(self, branches: tuple[Selection, ...], where: str) -> None:
        if not branches:
            return
        first = [(column.name, column.sql_type) for column in branches[0].all_columns()]
        for at, branch in enumerate(branches[1:], start=1):
            found = [(column.name, column.sql_type) for column in branch.all_columns()]
            if found != first:
                columns = ", ".join(f"{name} {type_}" for name, type_ in first)
                self.fail(
                    f"{where}[{at}]",
                    "its columns are not those of the first branch, in the same order",
                    allowed=columns,
                )

    def check_columns(self, select: Selection) -> None:
        """Refuse a name that occurs twice, and more columns than Postgres can select."""
        if len(select.all_columns()) > MAX_COLUMNS:
            self.fail(
                "select",
                f"the view has {len(select.all_columns())} columns",
                allowed=f"at most {MAX_COLUMNS}, for Postgres",
            )
        seen: set[str] = set()
        for column in select.all_columns():
            if column.name in seen:
                self.fail(self._places[id(column)], f"a second column named {column.name!r}", allowed="unique names")
            seen.add(column.name)
