from __future__ import annotations

from pathlib import Path

from cli.mock_serve import _mock_config


def test_the_seed_of_a_fault_script_leaves_the_patients_as_they_are(tmp_path: Path) -> None:
    script = tmp_path / "faults.toml"
    script.write_text("seed = 9\n[[rules]]\naction = { status = 503 }\n")
    found = _mock_config(
        vendor="epic", data=None, patients=2, seed=3, faults=script, open_=True, jwks=None, latency_ms=0
    )
    assert (found.seed, found.fault_seed) == (3, 9)
