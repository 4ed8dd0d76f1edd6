"""An analyst reads charts with psql, each morning after the sync."""

from __future__ import annotations

import psycopg

from tests.user_site import Site, mock, source


def keys(store_url: str) -> set[str]:
    with psycopg.connect(store_url) as conn:
        return {row[0] for row in conn.execute("SELECT key FROM tenant_default.condition")}


def test_materialised_views_are_refreshed_after_each_sync_on_request(site: Site, store_url: str) -> None:
    with mock("generic", patients=2) as served:
        site.connect(served)
        site.sync()
        created = site.run("views", "create", "condition", "--materialized", "--json")
        assert created.json["created"][0]["name"] == "condition"
        assert keys(store_url) == {id_ for _, id_ in source(served, ["Condition"])}
        served.dataset.delete("Condition", served.dataset.of_type("Condition")[0].id)
        site.sync()
        assert keys(store_url) > {id_ for _, id_ in source(served, ["Condition"])}
        path = site.folder / "chartferry.toml"
        path.write_text(path.read_text() + "\n[export]\nrefresh_views = true\n")
        site.sync()
        assert keys(store_url) == {id_ for _, id_ in source(served, ["Condition"])}
    assert "condition" in site.run("views", "drop", "condition").stdout
    assert site.run("views", "refresh").code == 4


def test_a_set_of_views_is_created_by_its_name_and_doubts_about_a_view_are_told(site: Site) -> None:
    (site.folder / "mine.json").write_text(
        '{"name": "mine", "resource": "Patient", "select": [{"column": [{"name": "c", "path": "gendr"}]}]}'
    )
    with mock("generic", patients=1) as served:
        site.connect(served)
        site.sync()
    created = site.run("views", "create", "omop", str(site.folder / "mine.json"), "--json")
    assert {"omop_person", "mine"} < {view["name"] for view in created.json["created"]}
    assert "Patient has no element 'gendr' in R4 (did you mean 'gender'?)" in created.stderr
