"""An analyst asks what changed between two nights."""

from __future__ import annotations

import json

from tests.user_site import Site, mock


def test_a_diff_of_two_nights_lists_patients_and_elements_and_values_only_on_request(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        changed, deleted = served.dataset.of_type("Condition")[:2]
        patient = changed.body["subject"]["reference"].removeprefix("Patient/")
        served.dataset.replace(json.dumps({**changed.body, "recordedDate": "2001-01-01"}, default=str).encode())
        served.dataset.delete("Condition", deleted.id)
        site.sync()
    masked = site.run("diff", name, "1", "2")
    assert masked.code == 0, masked.stderr
    assert f"patient {patient}\n" in masked.stdout
    assert f"  changed  Condition/{changed.id}\n           /recordedDate: " in masked.stdout
    assert f"  deleted  Condition/{deleted.id}\n" in masked.stdout
    assert masked.stdout.endswith("\nCondition: 1 changed, 1 deleted\n")
    assert "2001-01-01" not in masked.stdout
    assert '-> "2001-01-01"' in site.run("diff", name, "1", "2", "--values").stdout
    listed = site.run("diff", name, "1", "2", "--values", "--patient", "-", "--json", stdin=patient).json
    one = next(one for one in listed["differences"] if one["change"] == "changed")
    element = next(each for each in one["elements"] if each["pointer"] == "/recordedDate")
    assert (one["type"], one["id"], one["patient"], element["new"]) == ("Condition", changed.id, patient, "2001-01-01")
    assert listed["counts"]["Condition"]["changed"] == 1
    bare = site.run("diff", name, "1", "2", "--types", "Condition", "--json").stdout
    assert ("2001-01-01" in bare, '"pointer": "/recordedDate"' in bare) == (False, True)
    assert [one["action"] for one in site.run("audit", "--patient", patient, "--json").json["reads"]][-1] == "diff"


def test_runs_without_changes_do_not_differ_and_an_unknown_run_is_refused_by_name(site: Site) -> None:
    with mock("generic") as served:
        name = site.connect(served)
        site.sync()
        site.sync()
    same = site.run("diff", name, "1", "2")
    assert (same.code, same.stdout) == (4, "nothing differs\n")
    assert site.run("diff", name, "1", "2", "--json").json == {
        "connection": name,
        "from": 1,
        "to": 2,
        "differences": [],
        "counts": {},
        "status": "nothing",
    }
    unknown = site.run("diff", name, "1", "17")
    assert (unknown.code, unknown.stdout) == (2, "")
    assert "no run 17" in unknown.stderr
    assert "name an earlier run" in site.run("diff", name, "2", "1").stderr
