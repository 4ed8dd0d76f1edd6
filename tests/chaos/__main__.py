"""`./run chaos [--seeds A-B]`: many voyages, one line each, and a summary. A seed that fails says how to repeat it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.chaos.voyage import ChaosError, CrashingPostgres, sailing
from tests.chaos.weather import weather

DEFAULT = "1-200"


def say(line: str) -> None:
    """Write one line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Sail every seed; 1 when one of them failed."""
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
            current = weather(seed)
            try:
                with sailing(current, postgres, folder) as ship:
                    voyage = ship.sail()
                kills, faults = kills + voyage.struck, faults + voyage.faults
                say(f"ok    {voyage}  ({current})")
            except Exception as exc:  # noqa: BLE001  the other seeds sail on
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
