from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import ExportDefaults
from exports.catalogue import LoadedView, builtin_names, load_view, load_views, view_sets
from exports.delivery.destination import LocalFolder
from exports.errors import PlanError, UnknownViewError, ViewError
from exports.formats.data_package import DescribedTable, package_content
from exports.formats.file_formats import FORMATS, TABLES
from exports.formats.table_columns import TableColumn
from exports.plan import ExportRequest, plan_export
from exports.safe_harbor.deidentify import SafeHarbor

OUT = Path("out")
BUILTIN = [load_view(name) for name in builtin_names()]


def names(request: ExportRequest, available: dict[str, int], views: list[LoadedView] | None = None) -> list[str]:
    return [file.name for file in plan_export(request, available, BUILTIN if views is None else views)]


def test_every_type_of_the_store_is_the_default() -> None:
    assert names(ExportRequest(out=LocalFolder(OUT)), {"Patient": 1, "Device": 1}) == [
        "Device.ndjson.gz",
        "Patient.ndjson.gz",
    ]


def test_all_built_in_views_are_the_default_of_csv() -> None:
    assert names(ExportRequest(out=LocalFolder(OUT), formats=("csv",)), {}) == [
        f"{name}.csv.gz" for name in builtin_names()
    ]


def test_naming_a_view_asks_for_csv() -> None:
    assert names(ExportRequest(out=LocalFolder(OUT), views=("patient",)), {"Device": 1}, [load_view("patient")]) == [
        "patient.csv.gz"
    ]


def test_types_narrow_the_built_in_views() -> None:
    request = ExportRequest(out=LocalFolder(OUT), formats=("csv",), types=("Goal", "Condition"))
    assert names(request, {}) == ["condition.csv.gz", "goal.csv.gz"]


def test_a_type_requested_by_name_gets_a_file_even_if_the_store_has_no_rows_of_it() -> None:
    assert names(ExportRequest(out=LocalFolder(OUT), types=("Device",)), {}) == ["Device.ndjson.gz"]


def test_requesting_views_but_no_table_format_is_refused() -> None:
    with pytest.raises(PlanError, match="add one of csv"):
        names(ExportRequest(out=LocalFolder(OUT), formats=("ndjson",), views=("patient",)), {})


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match="xlsx; allowed: ndjson, csv"):
        names(ExportRequest(out=LocalFolder(OUT), formats=("xlsx",)), {})


def test_requesting_a_view_of_an_excluded_type_is_refused() -> None:
    with pytest.raises(PlanError, match="patient reads Patient"):
        names(ExportRequest(out=LocalFolder(OUT), views=("patient",), types=("Device",)), {}, [load_view("patient")])


def test_two_views_of_one_name_are_refused() -> None:
    views = [load_view("patient"), LoadedView("patient", {}, "")]
    with pytest.raises(PlanError, match="two views are named patient"):
        names(ExportRequest(out=LocalFolder(OUT), views=("patient", "file.json")), {}, views)


def test_a_type_that_is_no_file_name_is_refused() -> None:
    with pytest.raises(PlanError, match="not a resource type"):
        names(ExportRequest(out=LocalFolder(OUT)), {"../../etc/passwd": 1})


@given(st.dictionaries(st.from_regex(r"[A-Z][a-z]{1,5}", fullmatch=True), st.integers(1, 9)))
def test_the_order_of_files_does_not_depend_on_the_order_of_types(available: dict[str, int]) -> None:
    backwards = dict(reversed(available.items()))
    assert names(ExportRequest(out=LocalFolder(OUT)), available) == names(
        ExportRequest(out=LocalFolder(OUT)), backwards
    )


def columns_of(selection: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [*selection.get("select", []), *selection.get("unionAll", [])]
    return [*selection.get("column", []), *(column for each in inner for column in columns_of(each))]


def test_there_are_36_built_in_views_each_shareable() -> None:
    assert len(BUILTIN) == 36
    for view in BUILTIN:
        assert view.definition["name"] == view.name
        assert {"url", "title", "status", "fhirVersion", "description"} <= view.definition.keys()
        for column in columns_of(view.definition):
            assert {"name", "path", "type"} <= column.keys()


def test_an_unknown_view_is_refused_with_the_nearest_and_a_list_of_all() -> None:
    with pytest.raises(UnknownViewError, match=r"did you mean 'observation'.*allergy_intolerance, blood_pressure"):
        load_view("observatoin")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"resource": "Patient"}', "[" * 100_000])
def test_a_file_without_a_view_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "view.json").write_text(content)
    with pytest.raises(ViewError):
        load_view(str(tmp_path / "view.json"))


def test_the_name_of_a_set_selects_all_its_views() -> None:
    assert [view.name for view in load_views(["patient", "omop"])] == ["patient", *view_sets()["omop"]]


def test_views_of_sets_are_exported_only_on_request() -> None:
    of_sets = {name for names in view_sets().values() for name in names}
    assert "patient_ssn" in of_sets
    assert not of_sets & set(builtin_names())


def test_a_format_has_one_name_wherever_it_is_named() -> None:
    (allowed, _) = get_args(ExportDefaults.model_fields["format"].annotation)
    assert get_args(allowed) == FORMATS
    for name in TABLES:
        described = DescribedTable(
            (f"v.{name}",), name, {"name": "v"}, (TableColumn("c", "text", "string", ("P.c",), ""),)
        )
        assert name.encode() in package_content([described])


def test_a_duckdb_file_has_all_tables_and_no_parts() -> None:
    request = ExportRequest(out=LocalFolder(OUT), formats=("ndjson", "csv", "duckdb"), types=("Goal", "Condition"))
    *_, last = plan_export(request, {}, BUILTIN, ["counts"])
    assert (last.name, [table.name for table in last.tables]) == ("charts.duckdb", ["condition", "goal", "counts"])
    with pytest.raises(PlanError, match="leave out --part-size"):
        plan_export(replace(request, part_size=1000), {}, BUILTIN)


def test_tables_whose_names_are_equal_to_duckdb_are_refused() -> None:
    request = ExportRequest(out=LocalFolder(OUT), formats=("duckdb",))
    with pytest.raises(PlanError, match="two tables would be named goal"):
        plan_export(request, {}, BUILTIN, ["Goal"])


def test_ndjson_can_only_be_partitioned_by_type_and_deidentified_tables_not_at_all() -> None:
    request = ExportRequest(
        out=LocalFolder(OUT), types=("Patient",), partition_by="type", safe_harbor=SafeHarbor(b"k" * 32, 2026)
    )
    assert names(request, {}) == ["type=Patient/Patient.ndjson.gz"]
    with pytest.raises(PlanError, match="--profile safe-harbor does not divide tables"):
        names(replace(request, formats=("csv",), partition_by="status"), {})
