"""`chartferry views`: what people see of views without a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.command_line import call
from exports.catalogue import builtin_names, view_sets


def written(folder: Path, path: str, **more: Any) -> str:
    view = {"name": "mine", "resource": "Observation", "select": [{"column": [{"name": "c", "path": path}]}], **more}
    file = folder / "mine.json"
    file.write_text(json.dumps(view))
    return str(file)


def test_the_built_in_views_are_listed_and_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["views", "list", "--json"]) == 0
    of_sets = [name for names in view_sets().values() for name in names]
    assert [view["name"] for view in json.loads(capsys.readouterr().out)["views"]] == [*builtin_names(), *of_sets]
    assert call(["views", "check"]) == 0
    assert f"{len(builtin_names()) + len(of_sets)} views are correct" in capsys.readouterr().out


def test_the_views_of_a_set_are_checked_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["views", "check", "omop", "omop_person"]) == 0
    assert f"{len(view_sets()['omop'])} views are correct" in capsys.readouterr().out


def test_two_views_of_one_name_are_not_created(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["views", "create", "patient", written(tmp_path, "status", name="patient")]) == 2
    assert "several views have the name patient" in capsys.readouterr().err


def test_a_view_is_shown_with_types_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["views", "show", "patient"]) == 0
    assert "birth_date" in capsys.readouterr().out


def test_an_unknown_element_is_refused_with_the_nearest_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["views", "check", written(tmp_path, "statsu")]) == 2
    errors = capsys.readouterr().err
    assert "Observation has no element 'statsu' in R4 (did you mean 'status'?), at character 1" in errors


def test_a_view_for_another_version_of_fhir_is_reported_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["views", "check", written(tmp_path, "triggeredBy", fhirVersion=["5.0.0"])]) == 0
    assert "is not for R4" in capsys.readouterr().err


def test_a_number_that_json_lacks_is_reported_as_a_mistake_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, "status", constant=[{"name": "c", "valueDecimal": float("nan")}])
    assert call(["views", "check", path]) == 2
    assert "NaN is not a JSON number" in capsys.readouterr().err


def test_an_unknown_function_is_reported_with_its_position(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["views", "check", written(tmp_path, "status.shout()"), "patient"]) == 2
    assert "no function shout() here at character 8" in capsys.readouterr().err
