"""Reads SQLQuery and SQLView libraries (SQL on FHIR 3.0.0-ballot): a Library as JSON, or annotated SQL. Pure.

An annotation stands in a comment, alone on its line: `-- @param: since date [what it is]`, `-- @relatedDependency: URL as label`.
`guard` checks the SQL, `statement` finds what a library depends on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from exports.compiler.moments import is_moment
from exports.errors import QueryError

TYPES = {
    "string": "text",
    "integer": "integer",
    "date": "date",
    "dateTime": "timestamptz",
    "boolean": "boolean",
    "decimal": "numeric",
}
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_ANNOTATION = re.compile(r"^[ \t]*(?:--|/\*+|\*)[ \t]*@(\w+)[ \t]*:?[ \t]*(.*?)[ \t]*(?:\*/)?[ \t]*$", re.MULTILINE)
_ANNOTATIONS = frozenset({"name", "title", "description", "version", "status", "author", "publisher", "url"})
_VALUES = {
    "integer": re.compile(r"[+-]?[0-9]{1,10}"),
    "date": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "dateTime": re.compile(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
    ),
    "boolean": re.compile(r"true|false"),
    "decimal": re.compile(r"[+-]?[0-9]+(\.[0-9]+)?"),
}
_KINDS: dict[str, Literal["query", "view"]] = {"sql-query": "query", "sql-view": "view"}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,254}")


@dataclass(frozen=True)
class Parameter:
    """A parameter, used as `:name`; `type` is one of `TYPES`."""

    name: str
    type: str


@dataclass(frozen=True)
class Dependency:
    """A view, SQLView or SQLQuery, and the name of its table in the SQL."""

    resource: str
    label: str


@dataclass(frozen=True)
class Library:
    """A query, or a view of SQL. `notes` say what was not understood in it; `origin` is the file, for messages."""

    name: str
    origin: str
    kind: Literal["query", "view"]
    sql: str
    parameters: tuple[Parameter, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    notes: tuple[str, ...] = ()
    digest: str = ""  # SHA-256 (hex) of the file


def read_library(content: bytes, origin: str) -> Library:
    """Read a library from the bytes of a file: JSON if its name ends so, else annotated SQL.

    Raises:
        QueryError: it is none; the message says what is wrong, and where.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise QueryError(f"{origin} is not UTF-8 text") from None
    library = _of_json(text, origin) if origin.endswith(".json") else _of_sql(text, origin)
    library = replace(library, digest=hashlib.sha256(content).hexdigest())
    labels = [one.label for one in library.dependencies]
    if len(set(labels)) < len(labels):
        raise QueryError(f"{origin}: two dependencies have the same label")
    if len({one.name for one in library.parameters}) < len(library.parameters):
        raise QueryError(f"{origin}: two parameters have the same name")
    if library.kind == "view" and library.parameters:
        raise QueryError(f"{origin}: a SQLView takes no parameters")
    return library


def check_values(library: Library, given: Mapping[str, str]) -> None:
    """Check that each parameter has a value of its type, and that there are no others.

    Raises:
        QueryError: the message names the parameter, and not its value.
    """
    types = {one.name: one.type for one in library.parameters}
    if unknown := sorted(set(given) - set(types)):
        raise QueryError(f"{library.origin} has no parameter {', '.join(unknown)}; it has {', '.join(types) or 'none'}")
    if missing := [f"{name} ({type_})" for name, type_ in types.items() if name not in given]:
        raise QueryError(f"{library.origin} needs --param {', '.join(missing)}")
    for name, type_ in types.items():
        if type_ in _VALUES and not _is_valid(given[name], type_):
            raise QueryError(f"{library.origin}: the value of parameter {name} is not a valid {type_}")


def _is_valid(value: str, type_: str) -> bool:
    if not _VALUES[type_].fullmatch(value):
        return False
    if type_ == "integer":
        return -(2**31) <= int(value) < 2**31
    return is_moment(value) if type_ in {"date", "dateTime"} else True


def _of_sql(text: str, origin: str) -> Library:
    annotations: dict[str, str] = {}
    parameters: list[Parameter] = []
    dependencies: list[Dependency] = []
    notes: list[str] = []
    for key, value in _ANNOTATION.findall(text):
        if key == "param":
            name, _, rest = value.partition(" ")
            parameters.append(_parameter(name, rest.strip().partition(" ")[0], origin))
        elif key == "relatedDependency":
            resource, _, label = value.rpartition(" as ")
            dependencies.append(_dependency(resource.strip(), label.strip(), origin))
        elif key in _ANNOTATIONS:
            annotations[key] = value
        else:
            notes.append(f"{origin}: unknown annotation @{key}")
    stem = origin.rpartition("/")[2].removesuffix(".sql")
    name = annotations.get("name") or re.sub(r"[^A-Za-z0-9_]", "_", stem)
    return Library(_name(name, origin), origin, "query", text, tuple(parameters), tuple(dependencies), tuple(notes))


def _of_json(text: str, origin: str) -> Library:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise QueryError(f"{origin} is not JSON; a query in SQL needs a file name that ends in .sql") from None
    if not isinstance(document, dict) or document.get("resourceType") != "Library":
        raise QueryError(f"{origin} is not a FHIR Library; expected a SQLQuery as a Library in JSON, or annotated SQL")
    codes = {one.get("code") for one in _objects(document.get("type"), "coding")}
    kinds = [kind for code, kind in _KINDS.items() if code in codes]
    if len(kinds) != 1:
        raise QueryError(f"{origin}: type is neither sql-query nor sql-view")
    parameters = [
        _parameter(one.get("name"), one.get("type"), origin)
        for one in _objects(document, "parameter")
        if one.get("use") in {None, "in"}
    ]
    dependencies = [
        _dependency(one.get("resource"), one.get("label"), origin)
        for one in _objects(document, "relatedArtifact")
        if one.get("type") == "depends-on"
    ]
    name = _name(document.get("name"), origin)
    return Library(name, origin, kinds[0], _sql(document, origin), tuple(parameters), tuple(dependencies))


def _sql(document: dict[str, Any], origin: str) -> str:
    """Return the SQL for Postgres: of its own dialect if there is one, else that of none."""
    found: dict[bool, str] = {}
    for one in _objects(document, "content"):
        media, _, options = str(one.get("contentType", "")).partition(";")
        dialect = options.partition("dialect=")[2].strip().strip('"').lower()
        if media.strip() != "application/sql" or dialect not in {"", "postgresql", "postgres"}:
            continue
        try:
            found[bool(dialect)] = base64.b64decode(one.get("data", ""), validate=False).decode()
        except (binascii.Error, UnicodeDecodeError, TypeError, ValueError):
            raise QueryError(f"{origin}: content.data is not base64 of UTF-8 text") from None
    sql = found.get(True, found.get(False, ""))
    if not sql.strip():
        raise QueryError(f"{origin} has no content of type application/sql, or with dialect=postgresql")
    return sql


def _objects(parent: Any, key: str) -> list[dict[str, Any]]:
    items = parent.get(key) if isinstance(parent, dict) else None
    return [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []


def _name(name: Any, origin: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise QueryError(
            f"{origin}: a library needs a name, which also names its file: a letter, then letters, digits and _"
        )
    return name


def _parameter(name: Any, type_: Any, origin: str) -> Parameter:
    if not isinstance(name, str) or not _LABEL.fullmatch(name):
        raise QueryError(f"{origin}: a parameter's name is a letter, then letters, digits and _")
    if type_ not in TYPES:
        raise QueryError(f"{origin}: parameter {name}: its type is one of {', '.join(TYPES)}")
    return Parameter(name, type_)


def _dependency(resource: Any, label: Any, origin: str) -> Dependency:
    if not isinstance(resource, str) or not resource or not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise QueryError(
            f"{origin}: a dependency needs two things: a view's name, file or URL, and a label, its table's name in the SQL, "
            "as in -- @relatedDependency: patient as patient"
        )
    return Dependency(resource, label.lower())
