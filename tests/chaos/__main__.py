"""`./run chaos [--seeds A-B]`: many trials, one line each, and a summary. A seed that fails says how to repeat it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.chaos.trial import trial_of
from tests.chaos.trial_run import ChaosError, CrashingPostgres, prepared

DEFAULT = "1-200"


def say(line: str) -> None:
    """Write one line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the trial of every seed; 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="./run chaos", description=__doc__)
    parser.add_argument("--seeds", default=DEFAULT, metavar="A-B", help=f"default: {DEFAULT}")
    first, _, last = parser.parse_args().seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    began, failed, kills, faults = time.monotonic(), [], 0, 0
    root = Path(tempfile.mkdtemp(prefix="cf-"))
    try:
        postgres = CrashingPostgres(root / "pg")
        for seed in seeds:
            folder = root / str(seed)
            folder.mkdir()
            current = trial_of(seed)
            try:
                with prepared(current, postgres, folder) as running:
                    outcome = running.run_all()
                kills, faults = kills + outcome.killed, faults + outcome.faults
                say(f"ok    {outcome}  ({current})")
            except Exception as exc:  # noqa: BLE001  the other seeds go on
                failed.append(seed)
                say(f"FAIL  seed {seed}: {current}\n      {exc}\n      repeat: ./run chaos --seeds {seed}")
                if not isinstance(exc, ChaosError):
                    traceback.print_exc()
            shutil.rmtree(folder, ignore_errors=True)
        postgres.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    say(
        f"{len(seeds) - len(failed)} of {len(seeds)} seeds ended with exactly the source, in {time.monotonic() - began:.0f} s;"
        f" {faults} faults, {kills} kills" + (f"; failed: {', '.join(map(str, failed))}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
