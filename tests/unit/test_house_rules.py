"""The rules of CONTRIBUTING that a machine can hold: purity, what SQL reads, where vendors are named, how long is long."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from connectors.fhir.vendors import PROFILES

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


PURE = [path for path in MODULES if is_pure(path)]


def test_there_are_pure_modules_to_hold_to_it() -> None:
    assert len(PURE) > 30


@pytest.mark.parametrize("path", PURE, ids=name)
def test_a_module_that_says_it_is_pure_knows_neither_clock_nor_chance_nor_io(path: Path) -> None:
    module = tree(path)
    assert IMPURE.isdisjoint(one.partition(".")[0] for one in imported(module))
    calls = {ast.unparse(node.func) for node in ast.walk(module) if isinstance(node, ast.Call)}
    assert not [call for call in calls if IMPURE_CALLS.search(call)]


def test_no_module_is_in_a_circle_with_others() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    try:
        TopologicalSorter({one: graph.find_modules_directly_imported_by(one) for one in graph.modules}).prepare()
        circle = []
    except CycleError as error:
        circle = error.args[1]
    assert circle == []


@pytest.mark.parametrize("path", SQL, ids=name)
def test_sql_decides_nothing_by_a_reason_and_takes_no_key_or_detail_apart(path: Path) -> None:
    statements = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("--"))
    by_reason = re.findall(
        r"\breason\s+(?:NOT\s+)?(?:LIKE|ILIKE|SIMILAR|IN)\b|\breason\s*(?:~|<>|!=)|(?:WHERE|AND|OR|WHEN)\s+\w*\.?reason\s*=",
        statements,
    )
    apart = re.findall(r"split_part\(\s*(?:\w+\.)?(?:key|unit_key)\b|\b(?:detail|asked)\s*-?#?>>?\s*'", statements)
    assert (by_reason, apart) == ([], [])


# beside the words of the vendors' own names; "generic" and "va" are words of their own
VENDOR_WORDS = ({*PROFILES} | {"veradigm", "oracle"}) - {"generic", "va"}
# whose subject vendors are: their data, their mocks, and the four that the demo shows
OF_VENDORS = {"vendors", "manners", "mocks", "demo.py"}


@pytest.mark.parametrize(
    "path", [one for one in MODULES if OF_VENDORS.isdisjoint(one.relative_to(ROOT).parts)], ids=name
)
def test_code_decides_nothing_by_a_vendors_name(path: Path) -> None:
    module = tree(path)
    prose = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    compared = [node for node in ast.walk(module) if isinstance(node, ast.Compare | ast.Dict | ast.Set | ast.Match)]
    words = {
        each.value.lower()
        for node in compared
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in prose
    }
    names = {node.id.lower() for node in ast.walk(module) if isinstance(node, ast.Name)}
    assert not words & {*PROFILES}
    assert not [one for one in names if VENDOR_WORDS & set(one.strip("_").split("_"))]


# what only one kind of source has
OF_A_SOURCE = {"fhir", "http", "ehr", "oauth", "token", "status", "codes", "bundle", "url", "bulk", "crawl"}


@pytest.mark.parametrize("path", sorted((ROOT / "connectors/core").glob("*.py")), ids=name)
def test_the_core_has_no_word_of_one_kind_of_source(path: Path) -> None:
    used: set[str] = set()
    for node in ast.walk(tree(path)):
        used |= {
            getattr(node, part) for part in ("id", "attr", "arg", "name") if isinstance(getattr(node, part, None), str)
        }
    words = {word.lower() for one in used for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", one)}
    assert words & OF_A_SOURCE == set()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_function_is_read_at_a_glance(path: Path) -> None:
    assert [one for one in functions(path) if one[1] > LONGEST_FUNCTION] == []


def undocumented(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from undocumented(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield from [] if ast.get_docstring(node) else [node.name]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_public_function_says_what_it_guarantees(path: Path) -> None:
    assert list(undocumented(tree(path).body)) == []


def test_what_tests_share_is_in_a_module_of_its_own() -> None:
    from_tests = [
        f"{name(path)}: {module}"
        for path in (ROOT / "tests").rglob("*.py")
        for module in imported(tree(path))
        if module.startswith("tests.") and module.rpartition(".")[2].startswith("test_")
    ]
    assert from_tests == []


def test_lower_tiers_of_tests_import_nothing_from_higher_ones() -> None:
    upwards = [
        f"{name(path)}: {module}"
        for tier, above in (("unit", ("integration",)), ("integration", ("acceptance",)))
        for path in (ROOT / "tests" / tier).rglob("*.py")
        for module in imported(tree(path))
        for other in above
        if module.startswith(f"tests.{other}")
    ]
    assert upwards == []
