"""`./run histories [--seeds A-B]`: play many histories, print each that fails as small as it gets, and how many there were.

Goes on where it was stopped: seeds that this very code has played are not played again (`--again` does).
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from tests.histories.worker import Played, enter, played
from tests.passing_postgres import passing_postgres

DEFAULT = "1-1000"
ROOT = Path(__file__).resolve().parents[2]
PLAYED = ROOT / ".histories"  # a file a state of the code: "seed<tab>kind" of all that was played; no kind: right
PLAYS_TO_SHRINK = 150
CODE = ("config", "snapshots", "connectors", "tests/histories")


def say(line: str) -> None:
    """Write one line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _record() -> Path:
    """Where it stands what this state of the code has played."""
    digest = sha256()
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".sql"}:
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    PLAYED.mkdir(exist_ok=True)
    return PLAYED / f"{digest.hexdigest()[:12]}.tsv"


def _known(record: Path) -> dict[int, str]:
    lines = record.read_text().splitlines() if record.exists() else []
    return {int(seed): kind for seed, _, kind in (line.partition("\t") for line in lines)}


def _all(seeds: list[int], jobs: int, shrink: int) -> Iterator[Played]:
    with passing_postgres() as url:
        context = multiprocessing.get_context("spawn")
        with context.Pool(jobs, enter, (url, shrink)) as pool:
            yield from pool.imap_unordered(played, seeds)


def main() -> int:
    """Play the seeds; 1 when one of them failed, now or before."""
    parser = argparse.ArgumentParser(prog="./run histories", description=__doc__)
    parser.add_argument("--seeds", default=DEFAULT, metavar="A-B", help=f"default: {DEFAULT}")
    parser.add_argument("--again", action="store_true", help="also what was played before")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes; default: one a core"
    )
    parser.add_argument(
        "--shrink", type=int, default=PLAYS_TO_SHRINK, metavar="N", help="plays to make a failure smaller; 0: none"
    )
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    record = _record()
    known = {} if options.again else {seed: kind for seed, kind in _known(record).items() if seed in seeds}
    waiting = [seed for seed in seeds if seed not in known]
    began, kinds = time.monotonic(), collections.Counter(kind for kind in known.values() if kind)
    with record.open("a") as kept:
        for one in _all(waiting, options.jobs, options.shrink) if waiting else ():
            kept.write(f"{one.seed}\t{one.kind}\n")
            kept.flush()
            if one.kind:
                kinds[one.kind] += 1
                say(one.text)
    seconds = time.monotonic() - began
    say(
        f"{len(seeds)} histories, {len(waiting)} of them played now, in {seconds:.0f} s "
        f"({len(waiting) / max(seconds, 0.001):.1f} a second); {kinds.total()} failed"
    )
    for kind, count in kinds.most_common():
        say(f"{count:6}  {kind}")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
