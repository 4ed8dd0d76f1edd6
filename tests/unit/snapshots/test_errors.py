"""The tree of errors as drawn, and what messages may say."""

from __future__ import annotations

import re

import psycopg
import pytest

import snapshots.errors
from snapshots.errors import (
    StoreError,
    StoreQueryError,
    StoreUnavailableError,
    describe_server,
    is_misread,
    refusal,
    store_border,
)
from snapshots.sessions import full_conninfo


def test_the_drawn_tree_names_every_error_of_the_module():
    drawn = set(re.findall(r"── (\w+)", snapshots.errors.__doc__ or ""))
    defined = {
        name
        for name, value in vars(snapshots.errors).items()
        if isinstance(value, type) and issubclass(value, StoreError) and value is not StoreError
    }
    assert drawn == defined


@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@db.example/x?port=6", "host=db.example password=hunter2 user=me"]
)
def test_a_server_is_named_without_its_password(url: str):
    assert "hunter2" not in describe_server(url)
    assert "db.example" in describe_server(url)


def test_a_url_that_libpq_cannot_parse_is_not_quoted():
    assert "hunter2" not in describe_server("postgresql://me:hunter2@[db")


@pytest.mark.parametrize("password", ["h@unter2", "h/unter2", "12/unter2", "h@un/unter2", "h/u@unter2"])
def test_an_unencoded_password_is_not_mistaken_for_another_part_of_the_url(password: str):
    url = f"postgresql://me:{password}@db.example/x"
    assert (is_misread(url), "unter2" in describe_server(url)) == (True, False)
    with pytest.raises(StoreUnavailableError) as refused:
        full_conninfo(url)
    assert "unter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:h%40un%2Fter2@db/x", "postgresql:///x?host=@abstract", "host=/run/@x user=a@b", "service=x"],
)
def test_a_url_that_libpq_reads_as_intended_is_accepted(url: str):
    assert not is_misread(url)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "connection failed: connection to server at 127.0.0.1 failed: Connection refused\n\tIs the server running there?",
            "connection to server at 127.0.0.1 failed: Connection refused",
        ),
        (
            "\nfailed to resolve host 'db'\nMultiple connection attempts failed.\n- host: ",
            "failed to resolve host 'db'",
        ),
        ("", "no answer"),
    ],
)
def test_an_unreachable_server_is_explained_by_the_line_with_the_reason(text: str, line: str):
    assert refusal(psycopg.OperationalError(text)) == line


def test_a_data_error_is_translated_without_its_text():
    with pytest.raises(StoreQueryError) as caught, store_border("merging"):
        raise psycopg.errors.InvalidTextRepresentation("invalid input: Jane Doe")
    assert "Jane" not in str(caught.value)
    assert caught.value.sqlstate == "22P02"


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (psycopg.errors.InsufficientPrivilege, "`chartferry config check --connect`, which names the GRANT."),
        (psycopg.errors.UndefinedTable, "restore a backup (docs/store.md); else this is a bug in chartferry."),
        (psycopg.errors.UndefinedColumn, "restore a backup (docs/store.md); else this is a bug in chartferry."),
    ],
)
def test_a_refused_statement_says_what_to_do(kind: type[psycopg.Error], advice: str):
    with pytest.raises(StoreQueryError) as caught, store_border("listing runs"):
        raise kind("no")
    assert str(caught.value).endswith(advice)


def test_a_lost_connection_is_the_server_being_unavailable():
    with (
        pytest.raises(StoreUnavailableError, match=r"merging: the connection to the server was lost"),
        store_border("merging"),
    ):
        raise psycopg.OperationalError("server closed the connection unexpectedly")


def test_a_full_disk_is_reported_with_where_to_free_space():
    with (
        pytest.raises(StoreUnavailableError, match=r"disk of the store is full.*embedded:DIR"),
        store_border("merging"),
    ):
        raise psycopg.errors.DiskFull("could not extend file")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://me@h/db?sslmoed=require&x y=hunter2", "libpq has no parameter sslmoed. Check"),
        ("postgresql://me:hunter2%zz@h/db", "a % that is not part of a code must be written %25"),
        ("postgresql://me:hunter2/9@h/db", "an @ or a / within its password"),
    ],
)
def test_a_url_that_libpq_rejects_is_refused_with_the_reason(url: str, reason: str):
    with pytest.raises(StoreUnavailableError, match=re.escape(reason)) as raised:
        full_conninfo(url)
    assert "hunter2" not in str(raised.value)
