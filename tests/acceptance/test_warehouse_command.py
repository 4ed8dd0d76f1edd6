"""An analyst finds the charts in a database of their own, each night."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from tests.fix_store import database
from tests.user_site import Site, mock


def test_views_are_loaded_into_another_database_and_later_only_changes(
    site: Site, store_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mock("generic", patients=2, open=True) as served, database(store_server, f"cf_{os.getpid()}_bi") as url:
        site.connect(served)
        monkeypatch.setenv("WAREHOUSE_URL", url)
        words = ("export", "--format", "postgres", "--to", "env:WAREHOUSE_URL")
        nothing = site.run(*words)
        assert (nothing.code, "no table was touched" in nothing.stdout) == (4, True), nothing.stderr
        run = site.sync()["runs"][0]["id"]
        done = site.run(*words, "--json")
        assert (done.code, len(done.json["tables"])) == (0, 36), done.stderr
        first = served.dataset.of_type("Condition")[0]
        served.dataset.delete("Condition", first.id)
        site.sync()
        done = site.run(*words, "--changed-since", str(run), "--view", "condition", "--view", "patient")
        assert (done.code, "loaded, as of" in done.stdout) == (0, True), done.stderr
        with psycopg.connect(url) as conn:
            left = {key for (key,) in conn.execute("SELECT key FROM charts.condition")}
            assert left == {row.id for row in served.dataset.of_type("Condition")}
            assert conn.execute("SELECT count(*) FROM charts.patient").fetchone() == (2,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "postgres"), "needs --to"),
        (("--format", "postgres,csv", "--to", "service=x"), "and no other format"),
        (("--to", "service=x"), "--to needs --format postgres or delta"),
        (("--format", "delta"), "--format delta needs --to: a folder or a URL"),
        (("--format", "delta", "--to", ""), "the word behind --to is empty"),
        (("--format", "delta", "--to", "-"), "--to -: this is neither read from stdin nor written to stdout"),
        (("--format", "postgres", "--to", " "), "the word behind --to is empty"),
        (("--format", "delta", "--to", "env:NO_LAKE"), "NO_LAKE"),
        (("--format", "delta", "--to", "lake", "--schema", "x"), "each table is a folder"),
        (("--format", "delta", "--to", "sftp://ana:hunter2@h/lake"), "no Delta table can be at a sftp:// URL"),
        (("--format", "postgres", "--to", "service=x", "--limit", "3"), "--limit: not with --format postgres"),
        (("--format", "postgres", "--to", "postgresql://ana:hunter2@h/d"), "password on the command line"),
        (("--format", "postgres", "--to", "host=h sslpassword=hunter2"), "password on the command line"),
        (("--format", "postgres", "--to", "postgresql://ana:h/hunter2@h/d"), "must be written %40 or %2F"),
        (("--format", "postgres", "--to", "hunter2"), "pg_service.conf"),
        (("--format", "postgres", "--to", "service=x", "--schema", ""), "the word behind --schema is empty"),
        (("--schema", "x", "--out", "y"), "--schema needs --format postgres"),
    ],
)
def test_an_impossible_load_is_refused_before_anything_is_read(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = Site(tmp_path, "postgresql://127.0.0.1:9/nowhere").run("export", *words)
    assert (done.code, message in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert "hunter2" not in done.stderr
