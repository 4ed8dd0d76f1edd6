"""Each citation of a vendor fact leads to a section, a key and a fault that the pages have, and each section is cited."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/vendor-facts.md"
TEXT = PAGE.read_text()
CODE = ("config", "snapshots", "connectors", "exports", "cli", "cron", "mocks", "benchmarks", "tests")
PROFILES = sorted(path for path in (ROOT / "connectors/fhir/vendors").glob("*.py") if path.stem != "__init__")
PAGES = (*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("cron/*.md"), *ROOT.glob("docs/*.md"))

SECTIONS = dict(re.findall(r"^#{2,3} (\d+(?:\.\d+)?) (.*?)(?=^#{2,3} |\Z)", TEXT, re.MULTILINE | re.DOTALL))
SOURCES = set(re.findall(r"^\| ([A-Z][A-Z0-9]) \|", TEXT, re.MULTILINE))
FAULTS = set(re.findall(r"^\| (F\d+) \|", (ROOT / "docs/faults.md").read_text(), re.MULTILINE))

_NUMBER = r"\d+(?:\.\d+)?"
_SECTIONS_CITED = re.compile(rf"vendor-facts ({_NUMBER}(?:, {_NUMBER})*)")
_KEY = r"[A-Z][A-Z0-9]\b"
_KEYS_MARKED = re.compile(rf"\[[DRI]\] ({_KEY}(?:, {_KEY})*)")
_KEYS_WITH_SECTION = re.compile(rf"((?:\b{_KEY}, )+)vendor-facts")
_KEYS_IN_BRACKETS = re.compile(rf"\(({_KEY})\)")
# what any of the tests below looks for: a file without it need not be taken apart, which takes 5 ms a file
_MAY_CITE = re.compile(rf"vendor-facts|vendors\.md|\[[DRI]\]|\({_KEY}\)|\bF\d{{1,2}}\b")


class Remark(NamedTuple):
    """A comment (neighbouring lines are one) or a docstring: its place, and its words on one line."""

    where: str
    words: str

    @property
    def sections(self) -> set[str]:
        return {number for found in _SECTIONS_CITED.findall(self.words) for number in found.split(", ")}

    @property
    def keys(self) -> set[str]:
        found = [*_KEYS_MARKED.findall(self.words), *_KEYS_WITH_SECTION.findall(self.words)]
        bare = set(_KEYS_IN_BRACKETS.findall(self.words)) & SOURCES
        return bare.union(*(re.findall(_KEY, keys) for keys in found))


def _python(path: Path) -> Iterator[Remark]:
    name = path.relative_to(ROOT)
    lines: list[str] = []
    began = ended = 0
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            alone = token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
            if (
                lines
                and not (alone and token.start[0] == ended + 1)
                and token.type not in {tokenize.NL, tokenize.INDENT}
            ):
                yield Remark(f"{name}:{began}", " ".join(lines))
                lines = []
            if alone:
                began, ended = began if lines else token.start[0], token.start[0]
                lines.append(token.string.removeprefix("#").strip())
            elif token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
                yield Remark(f"{name}:{token.start[0]}", " ".join(token.string.split()))


def _sql(path: Path) -> Iterator[Remark]:
    for found in re.finditer(r"^[ \t]*--.*(?:\n[ \t]*--.*)*", path.read_text(), re.MULTILINE):
        yield Remark(str(path.relative_to(ROOT)), " ".join(found[0].replace("--", " ").split()))


@cache
def remarks() -> tuple[Remark, ...]:
    """All of the code's, those of this file excepted."""
    python = [path for top in CODE for path in (ROOT / top).rglob("*.py") if path != Path(__file__)]
    sql = [path for top in CODE for path in (ROOT / top).rglob("*.sql")]
    return (
        *(remark for path in python if _MAY_CITE.search(path.read_text()) for remark in _python(path)),
        *(remark for path in sql for remark in _sql(path)),
    )


def paragraphs() -> list[Remark]:
    """The pages' text, whole."""
    return [Remark(str(path.relative_to(ROOT)), " ".join(path.read_text().split())) for path in PAGES if path != PAGE]


def facts() -> list[tuple[str, str]]:
    """Section -> a bullet or a paragraph of it."""
    return [
        (number, " ".join(fact.split()))
        for number, text in SECTIONS.items()
        for fact in re.split(r"\n\n|\n(?=- )", text.split("\n", 1)[1])
        if fact.strip()
    ]


def values_without_evidence(source: str) -> list[str]:
    """Fields of a profile that have no confidence beside them, in the comments of their lines and those right above."""
    lines = ["", *source.splitlines()]
    found = []
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id.endswith("Profile")):
            continue
        for field in call.keywords:
            if isinstance(field.value, ast.Call):  # a group: its fields are looked at one by one
                continue
            first, last = field.lineno, field.value.end_lineno or field.lineno
            while lines[first - 1].lstrip().startswith("#"):
                first -= 1
            comments = " ".join(line.partition("#")[2] for line in lines[first : last + 1])
            if field.arg not in {"name", "label"} and not re.search(
                r"\[[DRI]\]|vendor-facts|R4|specification", comments
            ):
                found.append(str(field.arg))
    return found


def test_every_section_that_is_cited_is_on_the_page() -> None:
    cited = [(remark.where, number) for remark in (*remarks(), *paragraphs()) for number in sorted(remark.sections)]
    assert cited
    assert [citation for citation in cited if citation[1] not in SECTIONS] == []


def test_every_section_of_the_page_is_cited() -> None:
    cited = {number for remark in (*remarks(), *paragraphs()) for number in remark.sections}
    assert sorted(set(SECTIONS) - cited) == []


def test_every_cited_source_key_belongs_to_a_section_cited_with_it() -> None:
    cited = [(remark, key) for remark in remarks() for key in sorted(remark.keys)]
    assert cited
    lost = [
        (remark.where, key)
        for remark, key in cited
        if key not in SOURCES
        or not any(re.search(rf"\b{key}\b", SECTIONS.get(number, "")) for number in remark.sections)
    ]
    assert lost == []


def test_every_documented_or_reported_fact_names_its_source() -> None:
    assert [remark.where for remark in remarks() if re.search(r"\[[DR]\]", remark.words) and not remark.sections] == []


def test_every_cited_fault_is_a_row_of_the_faults_page() -> None:
    cited = [(remark.where, fault) for remark in remarks() for fault in re.findall(r"\bF\d{1,2}\b", remark.words)]
    assert cited
    assert [citation for citation in cited if citation[1] not in FAULTS] == []


def test_a_section_is_never_cited_by_another_name() -> None:
    other = re.compile(
        r"vendors\.md[`\"']?,? (?:sections? |§ ?|F)?\d|vendor-facts(?:\.md)?[`\"']?,? (?:sections? |§ ?|F\d)"
    )
    assert [remark.where for remark in (*remarks(), *paragraphs()) if other.search(remark.words)] == []


def test_every_key_on_the_page_is_in_its_table_and_every_key_of_the_table_is_used() -> None:
    used = {key for _, fact in facts() for found in _KEYS_MARKED.findall(fact) for key in found.split(", ")}
    assert used == SOURCES


@pytest.mark.parametrize("number", SECTIONS)
def test_every_fact_has_its_confidence_and_its_source(number: str) -> None:
    source = re.compile(rf"\[I\]|\[[DR]\] (?:{_KEY}|GitHub|no document was recorded)")
    of_section = [fact for section, fact in facts() if section == number]
    assert of_section
    assert [fact for fact in of_section if not source.search(fact)] == []


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_value_of_a_profile_has_its_evidence_beside_it(path: Path) -> None:
    assert "VendorProfile(" in path.read_text()
    assert values_without_evidence(path.read_text()) == []


def test_a_value_without_evidence_is_detected() -> None:
    search = "    search=SearchProfile(\n        page_size=50,\n        types=(\n        ),  # [I]\n    ),  # [I]\n"
    profile = f'X = VendorProfile(\n    name="x",\n    # [I]\n    mode="bulk",\n{search})\n'
    assert values_without_evidence(profile) == ["page_size"]
