"""Verifying published datasets: what is whole passes, and each damage is named where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exports.errors import DatasetError
from snapshots.store import Store
from tests.integration.exports.charts import fill, patient, remove
from tests.integration.exports.datasets import files_in, published, verified

pytestmark = pytest.mark.anyio


def named(folder: Path, pattern: str) -> Path:
    (found,) = files_in(folder, pattern).values()
    return found


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def lose_a_line(folder: Path) -> None:
    path = named(folder, "Patient-*")
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])


def state_another_type(folder: Path) -> None:
    change(folder / "manifest.json", lambda page: page["output"][0].update(type="Device"))


def break_a_line(folder: Path) -> None:
    path = named(folder, "Patient-*")
    path.write_bytes(path.read_bytes().replace(b"}", b"", 1))


def hang_on_the_root(folder: Path) -> None:
    change(folder / "manifest.json", lambda page: page["link"][0].update(url="#pending"))


def go_in_a_circle(folder: Path) -> None:
    change(folder / "manifest.json", lambda page: page["link"][0].update(url="manifest.json"))


def disagree(folder: Path) -> None:
    change(folder / "manifest.json", lambda page: page.update(transactionTime="2020-01-01T00:00:00Z"))


def lose_a_page(folder: Path) -> None:
    stub = json.loads((folder / "manifest.json").read_text())["link"][0]["url"]
    (folder / stub).unlink()


def delete_otherwise(folder: Path) -> None:
    path = named(folder, "deleted-*")
    path.write_bytes(path.read_bytes().replace(b"DELETE", b"PUT"))


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (lose_a_line, ["has 1 line; its page says 2", "differs from what its name states"]),
        (state_another_type, ["line 1: not a Device", "line 2: not a Device"]),
        (break_a_line, ["line 1: not JSON", "differs from what its name states"]),
        (hang_on_the_root, ["pending itself"]),
        (go_in_a_circle, ["the pages form a loop"]),
        (disagree, ["differs from the first page in transactionTime"] * 2),
        (lose_a_page, ["there is no such page"]),
        (delete_otherwise, ["line 1: an entry that is not a DELETE", "differs from what its name states"]),
    ],
)
async def test_each_kind_of_damage_is_named(
    store: Store, tmp_path: Path, damage: Callable[[Path], None], messages: list[str]
) -> None:
    await fill(store, [patient("a"), patient("b")])
    await published(store, tmp_path)
    await remove(store, "a")
    await published(store, tmp_path)
    whole = verified(tmp_path)
    assert (whole.problems, whole.pages, whole.files, whole.written, whole.deleted) == ([], 3, 2, 2, 1)
    damage(tmp_path)
    problems = verified(tmp_path).problems
    assert len(problems) == len(messages)
    assert all(part in problem for part, problem in zip(messages, problems, strict=True)), problems


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no manifest at https"):
        verified(tmp_path)
    (tmp_path / "manifest.json").write_text('{"manifestType": "other"}')
    with pytest.raises(DatasetError, match="not a Bulk Publish manifest"):
        verified(tmp_path)
