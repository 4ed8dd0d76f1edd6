"""What the pages say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from cli.command_line import command
from cli.exit_codes import ExitCode
from connectors.fhir.profile import VendorProfile
from connectors.fhir.vendors import PROFILES
from exports.catalogue import builtin_names

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("benchmarks", "cli", "config", "connectors", "cron", "exports", "mocks", "snapshots", "tests")
PAGES = (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("cron/*.md"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The relative links of a page whose file or heading does not exist."""
    found = []
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def test_every_link_between_pages_leads_to_a_heading() -> None:
    assert {page.name: broken_links(page) for page in PAGES if broken_links(page)} == {}


def test_every_module_that_a_page_names_exists() -> None:
    files = [f"/{path.relative_to(ROOT)}" for top in PARTS for path in (ROOT / top).rglob("*")]
    named = {(page.name, name) for page in PAGES for name in re.findall(r"`([\w./-]+\.(?:py|sql))`", page.read_text())}
    lost = {(page, name) for page, name in named if not any(file.endswith(f"/{name}") for file in files)}
    assert {one for one in lost if one[0] != "vendor-facts.md"} == set()  # that page names other projects' files


def row(page: str, first: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def of_vendors(page: str, first: str) -> list[tuple[VendorProfile, str]]:
    """What a row of a page's table says of each vendor; the table has a column for each of them."""
    text = (ROOT / page).read_text()
    names = row(text, "vendor")
    assert sorted(names) == sorted(PROFILES)
    return [(PROFILES[name], cell) for name, cell in zip(names, row(text, first), strict=True)]


def test_the_vendor_table_shows_the_profiles_limits() -> None:
    for profile, cell in of_vendors("docs/vendors.md", "requests at a time"):
        assert re.match(rf"{profile.limits.max_concurrency}\b", cell)


def test_the_vendor_table_shows_the_profiles_mode() -> None:
    modes = {"crawl": "crawl", "bulk": "bulk", "auto": "bulk if declared"}
    for profile, cell in of_vendors("docs/vendors.md", "mode"):
        assert cell.startswith(modes[profile.mode])


def test_every_exit_code_is_documented() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    for code in ExitCode:
        assert row(page, str(int(code)))


def test_every_built_in_view_is_documented() -> None:
    page = (ROOT / "docs/views.md").read_text()
    assert [name for name in builtin_names() if f"`{name}`" not in page] == []


def test_every_command_in_the_readme_exists() -> None:
    commands = set(command().commands)
    named = set(re.findall(r"^\.venv/bin/chartferry (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= commands


def test_every_dependency_has_its_reason() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    listed = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert listed is not None
    names = re.findall(r'"([A-Za-z0-9._-]+)', listed[1])
    assert [name for name in names if name not in page] == []


def test_the_page_on_proofs_says_how_each_vendor_is_counted() -> None:
    for profile, cell in of_vendors("docs/prove.md", "number"):
        query = profile.completeness.count_query
        assert (f"`{query}`" in cell) if query else cell.startswith("none")
