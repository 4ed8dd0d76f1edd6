"""Compiles a library to one statement: its dependencies become tables of a WITH, its parameters bound settings.

A view's cells are typed: a value that does not fit its column is null, as it is an empty field in a CSV. The snapshot's
transaction decides who may read what: the statement has no table of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from exports.catalogue import LoadedView, builtin_names, load_view
from exports.errors import QueryError, ViewDataError
from exports.formats.csv_table import condition, is_data_error
from exports.formats.table_columns import TableColumn
from exports.queries.guard import HARMLESS, Checked, check
from exports.queries.library import TYPES, Library, check_values, read_library
from exports.queries.query_columns import as_texts, query_columns
from exports.snapshot_port import Snapshot
from exports.typed_rows import typed_rows_of
from snapshots.errors import StoreQueryError

_SETTING = "chartferry.parameter_"
_DEEPEST = 16
WRONG = "42"  # class of SQLSTATE: names that there are not, types that do not fit; its messages quote names only


@dataclass(frozen=True)
class Statement:
    """What runs: `query`, after `prepare` has set the parameters in the same transaction."""

    name: str
    query: Composable  # its cells are texts
    columns: tuple[TableColumn, ...]
    prepare: Composable | None
    notes: tuple[str, ...]
    digest: str  # SHA-256 (hex) of the library's file


def load_library(path: Path) -> Library:
    """Read a library's file.

    Raises:
        QueryError: it cannot be read, or is no library.
    """
    try:
        return read_library(path.read_bytes(), path.name)
    except OSError as error:
        raise QueryError(f"{path} cannot be read: {error.strerror}") from None


async def compile_library(path: Path, parameters: Mapping[str, str], snapshot: Snapshot) -> Statement:
    """Compile a library's file and all that it depends on, for a snapshot; `parameters` are texts, by name.

    A dependency is a built-in view's name or URL, or the file of a ViewDefinition or library, relative to the one that names it.

    Raises:
        QueryError: a library is wrong, does more than select, or depends on what there is not, or on itself.
        ViewError: a view that it depends on is wrong.
        ViewDataError: a constant in it does not fit what is done with it.
    """
    library = load_library(path)
    check_values(library, parameters)
    writer = _Writer(snapshot)
    query = writer.library(library, path.parent, ())
    await _require_harmless(library.origin, writer, snapshot)
    settings = [
        SQL("set_config({}, {}, true)").format(Literal(f"{_SETTING}{name}"), Literal(value))
        for name, value in sorted(parameters.items())
    ]
    prepare = SQL("SELECT {}").format(SQL(", ").join(settings)) if settings else None
    with query_errors(library.name):
        if prepare is not None:
            await snapshot.fetch(prepare)
        described = await snapshot.columns(query)
    columns = query_columns(described, library.origin)
    return Statement(library.name, as_texts(query, described), columns, prepare, tuple(writer.notes), library.digest)


async def _require_harmless(origin: str, writer: _Writer, snapshot: Snapshot) -> None:
    """Raise QueryError if the SQL calls a function that does more than compute, or names one as a column is named."""
    unknown, attributes = sorted(writer.functions - HARMLESS), sorted(writer.attributes - HARMLESS)
    refused: set[str] = set()
    if unknown:
        refused |= set(unknown) - {row[0] for row in await snapshot.fetch(_IMMUTABLE.format(Literal(unknown)))}
    if attributes:
        refused |= {row[0] for row in await snapshot.fetch(_CALLED_AS_COLUMNS.format(Literal(attributes)))}
    if refused:
        names = ", ".join(sorted(refused))
        raise QueryError(f"{origin}: function {names}: it does not exist, or does more than compute from its arguments")


@contextmanager
def query_errors(name: str) -> Iterator[None]:
    """Translate Postgres' errors about a query into the errors of exports."""
    try:
        yield
    except StoreQueryError as error:
        if (error.sqlstate or "").startswith(WRONG):
            raise QueryError(f"{name}: {error}") from None
        if not is_data_error(error):
            raise
        problem = f"query {name!r}: a value does not fit what the query does with it ({condition(error)})"
        raise ViewDataError(problem) from None  # the cause may quote a resource


async def compile_libraries(
    paths: Sequence[Path], parameters: Mapping[str, str], snapshot: Snapshot
) -> list[Statement]:
    """Compile several libraries for one export; each gets those of the parameters that it declares.

    Raises:
        QueryError, ViewError: as `compile_library`; also for a parameter that none declares.
    """
    declared = {path: {one.name for one in load_library(path).parameters} for path in paths}
    if unknown := sorted(set(parameters).difference(*declared.values())):
        raise QueryError(f"no query has a parameter {', '.join(unknown)}")
    return [
        await compile_library(path, {name: value for name, value in parameters.items() if name in names}, snapshot)
        for path, names in declared.items()
    ]


_IMMUTABLE = SQL(
    "SELECT proname FROM pg_catalog.pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY({}::name[])"
    " GROUP BY 1 HAVING bool_or(provolatile = 'i') AND bool_and(provolatile <> 'v')"
)
# `x.name` calls a function of one argument where x has no such column; conversions have the names of types and only compute
_CALLED_AS_COLUMNS = SQL(
    "SELECT DISTINCT proname FROM pg_catalog.pg_proc WHERE proname = ANY({}::name[]) AND pg_catalog.pg_function_is_visible(oid)"
    " AND pronargs >= 1 AND pronargs - pronargdefaults <= 1 AND proargtypes[0] <> 'internal'::regtype"
    " AND NOT (pronamespace = 'pg_catalog'::regnamespace AND (provolatile = 'i' OR EXISTS ("
    "SELECT FROM pg_catalog.pg_type t WHERE t.oid = prorettype AND t.typname = proname)))"
)


class _Writer:
    """Writes libraries and views into one statement; collects the functions that it calls or may call, and notes."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.functions: set[str] = set()
        self.attributes: set[str] = set()
        self.notes: list[str] = []

    def library(self, library: Library, folder: Path, above: tuple[Path, ...]) -> Composable:
        checked = check(library)
        self.functions |= checked.functions
        self.attributes |= checked.attributes
        self.notes += library.notes
        tables = [
            SQL("{} AS ({})").format(Identifier(one.label), self._dependency(one.resource, library, folder, above))
            for one in library.dependencies
        ]
        inner = SQL('SELECT * FROM ({}\n) AS "#q"').format(Composed(list(_bound(library, checked))))
        return SQL("WITH {} {}").format(SQL(", ").join(tables), inner) if tables else inner

    def _dependency(self, resource: str, library: Library, folder: Path, above: tuple[Path, ...]) -> Composable:
        name = _builtin(resource)
        if name is not None:
            return self._view(load_view(name))
        path = (folder / resource).resolve()
        if path in above or len(above) >= _DEEPEST:
            raise QueryError(f"{library.origin} depends on itself by {resource}")
        if not path.is_file():
            raise QueryError(
                f"{library.origin} depends on {resource}: no built-in view has that name or URL, and there is no such file"
            )
        if path.suffix == ".sql" or is_library(path):
            further = load_library(path)
            if further.parameters:
                raise QueryError(f"{library.origin} depends on {resource}, which needs parameters of its own")
            return self.library(further, path.parent, (*above, path))
        return self._view(load_view(str(path)))

    def _view(self, view: LoadedView) -> Composable:
        sources = self._snapshot.sources(view.resource, documents=view.reads_documents)
        return typed_rows_of(view, sources, self._snapshot.as_of, sealed=self._snapshot.sealed)


def _bound(library: Library, checked: Checked) -> Iterator[Composable]:
    """The SQL with settings in the place of its parameters."""
    types = {one.name: TYPES[one.type] for one in library.parameters}
    for piece, name in zip(checked.pieces, (*checked.parameters, None), strict=True):
        yield SQL(piece)  # checked by `guard`
        if name is not None:
            setting = SQL("(current_setting({})::{})")
            yield setting.format(Literal(f"{_SETTING}{name}"), SQL(types[name]))


def _builtin(resource: str) -> str | None:
    """Return the name of the built-in view that has this name or URL, with a version or without."""
    wanted = resource.partition("|")[0]
    return next((one for one in builtin_names() if wanted in {one, load_view(one).definition.get("url")}), None)


def is_library(path: Path) -> bool:
    """Whether a file has a FHIR Library, whatever else may be wrong with it."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("resourceType") == "Library"
