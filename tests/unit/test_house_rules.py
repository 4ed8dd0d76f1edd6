"""The rules of CONTRIBUTING that a machine can hold: purity, what SQL reads, where vendors are named, how long is long."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from connectors.fhir.vendors import PROFILES
from snapshots.migrate import migrations
from snapshots.unit import UnitKind

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "snapshots", "connectors", "exports", "cli", "cron", "mocks")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SQL = sorted((ROOT / "snapshots/sql").glob("*.sql"))
# what a pure module has no business with: the clock, chance, the machine, the network, the loop
IMPURE = frozenset(
    {"aiohttp", "anyio", "asyncio", "fcntl", "httpx", "os", "psycopg", "random", "secrets", "shutil", "signal", "socket",
     "ssl", "subprocess", "sys", "tempfile", "tenacity", "threading", "time", "uuid"}
)  # fmt: skip
IMPURE_CALLS = re.compile(r"(^|\.)(now|utcnow|today|open|read_text|read_bytes|write_text|write_bytes|mkdir|unlink)$")
LONGEST_FUNCTION = 60  # lines, with its parameters and docstring


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def is_pure(path: Path) -> bool:
    return re.search(r"\bPure\b", ast.get_docstring(tree(path)) or "") is not None


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def in_files(paths: Iterable[Path], wrong: Callable[[Path], Iterable[str]]) -> list[str]:
    """What is wrong, with its file. A test for each file and rule would be 1,500 tests, which every process has to collect."""
    return [f"{name(path)}: {one}" for path in paths for one in wrong(path)]


def impure(module: ast.Module) -> Iterator[str]:
    yield from (one for one in imported(module) if one.partition(".")[0] in IMPURE)
    calls = (ast.unparse(node.func) for node in ast.walk(module) if isinstance(node, ast.Call))
    yield from (call for call in calls if IMPURE_CALLS.search(call))


def test_a_module_that_calls_itself_pure_uses_no_clock_randomness_or_io() -> None:
    pure = [path for path in MODULES if is_pure(path)]
    assert len(pure) > 30
    assert in_files(pure, lambda path: impure(tree(path))) == []


def test_there_are_no_import_cycles() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    try:
        TopologicalSorter({one: graph.find_modules_directly_imported_by(one) for one in graph.modules}).prepare()
        circle = []
    except CycleError as error:
        circle = error.args[1]
    assert circle == []


BY_REASON = (
    r"\breason\s+(?:NOT\s+)?(?:LIKE|ILIKE|SIMILAR|IN)\b|\breason\s*(?:~|<>|!=)|(?:WHERE|AND|OR|WHEN)\s+\w*\.?reason\s*="
)
APART = r"split_part\(\s*(?:\w+\.)?(?:key|unit_key)\b|\b(?:detail|asked)\s*-?#?>>?\s*'"


@pytest.mark.parametrize("pattern", [BY_REASON, APART], ids=["by_reason", "apart"])
def test_sql_decides_nothing_by_a_reason_and_parses_no_key_or_detail(pattern: str) -> None:
    def statements(path: Path) -> str:
        return "\n".join(line for line in path.read_text().splitlines() if not line.startswith("--"))

    assert in_files(SQL, lambda path: re.findall(pattern, statements(path))) == []


OF_KINDS = re.compile(r"(?<!rel)kind\s*(?:=|<>)\s*('[a-z-]+')|(?<!rel)kind\s+(?:NOT\s+)?IN\s*\(([^)]*)\)")
OF_RUNS = {"sync", "pull"}


def quoted(sql: str) -> set[str]:
    return set(re.findall(r"'([a-z-]+)'", sql))


def test_sql_compares_a_units_kind_with_typed_kinds_and_the_store_takes_no_others() -> None:
    typed = {one.value for one in UnitKind}
    compared = {word for path in SQL for found in OF_KINDS.findall(path.read_text()) for word in quoted("".join(found))}
    (checked,) = [one.statements for one in migrations() if one.name == "unit_kind"]
    assert (compared - typed - OF_RUNS, quoted(checked)) == (set(), typed)


# besides the words in the vendors' names; "generic" and "va" have other meanings
VENDOR_WORDS = ({*PROFILES} | {"veradigm", "oracle"}) - {"generic", "va"}
# whose subject vendors are: their data, their mocks, and the four that the demo shows
OF_VENDORS = {"vendors", "manners", "mocks", "demo.py"}


def vendors_in(module: ast.Module) -> set[str]:
    prose = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    compared = [node for node in ast.walk(module) if isinstance(node, ast.Compare | ast.Dict | ast.Set | ast.Match)]
    words = {
        each.value.lower()
        for node in compared
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in prose
    }
    names = {node.id.lower() for node in ast.walk(module) if isinstance(node, ast.Name)}
    return words & {*PROFILES} | {one for one in names if VENDOR_WORDS & set(one.strip("_").split("_"))}


def test_code_decides_nothing_by_a_vendors_name() -> None:
    paths = [one for one in MODULES if OF_VENDORS.isdisjoint(one.relative_to(ROOT).parts)]
    assert in_files(paths, lambda path: vendors_in(tree(path))) == []


# what only one kind of source has
OF_A_SOURCE = {"fhir", "http", "ehr", "oauth", "token", "status", "codes", "bundle", "url", "bulk", "crawl"}


def words_in(path: Path) -> set[str]:
    used: set[str] = set()
    for node in ast.walk(tree(path)):
        used |= {
            getattr(node, part) for part in ("id", "attr", "arg", "name") if isinstance(getattr(node, part, None), str)
        }
    return {word.lower() for one in used for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", one)}


def test_the_core_names_no_particular_kind_of_source() -> None:
    assert in_files((ROOT / "connectors/core").glob("*.py"), lambda path: words_in(path) & OF_A_SOURCE) == []


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_a_function_is_read_at_a_glance() -> None:
    assert in_files(MODULES, lambda path: [one for one, lines in functions(path) if lines > LONGEST_FUNCTION]) == []


def undocumented(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from undocumented(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield from [] if ast.get_docstring(node) else [node.name]


def test_a_public_function_says_what_it_guarantees() -> None:
    assert in_files(MODULES, lambda path: undocumented(tree(path).body)) == []


def imported_from_tests(folder: str, mark: str) -> Iterator[tuple[Path, str]]:
    """What tests of a folder import of the tests; only files that have the mark somewhere are taken apart."""
    for path in (ROOT / "tests" / folder).rglob("*.py"):
        if mark in path.read_text():
            yield from ((path, module) for module in imported(tree(path)) if module.startswith("tests."))


def test_code_shared_by_tests_is_in_a_module_of_its_own() -> None:
    found = imported_from_tests("", ".test_")
    assert [(name(path), one) for path, one in found if one.rpartition(".")[2].startswith("test_")] == []


@pytest.mark.parametrize(("tier", "above"), [("unit", "tests.integration"), ("integration", "tests.acceptance")])
def test_lower_tiers_of_tests_import_nothing_from_higher_ones(tier: str, above: str) -> None:
    assert [(name(path), one) for path, one in imported_from_tests(tier, above) if one.startswith(above)] == []
