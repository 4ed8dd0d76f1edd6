"""Paths of a configuration that are encrypted too: in the store ciphertext, in exports what a plain store gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exports.delivery.destination import LocalFolder
from exports.errors import PlanError, ViewError
from exports.plan import ExportRequest
from exports.run import export
from snapshots.errors import StoreKeyError
from snapshots.identifying import SealedElements
from snapshots.patient_terms import identifier_term
from snapshots.sealed_values import Keyring
from snapshots.selection import Selection
from snapshots.stored_documents import TEXT_PATHS
from tests.fix_store import opened_store
from tests.integration.exports.charts import exported_files, fill, patient, table_of, view_file
from tests.integration.snapshots.stored import rows

pytestmark = pytest.mark.anyio

KEYS = Keyring(current="k1", keys={"k1": b"1" * 32})
PATHS = frozenset(
    {"Observation.note", "Observation.valueString", "Observation.component.valueString", "Condition.note.text"}
)
MORE = replace(KEYS, paths=PATHS)
INNER = frozenset({
    "Observation.component.valueString", "Observation.component.valueRange.low.unit", "Observation.referenceRange.text",
    "Observation.code.text", "Observation.effectiveTiming.code.text", "Patient.communication.language.text",
    "Questionnaire.item.code.display", "ExampleScenario.process.title",
})  # fmt: skip
SECRETS = ("ill", "angry", "worse", "hidden", "within")
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}], "text": "weight"},
    "subject": {"reference": "Patient/p1"},
    "note": [
        {"text": "ill"},
        {"authorString": "hidden", "_text": {"extension": [{"url": "x", "valueString": "hidden"}]}},
    ],
    "valueString": "angry",
    "component": [{"code": {"text": "shown"}, "valueString": "worse"}],
    "contained": [{"resourceType": "Condition", "id": "c", "note": [{"text": "within", "time": "2020"}]}],
}
CHART = [patient("p1"), OBSERVATION]


def secrets_in(url: str) -> set[str]:
    (body,) = rows(url, "SELECT body::text FROM resource WHERE resource_type = 'Observation'")[0]
    return {one for one in SECRETS if one in body}


async def test_values_at_an_encrypted_path_are_ciphertext_in_the_store_and_plain_in_exports(
    store_url: str, tmp_path: Path
) -> None:
    async with opened_store(store_url, "plain") as plain, opened_store(store_url, keyring=MORE) as sealed:
        for store in (plain, sealed):
            await fill(store, CHART)
        expected = await exported_files(plain, tmp_path / "plain", "ndjson", "csv")
        found = await exported_files(sealed, tmp_path / "sealed", "ndjson", "csv")
    assert secrets_in(store_url) == set()
    assert rows(store_url, "SELECT body -> 'contained' -> 0 -> 'note' -> 0 ->> 'time' FROM resource_observation") == [
        ("2020",)
    ]
    assert {name for name in expected if found[name] != expected[name]} == set()


@pytest.mark.parametrize(
    "path",
    [
        "note.text.first() = 'ill'",
        "note.where(text = 'ill').exists()",
        "note.author.ofType(string).first().upper()",
        "value.ofType(string).upper()",
        "component.value.ofType(string).first().lower()",
        "note.text.where($this = 'ill').exists()",
        "note.text.select(upper()).first()",
        "note.distinct().count()",
        "(note[0] | note[1]).count()",
        "note[0] = note[1]",
        "note.foo.ofType(string).first() = 'x'",
        "iif(status = 'final', %resource, component).value.ofType(string).first() = 'angry'",
        "contained.note.text.first() = 'within'",
        "contained.valueString.first() = 'x'",
        "contained.value.ofType(string).first() = 'x'",
        "contained.where(resourceType = 'Condition').note.text.first().upper()",
        "contained.ofType(Observation).note.text.first().upper()",
    ],
)
async def test_a_view_that_computes_with_encrypted_elements_is_refused(
    store_url: str, tmp_path: Path, path: str
) -> None:
    view = view_file(tmp_path, "computing", {"name": "x", "path": path}, resource="Observation")
    async with opened_store(store_url, keyring=MORE) as store:
        await fill(store, CHART)
        with pytest.raises(ViewError, match="is encrypted in this store"):
            await exported_files(store, tmp_path / "out", "csv", views=(view,))


def iterating(folder: Path, name: str, column: dict[str, str]) -> str:
    path = folder / f"{name}.json"
    select = [{"forEach": "note.text", "column": [column]}]
    path.write_text(json.dumps({"resource": "Observation", "name": name, "select": select}))
    return str(path)


@pytest.mark.parametrize(
    "path", ["$this.upper()", "%context = 'ill'", "%resource.status.where(%context = 'ill').exists()"]
)
async def test_iterating_over_encrypted_values_gives_encrypted_values(
    store_url: str, tmp_path: Path, path: str
) -> None:
    shown = iterating(tmp_path, "shown", {"name": "x", "path": "$this", "type": "string"})
    computing = iterating(tmp_path, "computing", {"name": "x", "path": path})
    async with opened_store(store_url, keyring=MORE) as store:
        await fill(store, CHART)
        await exported_files(store, tmp_path / "out", "csv", views=(shown,))
        with pytest.raises(ViewError, match="is encrypted in this store"):
            await exported_files(store, tmp_path / "none", "csv", views=(computing,))
    assert [row["x"] for row in table_of(tmp_path / "out" / "shown.csv.gz")] == ["ill"]


@pytest.mark.parametrize("built_in", ["condition", "patient", "questionnaire_answer", "observation"])
async def test_built_in_views_that_do_not_compute_with_the_path_still_work(
    store_url: str, tmp_path: Path, built_in: str
) -> None:
    paths = {
        "Condition.note",
        "Condition.recorder",
        "Patient.maritalStatus",
        "QuestionnaireResponse.item.answer.valueString",
    }
    async with opened_store(store_url, keyring=replace(KEYS, paths=frozenset(paths))) as store:
        await fill(store, CHART)
        assert f"{built_in}.csv.gz" in await exported_files(store, tmp_path / "out", "csv", views=(built_in,))


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("component.distinct().count()", "Observation"),
        ("component.first() = component.last()", "Observation"),
        ("referenceRange.distinct().count()", "Observation"),
        ("(component | component).count()", "Observation"),
        ("component.where($this = %resource.component.first()).count()", "Observation"),
        ("iif(status = 'final', component, {}).select($this).distinct().count()", "Observation"),
        ("component.value.ofType(Range).distinct().count()", "Observation"),
        ("effective.distinct().count()", "Observation"),
        ("code = component.code.first()", "Observation"),
        ("component.code.first() = code", "Observation"),
        ("component.code in category | code", "Observation"),
        ("contained.ofType(Observation).component.distinct().count()", "Observation"),
        ("communication.language ~ communication.language", "Patient"),
        ("item.item.code.distinct().count()", "Questionnaire"),
        ("process.step.distinct().count()", "ExampleScenario"),
    ],
)
async def test_structures_that_an_encrypted_path_leads_into_are_not_compared(
    store_url: str, tmp_path: Path, path: str, resource: str
) -> None:
    view = view_file(tmp_path, "comparing", {"name": "x", "path": path}, resource=resource)
    async with opened_store(store_url, keyring=replace(KEYS, paths=INNER)) as store:
        await fill(store, CHART)
        with pytest.raises(ViewError, match="may hold encrypted ones in this store, so SQL cannot compare them"):
            await exported_files(store, tmp_path / "out", "csv", views=(view,))


@pytest.mark.parametrize(
    "path",
    [
        "component.code.distinct().count()",
        "component.code.first() = category.first()",
        "(component.code | category).count()",
        "code.coding.distinct().count()",
        "value.ofType(Quantity) = component.value.ofType(Quantity).first()",
        "value.ofType(Period) ~ effective.ofType(Period)",
        "component.first() = 'x'",
        "code = 'x'",
    ],
)
async def test_structures_beside_an_encrypted_path_are_compared(store_url: str, tmp_path: Path, path: str) -> None:
    view = view_file(tmp_path, "comparing", {"name": "x", "path": path}, resource="Observation")
    async with opened_store(store_url, keyring=replace(KEYS, paths=INNER)) as store:
        await fill(store, CHART)
        await exported_files(store, tmp_path / "out", "csv", views=(view,))


async def test_what_is_within_nested_items_is_shown_and_not_computed_with(store_url: str, tmp_path: Path) -> None:
    path = "item.item.code.display.first()"
    questionnaire = {"resourceType": "Questionnaire", "id": "q", "item": [{"item": [{"code": [{"display": "angry"}]}]}]}
    shown = view_file(tmp_path, "shown", {"name": "x", "path": path}, resource="Questionnaire")
    computed = view_file(tmp_path, "computed", {"name": "x", "path": f"{path} = 'angry'"}, resource="Questionnaire")
    async with opened_store(store_url, keyring=replace(KEYS, paths=INNER)) as store:
        await fill(store, [questionnaire])
        await exported_files(store, tmp_path / "out", "csv", views=(shown,))
        with pytest.raises(ViewError, match="'display' is encrypted in this store"):
            await exported_files(store, tmp_path / "computed", "csv", views=(computed,))
    assert table_of(tmp_path / "out" / "shown.csv.gz") == [{"x": "angry"}]


async def test_nested_paths_and_items_are_encrypted_wherever_they_end(store_url: str) -> None:
    paths = {"Observation.component", "Observation.component.valueCodeableConcept.text", "Questionnaire.item.text"}
    coded = {"resourceType": "Observation", "id": "o", "component": [{"valueCodeableConcept": {"text": "angry"}}]}
    questionnaire = {"resourceType": "Questionnaire", "id": "q", "item": [{"linkId": "1", "item": [{"text": "ill"}]}]}
    async with opened_store(store_url, keyring=replace(KEYS, paths=frozenset(paths))) as store:
        await fill(store, [coded, questionnaire])
    bodies = [body for (body,) in rows(store_url, "SELECT body::text FROM resource ORDER BY id")]
    assert [("angry" in body, "ill" in body, body.count("~sealed:")) for body in bodies] == [
        (False, False, 1),
        (False, False, 1),
    ]


async def test_an_encrypted_column_cannot_partition_a_table(store_url: str, tmp_path: Path) -> None:
    async with opened_store(store_url, keyring=replace(KEYS, paths=frozenset({"Observation.status"}))) as store:
        await fill(store, CHART)
        async with store.snapshot(Selection()) as snapshot:
            request = ExportRequest(
                out=LocalFolder(tmp_path / "out"), formats=("csv",), views=("observation",), partition_by="status"
            )
            with pytest.raises(PlanError, match="--partition-by status: it is encrypted in this store"):
                await export(request, snapshot)


async def test_a_path_of_a_contained_resource_is_out_of_a_view_s_reach(store_url: str, tmp_path: Path) -> None:
    view = view_file(
        tmp_path,
        "within",
        {"name": "x", "path": "contained.ofType(Condition).note.text.first()"},
        resource="Observation",
    )
    async with opened_store(store_url, keyring=MORE) as store:
        await fill(store, CHART)
        with pytest.raises(ViewError, match="'note' of a Condition within Observation is encrypted"):
            await exported_files(store, tmp_path / "out", "csv", views=(view,))


async def test_unencrypted_elements_can_be_computed_with(store_url: str, tmp_path: Path) -> None:
    columns = [
        {"name": "code", "path": "code.coding.where(system = 'http://loinc.org').code.first().lower()"},
        {"name": "noted", "path": "note.count()"},
        {"name": "note", "path": "note.text.first()"},
    ]
    view = view_file(tmp_path, "computing", *columns, resource="Observation")
    async with opened_store(store_url, keyring=MORE) as store:
        await fill(store, CHART)
        await exported_files(store, tmp_path / "out", "csv", views=(view,))
    assert table_of(tmp_path / "out" / "computing.csv.gz") == [{"code": "29463-7", "noted": "2", "note": "ill"}]


async def test_a_path_added_later_is_encrypted_once_by_the_next_rotation_only(store_url: str, tmp_path: Path) -> None:
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, CHART)
        before = await exported_files(store, tmp_path / "before", "ndjson")
    assert secrets_in(store_url) == set(SECRETS)
    async with opened_store(store_url, keyring=MORE) as store:
        assert (await store.rotate()).rows == {"resource": 1}
        assert secrets_in(store_url) == set()
        assert (await store.rotate()).rows == {}
        assert await exported_files(store, tmp_path / "after", "ndjson") == before


async def test_a_store_keeps_encrypting_a_path_removed_from_its_configuration(store_url: str, tmp_path: Path) -> None:
    view = view_file(tmp_path, "computing", {"name": "x", "path": "note.text.first() = 'ill'"}, resource="Observation")
    async with opened_store(store_url, keyring=MORE):
        pass
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, CHART)
        assert secrets_in(store_url) == set()
        with pytest.raises(ViewError, match="is encrypted in this store"):
            await exported_files(store, tmp_path / "out", "csv", views=(view,))


async def test_a_reader_knows_a_path_added_after_it_opened_the_store(store_url: str, tmp_path: Path) -> None:
    view = view_file(tmp_path, "computing", {"name": "x", "path": "note.text.first() = 'ill'"}, resource="Observation")
    async with opened_store(store_url, keyring=KEYS) as reader, opened_store(store_url, keyring=MORE) as store:
        await fill(store, CHART)
        with pytest.raises(ViewError, match="is encrypted in this store"):
            await exported_files(reader, tmp_path / "out", "csv", views=(view,))
        async with reader.sql_views() as there:
            assert there.sealed == SealedElements(PATHS | TEXT_PATHS)


async def test_a_reader_without_keys_is_refused_if_the_store_was_encrypted_meanwhile(
    store_url: str, tmp_path: Path
) -> None:
    async with opened_store(store_url) as reader, opened_store(store_url, keyring=KEYS) as store:
        await fill(store, CHART)
        with pytest.raises(StoreKeyError, match="encrypted meanwhile"):
            await exported_files(reader, tmp_path / "out", "ndjson")
        with pytest.raises(StoreKeyError, match="encrypted meanwhile"):
            await reader.find("site", identifier_term("urn:mrn", "1"))
