"""The fault script that the docs show."""

from __future__ import annotations

import re
from pathlib import Path

from mocks.faults import read_script

PAGE = Path(__file__).resolve().parents[3] / "docs/mocks.md"


def test_the_fault_script_in_the_docs_is_valid(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    script = tmp_path / "faults.toml"
    script.write_text(found[1])
    assert [rule.match.purpose for rule in read_script(script).rules] == ["search", "file", "token"]
