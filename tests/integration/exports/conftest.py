"""What runs a view on a list of resources, without a store around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from psycopg import sql

from exports.compiler import compile_view
from snapshots.sql import load

AS_OF = datetime(2024, 5, 6, 9, 8, 9, tzinfo=timezone(timedelta(hours=2)))
Rows = list[dict[str, Any]]
RunView = Callable[[dict[str, Any], list[dict[str, Any]]], Rows]


@pytest.fixture(scope="session")
def postgres(store_server: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(store_server, autocommit=True) as connection:
        connection.execute(load("sessions")["pin"])  # as every session of the store: a server may say otherwise
        yield connection


@pytest.fixture
def run_view(postgres: psycopg.Connection[Any]) -> RunView:
    """Rows of a view on resources, as JSON objects in column order; raises what Postgres raises."""

    def run(view: dict[str, Any], resources: list[dict[str, Any]]) -> Rows:
        source = sql.SQL(
            "(SELECT 'site'::text AS connection, body ->> 'id' AS id, body FROM jsonb_array_elements({}::jsonb) AS t(body))"
        ).format(sql.Literal(json.dumps(resources)))
        compiled = compile_view(view, source, as_of=AS_OF)
        query = sql.SQL('SELECT row_to_json("#row")::text FROM ({}) AS "#row"').format(compiled.query)
        return [json.loads(text) for (text,) in postgres.execute(query)]

    return run
