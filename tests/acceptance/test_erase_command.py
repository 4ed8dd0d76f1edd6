"""A patient asks to be forgotten."""

from __future__ import annotations

from tests.user_site import Site, mock


def test_a_patient_is_erased_and_the_others_charts_are_exported_as_before(site: Site) -> None:
    with mock("generic", patients=3) as served:
        name = site.connect(served)
        site.sync()
        who, *others = served.patient_ids
        kept = site.run("erase", name, who)
        assert (kept.code, "repeat it with --yes" in kept.stderr) == (2, True)
        done = site.run("erase", name, who, "--yes", "--reason", "request 17", "--json")
        assert (done.code, done.json["status"]) == (0, "complete")
        assert done.json["rows"]["resource"] > 1
        assert site.run("erase", name, who, "--yes").code == 4
        assert site.run("pull", name, who, "--stored", "--out", str(site.folder / "gone.ndjson.gz")).code == 4
        assert site.run("pull", name, others[0], "--stored", "--out", str(site.folder / "kept.ndjson.gz")).code == 0
        (event,) = site.run("audit", "--patient", who, "--json").json["reads"]
        assert (event["action"], event["reason"], event["erased"]) == ("erase", "request 17", done.json["rows"])
        assert site.run("audit", "verify").code == 0
