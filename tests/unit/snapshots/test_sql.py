"""The SQL files: every query named once and described; migrations without gaps; tenants' names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snapshots.errors import StoreError
from snapshots.migrate import migrations
from snapshots.sql import load
from snapshots.tenancy import tenant_schema

FOLDER = Path(__file__).parents[3] / "snapshots"
FILES = sorted(path.stem for path in (FOLDER / "sql").glob("*.sql"))


@pytest.mark.parametrize("file", FILES)
def test_every_named_query_is_described_and_loads(file: str):
    names = re.findall(r"^-- name: (\w+)$", (FOLDER / "sql" / f"{file}.sql").read_text(), re.MULTILINE)
    assert names
    assert list(load(file)) == names
    assert all(query and not query.startswith("--") for query in load(file).values())


def test_every_query_is_used():
    code = "\n".join(path.read_text() for path in FOLDER.glob("*.py"))
    unused = [f"{file}.{name}" for file in FILES for name in load(file) if f'"{name}"' not in code]
    assert unused == []


def test_migrations_are_numbered_from_one_without_gaps():
    assert [step.version for step in migrations()] == list(range(1, len(migrations()) + 1))


@pytest.mark.parametrize("name", ["", "Mercy", "1st", "a b", 'x"y', "x" * 56, "x;drop", "é"])
def test_a_tenant_that_cannot_name_a_schema_is_refused(name: str):
    with pytest.raises(StoreError, match="cannot name a schema"):
        tenant_schema(name)


def test_a_tenants_schema_carries_its_name():
    assert tenant_schema("mercy-west") == "tenant_mercy-west"
