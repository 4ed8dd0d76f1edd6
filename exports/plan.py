"""Plans an export: turns a request and the contents of the store into a list of files. Pure.

`catalogue` reads views, `compiler` compiles them, `run` writes the files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exports.catalogue import LoadedView
from exports.delivery.destination import Destination
from exports.delivery.encryption import Recipients
from exports.delivery.files import COMPRESS, Compress
from exports.errors import PlanError
from exports.formats.csv_dialect import DIALECTS
from exports.formats.file_formats import ENDINGS, FILE_FORMATS, FORMATS, TABLES, Compression, FileFormat
from exports.safe_harbor.allow_list import allowed_paths
from exports.safe_harbor.deidentify import LEAST_KEY_BYTES, SafeHarbor

TYPE = "type"  # what NDJSON is divided by, where that is asked for
# tables whose files can be divided by a column
DIVIDED = tuple(name for name in TABLES if not FILE_FORMATS[name].database)
_TYPE_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The request. Empty `formats`: csv if views are named, else ndjson. Empty `views`: all built-in ones.

    `types`, `connections` and `patients` narrow what is read (empty or None: everything). The snapshot applies the last two; they
    are kept here for the manifest. `strict`: a value that does not fit its column fails the export instead of leaving the cell
    empty.
    """

    out: Destination
    formats: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None
    strict: bool = False
    compression: Compression = "gzip"  # of NDJSON and CSV; Parquet compresses its columns itself
    csv_dialect: str = "postgres"
    where: tuple[str, ...] = ()  # FHIRPath, see `criteria`
    sample: int | None = None  # so many patients
    seed: int = 0  # which ones
    limit: int | None = None  # so many rows of each file
    safe_harbor: SafeHarbor | None = None  # resources are de-identified; None: they leave as they are
    part_size: int | None = None  # bytes of content at which the next part of a file begins
    recipients: Recipients | None = None  # for whom files are encrypted; None: they are not
    partition_by: str | None = None  # "type" divides NDJSON, a column the tables that have it (`partitions`)
    freeze: bool = False  # a table whose columns are not those of the folder's last export fails the export
    # files of SQLQuery libraries; without formats and views they are all that is written
    queries: tuple[Path, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the queries, by name

    @property
    def wanted_formats(self) -> tuple[str, ...]:
        """The formats to write, in a fixed order."""
        if self.queries and not self.formats and not self.views:
            return ()
        wanted = self.formats or (("csv",) if self.views else ("ndjson",))
        return tuple(name for name in FORMATS if name in wanted)

    @property
    def is_part(self) -> bool:
        """Whether some of what is selected is left out, so that what has become of the rest cannot be said."""
        return bool(self.where) or self.sample is not None or self.limit is not None

    @property
    def wants_tables(self) -> bool:
        """Whether views are written at all."""
        return any(name in TABLES for name in self.wanted_formats)


@dataclass(frozen=True)
class PlannedTable:
    """The rows of a view, or of the query of that name."""

    name: str
    view: LoadedView | None = None


@dataclass(frozen=True)
class PlannedFile:
    """One file to write: resources of a type, or tables: of DuckDB all of them, of other kinds one."""

    name: str
    kind: str  # of FORMATS
    resource_type: str = ""
    tables: tuple[PlannedTable, ...] = ()
    value: str | None = None  # of a table that is divided by a column, the rows that have this there; None: all others
    compress: Compress = "fast"
    dialect: str = "postgres"  # of CSV


def plan_export(
    request: ExportRequest, available: Collection[str], views: Sequence[LoadedView], queries: Sequence[str] = ()
) -> tuple[PlannedFile, ...]:
    """Return the files of an export: NDJSON by type, CSV and Parquet by view, each sorted by name, then by query; then DuckDB's.

    Queries are written in the formats of tables that are asked for, or else as CSV.

    A type that the request names gets a file even if the store has no such resource: an empty one.

    Raises:
        PlanError: an unknown format or dialect, views without a format of tables or of a type that was left out, two views with
            one name, or a query with another file's or table's, a type whose name cannot be a file name, parts of a database.
    """
    if request.csv_dialect not in DIALECTS:
        raise PlanError(f"no such dialect of CSV: {request.csv_dialect}; allowed: {', '.join(DIALECTS)}")
    unknown = [name for name in request.formats if name not in FORMATS]
    if unknown:
        raise PlanError(f"no such export format: {', '.join(unknown)}; allowed: {', '.join(FORMATS)}")
    if request.views and not request.wants_tables:
        raise PlanError(
            f"views make tables, but the requested formats are {', '.join(request.formats)}; add one of {', '.join(TABLES)}"
        )
    _check_partition(request)
    types = sorted(set(request.types or available))
    for resource_type in types:
        if not _TYPE_NAME.fullmatch(resource_type):
            raise PlanError(f"{resource_type!r} is not a resource type; allowed: a name such as Patient")
    if request.safe_harbor is not None:
        _check_profile(request, request.safe_harbor, views)
        types = [name for name in types if name in allowed_paths()]
        views = [view for view in views if view.resource in allowed_paths()]
    planned: list[PlannedFile] = []
    if "ndjson" in request.wanted_formats:
        ending, compress = ENDINGS[request.compression], COMPRESS[request.compression]
        folders = {name: f"{TYPE}={name}/" if request.partition_by == TYPE else "" for name in types}
        planned += [
            PlannedFile(f"{folders[name]}{name}.ndjson{ending}", "ndjson", name, compress=compress) for name in types
        ]
    kinds = [kind for kind in request.wanted_formats if kind in TABLES] or ["csv"]
    of_views = _view_tables(request, views) if request.wants_tables else []
    of_queries = [PlannedTable(name) for name in queries]
    each, whole = [name for name in kinds if name in DIVIDED], [name for name in kinds if name not in DIVIDED]
    planned += [_table_file(one, kind, request) for kind in each for one in of_views]
    planned += [_table_file(one, kind, request) for one in of_queries for kind in each]
    planned += [_database(request, FILE_FORMATS[kind], (*of_views, *of_queries)) for kind in whole]
    names = [one.name for one in planned]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"two files would be named {', '.join(twice)}; give one of the queries another name")
    return tuple(planned)


def _check_partition(request: ExportRequest) -> None:
    column = request.partition_by
    if column is None:
        return
    if column == TYPE and "ndjson" not in request.wanted_formats:
        raise PlanError(
            f"--partition-by {TYPE} divides NDJSON, which is not exported: add --format ndjson, or name a column"
        )
    if column != TYPE and len({*DIVIDED} & {*request.wanted_formats}) != 1:
        raise PlanError(
            f"--partition-by {column} divides the tables of one format, because readers read a whole folder: --format "
            f"{' or '.join(DIVIDED)}"
        )
    if column != TYPE and request.safe_harbor is not None:
        raise PlanError(
            f"--profile {request.safe_harbor.name} does not divide tables: leave out --partition-by {column}"
        )


def _check_profile(request: ExportRequest, profile: SafeHarbor, views: Sequence[LoadedView]) -> None:
    """Refuse what could reveal patients beside the de-identified resources."""
    option = f"--profile {profile.name}"
    if request.queries:
        raise PlanError(
            f"{option} does not allow --query, which would read the resources as they are; views read the de-identified ones"
        )
    if request.where:
        raise PlanError(f"{option}: the manifest would contain what --where says about patients; leave it out")
    if request.limit is not None:
        raise PlanError(
            f"{option}: --limit writes the rows with the lowest ids, and ids must stay hidden; use --sample"
        )
    if len(profile.key) < LEAST_KEY_BYTES:
        raise PlanError(
            f"the key of {option} has fewer than {LEAST_KEY_BYTES} bytes, and could be guessed; `openssl rand -hex "
            f"{LEAST_KEY_BYTES}` makes one"
        )
    types = {*request.types, *((view.resource for view in views) if request.views else ())}
    if unknown := sorted(types - allowed_paths().keys()):
        raise PlanError(f"{option} does not allow {', '.join(unknown)}; allowed: {', '.join(sorted(allowed_paths()))}")


def check_snapshot(profile: SafeHarbor, connections: Sequence[str], changed_since: int | None) -> None:
    """Refuse a snapshot that cannot be de-identified.

    Raises:
        PlanError: it has several connections, whose ids could be equal, or deletions, which have the ids that are to be hidden.
    """
    if changed_since is not None:
        raise PlanError(
            f"--profile {profile.name} does not allow --changed-since: its deletions have the ids that must stay hidden"
        )
    if len(connections) > 1:
        raise PlanError(
            f"--profile {profile.name} takes one connection, because ids are unique only within one; the store has "
            f"{', '.join(connections)}: export each into a folder of its own, with --connection"
        )


def check_changes(changed_since: int | None, erased_since: Sequence[str]) -> None:
    """Refuse changes since a run before an erasure: applied to an earlier export, they would leave the erased chart in it.

    Raises:
        PlanError: a patient of these connections was erased after the run since which changes are wanted.
    """
    if erased_since:
        raise PlanError(
            f"a patient of {', '.join(erased_since)} was erased after run {changed_since} had ended. Earlier exports still have "
            "the chart, and changes cannot say whose it is: export once without --changed-since, delete the earlier exports, and "
            f"next time name a run later than {changed_since}"
        )


def _table_file(table: PlannedTable, kind: str, request: ExportRequest) -> PlannedFile:
    if FILE_FORMATS[kind].typed:
        return PlannedFile(f"{table.name}.{kind}", kind, tables=(table,), compress="no")
    ending, compress = ENDINGS[request.compression], COMPRESS[request.compression]
    return PlannedFile(
        f"{table.name}.{kind}{ending}", kind, tables=(table,), compress=compress, dialect=request.csv_dialect
    )


def _database(request: ExportRequest, format_: FileFormat, tables: Sequence[PlannedTable]) -> PlannedFile:
    assert format_.database is not None
    if request.part_size is not None:
        raise PlanError(f"a {format_.label} file has no parts: leave out --part-size, or --format {format_.name}")
    if twice := names_alike([one.name for one in tables]):
        raise PlanError(
            f"{format_.label} does not distinguish upper and lower case: two tables would be named {', '.join(twice)}; rename one"
        )
    return PlannedFile(format_.database, format_.name, tables=tuple(tables), compress="no")


def names_alike(names: Sequence[str]) -> list[str]:
    """Return, in lower case, the names that several have if case does not count."""
    lower = [name.lower() for name in names]
    return sorted({name for name in lower if lower.count(name) > 1})


def _view_tables(request: ExportRequest, views: Sequence[LoadedView]) -> list[PlannedTable]:
    # write all views that the user names, but only those built-in views whose types are requested
    chosen = [view for view in views if request.views or not request.types or view.resource in request.types]
    left_out = [view for view in chosen if request.types and view.resource not in request.types]
    if left_out:
        views_named = ", ".join(f"{view.name} reads {view.resource}" for view in left_out)
        raise PlanError(
            f"{views_named}, which the requested types leave out ({', '.join(request.types)}); add it to them"
        )
    by_name = {view.name: view for view in chosen}
    if len(by_name) < len(chosen):
        names = [view.name for view in chosen]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise PlanError(f"two views are named {', '.join(twice)}, and would share one file; rename one of them")
    return [PlannedTable(name, view) for name, view in sorted(by_name.items())]
