"""A compiled view and the judge side by side: both as a `Judgement`, so that they can be compared."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from exports.compiler import MARK, CompiledView, Source, compile_view
from tests.judge.fhirpath import CONNECTION
from tests.judge.views import ODD, Judgement, columns, json_text

Postgres = psycopg.Connection[Any]
Json = dict[str, Any]


def compiled_view(view: Json, resources: list[Json], *, marked: bool = True) -> CompiledView:
    listed = sql.SQL(", ").join([sql.SQL("({}::jsonb)").format(json_text(one)) for one in resources])
    rows = sql.SQL("(SELECT {}::text AS connection, body ->> 'id' AS id, body FROM (VALUES {}) AS t(body))").format(
        sql.Literal(CONNECTION), listed
    )
    return compile_view(view, Source(rows, one_connection=True), marked=marked)


def judged(postgres: Postgres, view: Json, resources: list[Json]) -> Judgement:
    """What Postgres gives, in the form of the judge."""
    compiled = compiled_view(view, resources)
    lists = {column.name for column in compiled.columns if column.collection}
    found = postgres.execute(compiled.query)
    names = [column.name for column in compiled.columns]
    rows = [
        {name: _cell(cell, name in lists) for name, cell in zip(names, row, strict=True)} for row in found.fetchall()
    ]
    undecided = postgres.execute(compiled.undecided).fetchall()[0][0] if compiled.undecided is not None else 0
    return Judgement(rows, undecided)


def _cell(cell: str | None, is_list: bool) -> Any:
    if cell == MARK:
        return ODD
    return json.loads(cell, parse_float=Decimal, parse_int=Decimal) if is_list and cell is not None else cell


def comparable(judgement: Judgement, view: Json) -> tuple[list[list[Any]], int]:
    types = {column["name"]: column["type"] for column in columns(view)}
    return [[_plain(cell, types[name]) for name, cell in row.items()] for row in judgement.rows], judgement.undecided


def _plain(cell: Any, type_: str) -> Any:
    """Numbers by value, objects by what is in them: how they are written is no matter of the judge."""
    if isinstance(cell, str) and cell != ODD:
        try:
            found = json.loads(cell, parse_float=Decimal, parse_int=Decimal)
        except ValueError:
            return cell
        return found if not isinstance(found, str) else cell
    return cell
