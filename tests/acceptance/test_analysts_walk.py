"""docs/analysts.md, command by command; and exports as pandas, polars and DuckDB see them."""

from __future__ import annotations

import contextlib
import re
import shlex
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.user_site import Site, mock

PAGE = Path(__file__).parents[2] / "docs" / "analysts.md"
BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)


def test_every_command_of_the_analysts_page_works(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    known: dict[str, Any] = {}
    with mock("generic") as served, contextlib.chdir(site.folder):
        site.connect(served)
        for language, content in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if language == "python":
                exec(compile(content, str(PAGE), "exec"), known)
                continue
            for line in content.splitlines():
                name, *arguments = shlex.split(line)
                done = site.run(*arguments)
                assert (name, done.code) == ("chartferry", 0), (line, done.stderr)
        assert Path("blood_pressure.png").read_bytes().startswith(b"\x89PNG")
        assert len(known["common"].fetchall()) > 3  # it reads the file again
    assert len(known["by_year"]) > 0
    assert known["yearly"]["systolic"].between(60, 260).all()


@pytest.fixture
def charts(site: Site) -> Path:
    with mock("generic") as served:
        site.connect(served)
        site.sync()
    wanted = ("--format", "csv,parquet", "--csv", "pandas", "--compress", "none")
    assert site.run("export", "--out", "charts", *wanted).code == 0
    return site.folder / "charts"


def test_pandas_and_duckdb_see_ids_and_codes_as_text_numbers_as_numbers_and_instants_in_utc(charts: Path) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    path = charts / "patient.parquet"
    in_pandas, in_polars = pd.read_parquet(path), pl.read_parquet(path)
    assert all(pd.api.types.is_string_dtype(in_pandas[name]) for name in ("key", "mrn", "postal_code", "race_code"))
    assert isinstance(in_pandas["birth_date"].iloc[0], date)
    assert in_polars.schema["postal_code"] == pl.String
    assert in_polars.schema["birth_date"] == pl.Date
    assert in_polars.schema["race_codes"] == pl.List(pl.String)
    observations = str(charts / "observation.parquet")
    types = {name: str(type_) for name, type_, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM '{observations}'").fetchall()}
    assert types["key"] == types["code_loinc"] == types["effective_at_written"] == "VARCHAR"
    assert (types["value_quantity"], types["effective_at"]) == ("DOUBLE", "TIMESTAMP WITH TIME ZONE")
    read = pd.read_parquet(observations)
    assert str(read["effective_at"].dtype) == "datetime64[us, UTC]"
    given = read.dropna(subset=["effective_at"]).iloc[0]
    written = datetime.fromisoformat(given["effective_at_written"])
    assert given["effective_at"] == (written if written.tzinfo else written.replace(tzinfo=UTC))


def test_csv_for_pandas_and_parquet_hold_the_same_texts(charts: Path) -> None:
    import pandas as pd

    for path in sorted(charts.glob("*.csv")):
        if path.stem == "data_dictionary":
            continue
        as_csv = pd.read_csv(path, dtype="string", keep_default_na=False, na_values=["\\N"])
        as_parquet = pd.read_parquet(path.with_suffix(".parquet"))
        assert len(as_csv) == len(as_parquet)
        for name in as_csv.columns:
            digits = f"{name}_written"
            same = digits if digits in as_parquet.columns and digits not in as_csv.columns else name
            if pd.api.types.is_datetime64_any_dtype(as_parquet[same]):
                moments = pd.to_datetime(as_csv[name], format="ISO8601", utc=True)
                assert moments.dropna().tolist() == as_parquet[same].dropna().tolist(), (path.stem, name)
            elif pd.api.types.is_string_dtype(as_parquet[same]):
                found, expected = as_csv[name].fillna("NULL"), as_parquet[same].astype("string").fillna("NULL")
                assert found.tolist() == expected.tolist(), (path.stem, name)
