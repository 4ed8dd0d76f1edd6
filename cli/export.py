"""`chartferry export`: one consistent snapshot of the store as files for analysts, with a manifest. Contacts no EHR."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.acting import actor_of
from cli.choosing import choose_connections, choose_tenant
from cli.configuration import settings_of
from cli.deidentified import ProfileOption, checked_profile
from cli.exit_codes import ExitCode
from cli.export_summary import print_result, result_as_json
from cli.file_options import (
    CompressionName,
    CompressOption,
    CsvDialectName,
    CsvOption,
    EncryptOption,
    PartitionOption,
    PartSizeOption,
    checked_recipients,
    checked_size,
)
from cli.in_store import opened_store
from cli.invocation import Invocation, invocation_of, split_words
from cli.moments import AsOfOption, checked_moment
from cli.narrowing import FreezeOption, LimitOption, SampleOption, SeedOption, WhereOption, narrowed
from cli.patient_file import read_patients
from cli.progress import file_progress
from cli.publish import run_publish, show_published
from cli.query import STDOUT, ParamOption, checked_params
from cli.render import emit_json
from cli.selection import OnlyConnectionsOption, OnlyPatientsOption
from cli.supervise import supervise
from cli.type_words import OnlyTypesOption, checked_types
from cli.warehouse import SchemaOption, ToOption, checked_warehouse, run_load, show_loaded
from config.settings import Settings
from config.urls import is_served
from exports.delivery.place_name import destination_of
from exports.formats.file_formats import DATABASES, FORMATS, TABLES, TYPED
from exports.formats.table_file import check_installed, load_formats
from exports.plan import ExportRequest
from exports.publishing.publish import PublishRequest
from exports.run import ExportResult
from exports.run import export as export_snapshot
from exports.warehouse.load import WarehouseRequest
from snapshots.actor import Actor
from snapshots.selection import Selection
from snapshots.store import Store

MOST_SESSIONS = 2
EXAMPLES = (
    "chartferry export --out export",
    "chartferry export --out export --format csv --view patient --view my_view.json",
    "chartferry export --out export --as-of 41",
    "chartferry export --out changes --changed-since 41",
    "chartferry export --out s3://bucket/charts --format parquet",
    "chartferry export --out charts --format duckdb",
    "chartferry export --out sample --sample 100 --where \"Patient.gender = 'female'\"",
    "chartferry export --out research --profile safe-harbor",
    "chartferry export --out s3://bucket/charts --encrypt-to file:partners.txt",
    "chartferry export --publish dataset --connection mercy-epic",
    "chartferry export --format postgres --to env:WAREHOUSE_URL",
    "chartferry export --format delta --to lake",
    "chartferry export --out export --types Patient,Observation --connection mercy-epic --patients cohort.csv --json",
)
_WITH_PUBLISH = frozenset(("publish", "base_url", "types", "connections", "patients"))
_WITH_TO = frozenset(
    ("to", "schema", "formats", "views", "types", "connections", "patients", "as_of", "changed_since", "strict")
)
LATER = {"bundle": "only for one patient: `chartferry pull --format bundle`"}


OutOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="DIR|URL",
        help="Folder, or s3://, gs://, az://, sftp:// or file:// URL, to write to; default: \\[export] out.",
        show_default=False,
    ),
]
PublishOption = Annotated[
    str | None,
    typer.Option(
        "--publish",
        metavar="DIR|URL",
        help="Instead of --out: keep a Bulk Publish dataset current, which others can follow.",
        show_default=False,
    ),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="With --publish: where the folder will be served; default: relative links.",
        show_default=False,
    ),
]
FormatsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar=",".join((*FORMATS, *DATABASES)),
        help="Default: \\[export] format, else ndjson,csv.",
        show_default=False,
    ),
]
ViewsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--view",
        metavar="NAME|FILE",
        help="A built-in view or a ViewDefinition file; may be repeated.",
        show_default=False,
    ),
]
QueriesOption = Annotated[
    list[Path] | None,
    typer.Option("--query", metavar="FILE", help="A SQLQuery, beside the views; may be repeated.", show_default=False),
]
ChangedSinceOption = Annotated[
    int | None,
    typer.Option(
        "--changed-since",
        metavar="RUN",
        min=1,
        help="Only what has changed since this run, and deleted.ndjson.gz.",
        show_default=False,
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="Fail if a value does not fit its column; default: leave the cell empty and count it."
    ),
]


def export(
    context: typer.Context,
    *,
    out: OutOption = None,
    publish: PublishOption = None,
    base_url: BaseUrlOption = None,
    formats: FormatsOption = None,
    views: ViewsOption = None,
    types: OnlyTypesOption = None,
    connections: OnlyConnectionsOption = None,
    patients: OnlyPatientsOption = None,
    queries: QueriesOption = None,
    params: ParamOption = None,
    csv: CsvOption = CsvDialectName.postgres,
    compress: CompressOption = CompressionName.gzip,
    part_size: PartSizeOption = None,
    partition_by: PartitionOption = None,
    encrypt_to: EncryptOption = None,
    profile: ProfileOption = None,
    as_of: AsOfOption = None,
    changed_since: ChangedSinceOption = None,
    where: WhereOption = None,
    sample: SampleOption = None,
    seed: SeedOption = None,
    limit: LimitOption = None,
    strict: StrictOption = False,
    freeze: FreezeOption = False,
    to: ToOption = None,
    schema: SchemaOption = None,
) -> int:
    """Write NDJSON by type, tables by view, and a manifest.json with counts and checksums; or publish a dataset.

    The same request on the same runs gives the same bytes, except for DuckDB, whose files have a random identifier. Exit codes:
    0 complete, 4 nothing stored, 5 failed, 2 usage.
    """
    reading = _reading(invocation_of(context), types, connections, patients)
    if publish is not None:
        _refuse_combination(context, _WITH_PUBLISH, "--publish, which writes the NDJSON of what is stored now")
        return _publish(reading, publish, base_url)
    if base_url is not None:
        raise typer.BadParameter("--base-url needs --publish")
    moment = checked_moment(as_of)
    if to is not None or {*DATABASES} & {*split_words("--format", formats)}:
        _refuse_combination(context, _WITH_TO, f"--format {' or '.join(DATABASES)}, which load views into tables")
        wanted = _to_database(reading, to, schema=schema, formats=formats, views=views, strict=strict)
        return _load(reading, wanted, as_of=moment, changed_since=changed_since)
    if schema is not None:
        raise typer.BadParameter("--schema needs --format postgres --to URL")
    request = _request(reading, out=out, formats=formats, views=views, queries=queries, params=params, strict=strict)
    request = replace(request, csv_dialect=csv.value, compression=compress.value, freeze=freeze)
    request = replace(request, part_size=checked_size(part_size), recipients=checked_recipients(encrypt_to))
    request = replace(request, safe_harbor=checked_profile(profile, reading.settings), partition_by=partition_by)
    request = narrowed(request, where=where, sample=sample, seed=seed, limit=limit)
    return _export(reading, request, as_of=moment, changed_since=changed_since)


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """What to read, from which tenant's store, for which actor, and how to show the result."""

    settings: Settings
    tenant: str
    actor: Actor
    invocation: Invocation
    connections: tuple[str, ...]
    types: tuple[str, ...]
    patients: tuple[str, ...] | None

    def opening(self, meanwhile: Callable[[], None] = lambda: None) -> AbstractAsyncContextManager[Store]:
        """Return the context that opens the store."""
        return opened_store(self.settings, self.tenant, self.actor, meanwhile=meanwhile)

    def selection(self, as_of: int | datetime | None, changed_since: int | None) -> Selection:
        """Return what to read of it, as of when."""
        return Selection(
            connections=self.connections,
            patients=self.patients,
            types=self.types,
            as_of=as_of,
            changed_since=changed_since,
        )


def _reading(
    invocation: Invocation, types: list[str] | None, connections: list[str] | None, patients: str | None
) -> _Reading:
    settings = settings_of(invocation)
    names = split_words("--connection", connections)
    choose_connections(settings, invocation.tenant, list(names))
    return _Reading(
        settings=settings,
        tenant=choose_tenant(settings, invocation.tenant or _tenant_of(settings, names)),
        actor=actor_of(invocation, settings, reads_charts=True),
        invocation=invocation,
        connections=names,
        types=checked_types(types),
        patients=tuple(read_patients(patients)) if patients else None,
    )


def _request(
    reading: _Reading,
    *,
    out: str | None,
    formats: list[str] | None,
    views: list[str] | None,
    queries: list[Path] | None,
    params: list[str] | None,
    strict: bool,
) -> ExportRequest:
    settings = reading.settings
    wanted_formats = _formats(formats, views, queries, settings)
    check_installed(wanted_formats)
    return ExportRequest(
        out=destination_of(_place(out, settings)),
        formats=wanted_formats,
        views=tuple(views or (settings.export.views if {*TABLES} & {*wanted_formats} else ())),
        types=reading.types,
        connections=reading.connections,
        patients=reading.patients,
        strict=strict,
        queries=tuple(queries or ()),
        parameters=checked_params(params),
    )


def _export(
    reading: _Reading, request: ExportRequest, *, as_of: int | datetime | None, changed_since: int | None
) -> int:
    selection, meanwhile = reading.selection(as_of, changed_since), partial(load_formats, request.wanted_formats)
    result, seconds = supervise(
        lambda: run_export(reading.opening(meanwhile), selection, request, terminal=reading.invocation.terminal),
        resume="run it again",
    )
    if reading.invocation.json:
        emit_json({**result_as_json(result), "seconds": round(seconds, 3)})
    else:
        print_result(result)
    return ExitCode.COMPLETE if result.rows else ExitCode.NOTHING


def _publish(reading: _Reading, place: str, base_url: str | None) -> int:
    if base_url is not None and not is_served(base_url):
        raise typer.BadParameter("--base-url takes an absolute http or https URL")
    wanted = PublishRequest(
        connections=reading.connections, types=reading.types, patients=reading.patients, base_url=base_url
    )
    destination, terminal = destination_of(place), reading.invocation.terminal
    done = supervise(
        lambda: run_publish(reading.opening(), wanted, destination, terminal=terminal),
        resume="run it again",
    )
    return show_published(done, destination, json=reading.invocation.json)


def _to_database(
    reading: _Reading,
    to: str | None,
    *,
    schema: str | None,
    formats: list[str] | None,
    views: list[str] | None,
    strict: bool,
) -> WarehouseRequest:
    return WarehouseRequest(
        into=checked_warehouse(to, schema, split_words("--format", formats)),
        views=tuple(views or reading.settings.export.views),
        types=reading.types,
        connections=reading.connections,
        patients=reading.patients,
        strict=strict,
    )


def _load(
    reading: _Reading, request: WarehouseRequest, *, as_of: int | datetime | None, changed_since: int | None
) -> int:
    selection = reading.selection(as_of, changed_since)
    done = supervise(
        lambda: run_load(reading.opening(), selection, request, terminal=reading.invocation.terminal),
        resume="run it again",
    )
    return show_loaded(done, json=reading.invocation.json)


async def run_export(
    opening: AbstractAsyncContextManager[Store], selection: Selection, request: ExportRequest, *, terminal: bool
) -> tuple[ExportResult, float]:
    """Export from the store, with progress on stderr; the seconds do not include opening the store."""
    with file_progress(terminal=terminal) as show:
        async with opening as store, store.snapshot(selection) as snapshot:
            began = time.monotonic()
            sessions = min(os.cpu_count() or 1, MOST_SESSIONS)
            result = await export_snapshot(
                request, snapshot, on_progress=show, sessions=sessions, at_once=_files_at_once(request)
            )
            return result, time.monotonic() - began


def _files_at_once(request: ExportRequest) -> int | None:
    """One of Parquet and DuckDB: two would hold two groups of rows."""
    return 1 if {*TYPED} & {*request.wanted_formats} else None


def _refuse_combination(context: typer.Context, allowed: frozenset[str], what: str) -> None:
    values = context.params
    given = [
        param.opts[0]
        for param in context.command.params
        if param.name not in allowed
        and (value := values.get(param.name))  # the shared options have none
        and value != param.default
    ]
    if given:
        raise typer.BadParameter(f"{', '.join(given)}: not with {what}")


def _place(out: str | None, settings: Settings) -> str:
    place = settings.export.out if out is None else out
    if place is None:
        raise typer.BadParameter("give --out DIR or --out URL, or set `out` in [export] of the configuration")
    if str(place) == STDOUT:
        raise typer.BadParameter(
            "--out -: an export is several files, so name a folder or a URL. To write one file to stdout: "
            "`chartferry pull CONNECTION - --out -` for one patient's chart, `chartferry query FILE` for a query's rows"
        )
    return str(place)


def _formats(
    formats: list[str] | None, views: list[str] | None, queries: list[Path] | None, settings: Settings
) -> tuple[str, ...]:
    words = split_words("--format", formats)
    for word in words:
        if word not in FORMATS:
            why = f"{LATER[word]}; " if word in LATER else ""
            raise typer.BadParameter(f"--format {word}: {why}one of {', '.join((*FORMATS, *DATABASES))}")
    if views:
        return words or ("csv",)
    return words or (() if queries else settings.export.format)


def _tenant_of(settings: Settings, names: tuple[str, ...]) -> str | None:
    tenants = {settings.connections[name].tenant for name in names if name in settings.connections}
    return tenants.pop() if len(tenants) == 1 else None
