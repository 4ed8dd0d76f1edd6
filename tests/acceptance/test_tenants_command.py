"""An operator makes, lists, migrates and deletes tenants."""

from __future__ import annotations

import psycopg

from tests.user_site import Site


def test_an_operator_creates_lists_migrates_and_deletes_a_tenant(site: Site, store_url: str) -> None:
    assert site.run("tenants", "add", "mercy").stdout == "made tenant mercy\n"
    assert site.run("tenants", "add", "mercy").code == 4
    assert site.run("tenants", "add", "Mercy").code == 5
    listed = site.run("tenants", "list", "--json").json["tenants"]
    assert [(one["name"], one["current"]) for one in listed] == [("default", True), ("mercy", True)]
    with psycopg.connect(store_url) as conn:
        conn.execute("ALTER TABLE tenant_mercy.run DISABLE ROW LEVEL SECURITY")
        conn.execute("INSERT INTO tenant_default.schema_migration (version, name) VALUES (9999, 'from the future')")
    assert "migrate is due" in site.run("tenants", "list").stdout
    done = site.run("tenants", "migrate", "--json")
    assert (done.code, done.json["migrated"], [one["tenant"] for one in done.json["failed"]]) == (
        3,
        ["mercy"],
        ["default"],
    )
    kept = site.run("tenants", "drop", "mercy")
    assert (kept.code, "repeat it with --yes" in kept.stderr) == (2, True)
    assert site.run("tenants", "drop", "mercy", "--yes").stdout == "deleted tenant mercy\n"
    assert [one["name"] for one in site.run("tenants", "list", "--json").json["tenants"]] == ["default"]
