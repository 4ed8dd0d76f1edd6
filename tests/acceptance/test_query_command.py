"""An analyst asks the store a question of her own."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from tests.user_site import Site, csv_rows, mock, source

PAGE = Path(__file__).resolve().parents[2] / "docs/views.md"


def test_the_query_of_the_page_runs_as_written(site: Site) -> None:
    found = re.search(r"```sql\n(-- @name: a1c\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    (site.folder / "a1c.sql").write_text(found[1])
    (site.folder / "count.sql").write_text(
        "-- @relatedDependency: patient as p\nSELECT gender, count(*) AS n FROM p GROUP BY 1"
    )
    with mock("generic") as served:
        site.connect(served)
        site.sync()
        patients = source(served, ["Patient"]).values()
    done = site.run("query", "count.sql")
    assert (done.code, done.remarks) == (0, "")
    counted = {row["gender"]: int(row["n"]) for row in csv.DictReader(io.StringIO(done.stdout))}
    assert counted == {
        one: sum(row["gender"] == one for row in patients) for one in {row["gender"] for row in patients}
    }
    words = ("a1c.sql", "--param", "since=1900-01-01", "--out", "a1c.csv.gz")
    done = site.run("query", *words)
    assert done.code in {0, 4}, done.stderr
    assert site.run("export", "--out", "out", "--query", *words[:3]).code == done.code
    assert csv_rows(site.folder / "out" / "a1c.csv.gz") == csv_rows(site.folder / "a1c.csv.gz")


def test_an_invalid_query_is_refused_before_the_store_is_read(site: Site) -> None:
    (site.folder / "q.sql").write_text("-- @param: code string\nSELECT :code FROM resource")
    assert "needs --param code (string)" in site.run("query", "q.sql").stderr
    done = site.run("query", "q.sql", "--param", "code=Quill")
    assert (done.code, done.stdout) == (2, "")
    assert "table resource is not declared" in done.stderr
    assert "Quill" not in done.stderr
    assert site.run("query", "q.sql", "--param", "code").code == 2
    assert "cannot be read" in site.run("query", "nowhere.sql").stderr


@pytest.mark.parametrize(("out", "says"), [("rows/", "it is a folder"), ("nowhere/rows.csv", "there is no folder")])
@pytest.mark.parametrize("words", [("query", "q.sql"), ("audit", "export")], ids=" ".join)
def test_a_place_where_no_file_can_be_made_is_refused_before_anything_is_read(
    tmp_path: Path, words: tuple[str, ...], out: str, says: str
) -> None:
    done = Site(tmp_path, "postgresql://127.0.0.1:9/nowhere").run(*words, "--out", out)
    assert (done.code, says in done.stderr) == (5, True), done.stderr
