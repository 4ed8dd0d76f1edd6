"""An analyst may read the store, and not who its patients are; in an emergency somebody sees it all the same."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

from tests.user_site import Site, csv_rows, mock, source

KEY = base64.b64encode(bytes([1]) * 32).decode()


def patients(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in gzip.decompress((folder / "Patient.ndjson.gz").read_bytes()).splitlines()]


def test_a_reader_without_a_permitted_role_gets_masks_and_breaking_the_glass_is_audited(
    site: Site,
) -> None:
    site.encrypt(KEY, shown_to=["care"])
    site.add('[roles]\ncare = ["ana"]\n')
    with mock("generic", patients=1) as served:
        site.connect(served)
        site.sync()
        (person,) = source(served, ["Patient"]).values()
    out = site.folder / "out"
    done = site.run("export", "--out", "out", "--as", "ben")
    assert (done.code, "ben sees *** in place of encrypted values (shown to: care)" in done.stderr) == (0, True)
    (masked,) = patients(out)
    assert (masked["birthDate"], masked["gender"], masked["id"]) == ("***", person["gender"], person["id"])
    assert {one["family"] for one in masked["name"]} == {"***"}  # type: ignore[attr-defined]
    (row,) = csv_rows(out / "patient.csv.gz")
    assert (row["family_name"], row["birth_date"], row["gender"]) == ("***", "", person["gender"])
    stated = json.loads((out / "manifest.json").read_bytes())["masked"]
    assert (stated["mask"], {"family_name", "birth_date"} <= {*stated["columns"]["patient"]}) == ("***", True)
    for words in (("--publish", "new/set"), ("--to", "postgresql://nobody@localhost:1/none", "--format", "postgres")):
        refused = site.run("export", *words, "--as", "ben")
        assert (refused.code, "masked for you" in refused.stderr) == (2, True), refused.stderr
    assert not (site.folder / "new").exists()
    broken = site.run("export", "--out", "out", "--as", "ben", "--break-glass", "unconscious, ward 3")
    assert (broken.code, "BREAK-GLASS: ben is in no role that sees encrypted values" in broken.stderr) == (0, True)
    assert patients(out) == [person]
    assert "masked" not in json.loads((out / "manifest.json").read_bytes())
    seen = site.run("export", "--out", "out", "--as", "ana", "--break-glass", "not needed")
    assert (seen.code, "BREAK-GLASS" in seen.stderr, patients(out)) == (0, False, [person])
    reads = site.run("audit", "--patient", person["id"], "--json").json["reads"]
    assert [one["broke_glass"] for one in reads if one["action"] == "export"] == [None, "unconscious, ward 3", None]
    assert "BREAK-GLASS: unconscious, ward 3" in " ".join(site.run("audit", "--patient", person["id"]).stdout.split())
    events = site.run("audit", "export", "--out", "-").stdout.splitlines()
    purposes = [json.loads(line).get("purposeOfEvent", [{}])[0].get("coding", [{}])[0].get("code") for line in events]
    assert purposes.count("BTG") == 1
    assert site.run("audit", "verify").code == 0
