"""An embedded store moves to a newer Postgres, whole, or stays what it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from snapshots.backup import upgrade
from snapshots.embedded import FORMER, embedded_postgres
from snapshots.errors import StoreError, StoreUnavailableError

OLD = Path("/usr/lib/postgresql/15/bin")
older = pytest.mark.skipif(not (OLD / "initdb").exists(), reason="no Postgres 15 beside this one (postgresql-15)")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A folder through which the server's account may pass."""
    made = Path(tempfile.mkdtemp(prefix="cf-", dir="/dev/shm"))
    made.chmod(0o755)
    yield made / "store"
    shutil.rmtree(made)


def filled(directory: Path) -> None:
    """A store that Postgres 15 has written, with a row."""
    with embedded_postgres(directory, OLD) as url, psycopg.connect(url) as conn:
        assert conn.info.server_version // 10000 == 15
        conn.execute("CREATE TABLE chart AS SELECT 1.50 AS value")


def values(directory: Path) -> list[str]:
    with embedded_postgres(directory) as url, psycopg.connect(url) as conn:
        assert conn.info.server_version // 10000 > 15
        return [str(value) for (value,) in conn.execute("SELECT value FROM chart")]


def test_programs_of_another_postgres_than_the_stores_are_refused_by_version(directory: Path, tmp_path: Path) -> None:
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "PG_VERSION").write_text("17\n")
    program = tmp_path / "postgres"
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)'\n")
    program.chmod(0o755)
    with pytest.raises(
        StoreUnavailableError, match=r"written by Postgres 17, but the programs in .* are of Postgres 15: name"
    ):
        upgrade(directory, tmp_path)


@older
def test_a_store_of_an_older_postgres_is_refused_until_it_is_upgraded_and_keeps_its_former_data(
    directory: Path,
) -> None:
    filled(directory)
    with pytest.raises(StoreUnavailableError, match=r"written by Postgres 15.*store upgrade --programs"):
        values(directory)
    with pytest.raises(StoreUnavailableError, match=r"written by Postgres 15.*has no such programs"):
        upgrade(directory, directory)
    (lacking := directory.with_name("programs")).mkdir()
    for program in OLD.iterdir():
        if program.name != "pg_dump":
            (lacking / program.name).symlink_to(program)
    with pytest.raises(StoreError, match="programs/pg_dump: No such file"):
        upgrade(directory, lacking)
    shutil.rmtree(lacking)
    former = upgrade(directory, OLD)
    assert (former, upgrade(directory, OLD)) == (directory / f"{FORMER}15", None)
    assert values(directory) == ["1.50"]
    assert [one.name for one in directory.parent.iterdir()] == ["store"]


@older
def test_a_killed_upgrade_does_not_leave_the_store_looking_empty_and_is_continued(
    directory: Path,
) -> None:
    filled(directory)
    (directory / "data").rename(directory / f"{FORMER}15")  # all that the killed one did
    with pytest.raises(StoreUnavailableError, match="stopped half-way"):
        values(directory)
    assert upgrade(directory, OLD) == directory / f"{FORMER}15"
    assert values(directory) == ["1.50"]


def test_without_a_store_there_is_nothing_to_upgrade(directory: Path) -> None:
    directory.mkdir()
    with pytest.raises(StoreError, match="no embedded store"):
        upgrade(directory)
