"""Views of an encrypted store: a reader with the keys gets the rows of a plain store; views that need plain values are
refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exports.errors import ViewError
from exports.queries.run import Limits, run_query
from mocks.mock_config import MockConfig
from mocks.server import load_dataset
from snapshots.errors import SealedValueError
from snapshots.sealed_values import Keyring
from snapshots.selection import Selection
from tests.fix_store import opened_store
from tests.integration.exports.charts import exported_files, fill, patient, table_of, view_file
from tests.integration.snapshots.stored import execute

pytestmark = pytest.mark.anyio

KEYS = Keyring(current="k1", keys={"k1": b"1" * 32})
ODD: list[dict[str, Any]] = [
    patient("day", birthDate="2020-02-30", name=[{"text": 'a, "b"\n\\ é', "given": ["", "x"]}]),
    patient("year", birthDate="1940", name=[{"family": "a"}, {"family": "b", "use": "official"}]),
    patient("none", birthDate="soon", telecom=[{"system": "phone", "value": 12.50}]),
    patient("several", birthDate=["1940-01-01"], address=[{"line": ["1 Way", "2 Way"], "city": {"x": "y"}}]),
    patient("looks", birthDate="1940-ab-cd", identifier=[{"value": "~sealed:1:k1:looks:/identifier/0/value:AAAA~"}]),
    patient("holds", active="a ~sealed:1:k1:looks:/identifier/0/value:AAAA~", gender="\\ ~sealed:é~"),
    patient("e~X~", birthDate="1940-01-02", name=[{"family": "c", "given": ["d", "e"]}]),
    patient("bare", birthDate=None, name="nobody", multipleBirthInteger=2),
]


async def test_every_built_in_view_gives_the_same_rows_from_an_encrypted_store(store_url: str, tmp_path: Path) -> None:
    dataset = load_dataset(MockConfig(patients=2, documents=True))
    charts = [json.loads(row.raw) for kind in dataset.types for row in dataset.of_type(kind)]
    async with opened_store(store_url) as plain, opened_store(store_url, "sealed", keyring=KEYS) as sealed:
        for store in (plain, sealed):
            await fill(store, [*charts, *ODD])
        expected = await exported_files(plain, tmp_path / "plain", "csv", "parquet")
        found = await exported_files(sealed, tmp_path / "sealed", "csv", "parquet")
    assert {name for name in expected if found[name] != expected[name]} == set()
    (left_empty,) = {
        json.dumps(one["left_empty"]) for one in files(tmp_path / "sealed") if one["path"] == "patient.csv.gz"
    }
    assert files(tmp_path / "plain") == files(tmp_path / "sealed")
    assert "birth_date" in left_empty


def files(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_bytes())["files"]
    return found


@pytest.mark.parametrize(
    ("path", "at"),
    [
        ("name.family.first() = 'Zappa'", 6),
        ("birthDate.id = 'b1'", 11),
        ("contact.id.first() = 'c1'", 9),
        ("name.where(family = 'Zappa').given.first()", 12),
        ("birthDate.toString().substring(0, 4)", 1),
        ("name.family.first() + name.given.first()", 6),
        ("name.given.distinct().first()", 6),
        ("identifier.where(value.startsWith('1')).exists()", 18),
        ("name.all(family = 'Zappa')", 10),
        ("name.family.all($this = 'Zappa')", 6),
        ("extension('n').value.ofType(string) = 'Zappa'", 16),
        ("generalPractitioner.identifier.extension('n').value.ofType(string) = 'Zappa'", 47),
        ("extension('x').value.ofType(string).upper()", 16),
        ("iif(birthDate < @1950-01-01, 'old', 'young')", 5),
        ("contained.ofType(RelatedPerson).name.family.first().upper()", 38),
        ("link.other.display.lower()", 12),
        ("text.div.length()", 6),
        ("contact.name.distinct().count()", 9),
        ("contact.first().name = contact.last().name", 17),
        ("(contact.name | contact.name).count()", 10),
        ("contact.name.where($this = %resource.contact.first().name.first()).count()", 9),
        ("contact.address.distinct().count()", 9),
        ("contact.telecom ~ contact.telecom", 9),
        ("contact.foo.ofType(string).first() = 'x'", 9),
    ],
)
async def test_a_column_that_computes_with_an_encrypted_element_is_refused_with_its_position(
    store_url: str, tmp_path: Path, path: str, at: int
) -> None:
    view = view_file(tmp_path, "computing", {"name": "x", "path": path})
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, [patient("a")])
        with pytest.raises(ViewError, match=rf"is encrypted in this store, so SQL cannot read it at character {at} "):
            await exported_files(store, tmp_path / "out", "csv", views=(view,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "path",
    ["contained.ofType(Patient).name.family = 'x'", "subject.identifier.value.first()", "contained.name.exists()"],
)
async def test_a_person_within_another_resource_is_out_of_a_view_s_reach(
    store_url: str, tmp_path: Path, path: str
) -> None:
    view = view_file(tmp_path, "within", {"name": "x", "path": path}, resource="Observation")
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, [patient("a")])
        with pytest.raises(ViewError, match="may be encrypted in this store where"):
            await exported_files(store, tmp_path / "out", "csv", views=(view,))


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("subject = performer.first()", "Observation"),
        ("subject !~ performer.first()", "Observation"),
        ("subject in performer", "Observation"),
        ("performer contains subject", "Observation"),
        ("performer.where($this = %resource.subject).exists()", "Observation"),
        ("(focus | performer).count() = 1", "Observation"),
        ("extension.distinct().exists()", "Observation"),
        ("member.distinct().count() = 1", "Group"),
        ("item.answer.value.distinct().exists()", "QuestionnaireResponse"),
        ("text = text", "Group"),
        ("contact.organization.distinct().count()", "Patient"),
        ("foo = bar", "Group"),
        ("code = foo", "Observation"),
    ],
)
async def test_whole_structures_that_may_hold_an_encrypted_value_are_not_compared(
    store_url: str, tmp_path: Path, path: str, resource: str
) -> None:
    view = view_file(tmp_path, "comparing", {"name": "x", "path": path}, resource=resource)
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, [patient("a")])
        with pytest.raises(ViewError, match="may hold encrypted ones in this store, so SQL cannot compare them"):
            await exported_files(store, tmp_path / "out", "csv", views=(view,))


@pytest.mark.parametrize(
    "path",
    [
        "code = component.code.first()",
        "code.coding.distinct().count() = 1",
        "category ~ {}",
        "value = component.value.first()",
        "subject.reference = performer.reference.first()",
        "performer.reference.distinct().count() = 1",
        "subject = 'x'",
        "value = foo.ofType(integer) + 1",
        "(code | value.ofType(Quantity)).count() = 2",
    ],
)
async def test_structures_that_hold_nothing_encrypted_are_compared(store_url: str, tmp_path: Path, path: str) -> None:
    view = view_file(tmp_path, "comparing", {"name": "x", "path": path}, resource="Observation")
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, [patient("a")])
        await exported_files(store, tmp_path / "out", "csv", views=(view,))


async def test_existence_and_count_of_an_encrypted_element_can_be_queried(store_url: str, tmp_path: Path) -> None:
    columns = [
        {"name": "there", "path": "birthDate.exists()"},
        {"name": "names", "path": "name.given.count()"},
        {"name": "official", "path": "name.where(use = 'official').family.first()"},
    ]
    view = view_file(tmp_path, "asking", *columns)
    async with opened_store(store_url, keyring=KEYS) as store:
        names = [{"family": "a"}, {"use": "official", "family": "b", "given": ["c", "d"]}]
        await fill(store, [patient("a", name=names)])
        await exported_files(store, tmp_path / "out", "csv", views=(view,))
    assert table_of(tmp_path / "out" / "asking.csv.gz") == [{"there": "false", "names": "2", "official": "b"}]


@pytest.mark.parametrize(
    "path",
    [
        "name.all(use.exists())",
        "gender.extension('x').value.ofType(string) = 'y'",
        "communication.extension('x').value.ofType(string) = 'y'",
        "name.period.extension('x').value.ofType(string) = 'y'",
    ],
)
async def test_plain_elements_beside_encrypted_ones_can_be_computed_with(
    store_url: str, tmp_path: Path, path: str
) -> None:
    view = view_file(tmp_path, "computing", {"name": "x", "path": path})
    more = {"extension": [{"url": "x", "valueString": "y"}]}
    name = {"use": "official", "family": "Zappa", "period": more}
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, [patient("a", name=[name], _gender=more, communication=[more])])
        await exported_files(store, tmp_path / "out", "csv", views=(view,))
    assert table_of(tmp_path / "out" / "computing.csv.gz") == [{"x": "true"}]


async def test_names_that_a_collection_joins_are_decrypted_one_by_one(store_url: str, tmp_path: Path) -> None:
    column = {"name": "names", "path": "name.select(given.join(' '))", "collection": True}
    view = view_file(tmp_path, "joining", column)
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, [patient("a", name=[{"given": ['b"', "~sealed:c~"]}, {"given": ["d"]}])])
        await exported_files(store, tmp_path / "out", "csv", views=(view,))
    assert table_of(tmp_path / "out" / "joining.csv.gz") == [{"names": '["b\\" ~sealed:c~", "d"]'}]


async def test_a_value_moved_from_a_row_of_another_type_is_not_shown(store_url: str, tmp_path: Path) -> None:
    person = {
        "resourceType": "RelatedPerson",
        "id": "r",
        "patient": {"reference": "Patient/a"},
        "name": [{"family": "x"}],
    }
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, [patient("a", name=[{"family": "y"}]), person])
        moved = "(SELECT o.body -> 'name' FROM resource o WHERE o.id = 'r')"
        execute(store_url, f"UPDATE resource SET body = jsonb_set(body, '{{name}}', {moved}) WHERE id = 'a'")
        with pytest.raises(SealedValueError):
            await exported_files(store, tmp_path / "out", "csv", views=("patient_name",))


async def test_a_query_over_an_encrypted_element_is_refused(store_url: str, tmp_path: Path) -> None:
    library = tmp_path / "names.sql"
    library.write_text("-- @relatedDependency: patient_name as n\nSELECT family FROM n")
    async with opened_store(store_url, keyring=KEYS) as store:
        await fill(store, [patient("a", name=[{"family": "y"}])])
        async with store.snapshot(Selection()) as snapshot:
            with pytest.raises(ViewError, match="'family' is encrypted"):
                await run_query(library, {}, snapshot, tmp_path / "out.csv", Limits())
