"""`python -m tests.histories.mutants [NAME …]`: play histories against a product that is broken on purpose; what notices it?

A mutant is one piece of the product's text put in another's place, in a copy of the tree in a temporary folder; the twist
beside it is forced on every history. It prints after how many histories, and by which clause, the oracle noticed. A twist that
notices no mutant guards nothing.

Histories until it was noticed, seeds from 1, when all were last played: slipped 3, clock_back 52, clock_behind 7, batches 55,
out_and_back 1, follow 1, since 5 and 4, unserved 52, shared 3, categories 12 and 9, Unnarrowed 11, filter 8 and 29, until 43 and
7, elements 1, 1 and 56, LostFile 6, LostJob 1, pruned 1 and 1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.histories.director import untwisted
from tests.histories.stage import Stage
from tests.histories.twists import forced
from tests.passing_postgres import passing_postgres

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("config", "snapshots", "connectors", "exports", "tests")
HISTORIES = 300  # of a mutant, at most


class Mutant(NamedTuple):
    """What stands once in a file becomes something else; in two files, where the product has a second defence."""

    twist: str
    path: str
    old: str
    new: str
    also: tuple[str, str, str] | None = None

    @property
    def edits(self) -> list[tuple[str, str, str]]:
        return [(self.path, self.old, self.new), *([self.also] if self.also else [])]


_STEPS, _SYNC = "connectors/fhir/bulk/steps.py", "connectors/fhir/sync.py"
_KICK_OFF, _EXPORT_JOB = "connectors/fhir/bulk/kick_off.py", "connectors/fhir/bulk/export_job.py"
_STRICT = ("connectors/fhir/ways.py", "WayScope.EVERYTHING, strict=not narrowed)", "WayScope.EVERYTHING, strict=True)")
MUTANTS = {
    "totals are not compared with what came": Mutant(
        "slipped", "connectors/fhir/search/paging.py", "        if total is None:\n", "        if True:\n"
    ),
    "a watermark ahead of the clocks is believed": Mutant(
        "clock_back",
        _SYNC,
        "if any(found is not None and found > latest",
        "if any(found is None and found > latest",
        (_STEPS, "    await _heed_clock(run, job)\n", ""),
    ),
    "a crawl's watermark goes past the newest date that came": Mutant(
        "clock_behind", "snapshots/closing.py", "    if earned.overlap is None:\n", "    if True:\n"
    ),
    "patients are asked for in batches whatever is declared": Mutant(
        "batches", "connectors/fhir/search/units.py", 'or (declared and "_id" not in declared)', ""
    ),
    "a Group that can be read again is no reason to ask for everything": Mutant(
        "out_and_back",
        "connectors/fhir/bulk/export_since.py",
        "    if not await run.store.roster.missed_members():\n",
        "    if True:\n",
    ),
    "references are not followed": Mutant(
        "follow",
        "connectors/fhir/linked/references.py",
        "for depth in range(profile.references.depth):",
        "for depth in range(0):",
    ),
    "--since INSTANT asks for news since the last run": Mutant(
        "since", _SYNC, 'if request.since != "auto":', 'if request.since == "never":'
    ),
    "a watermark moves past a gap that --since INSTANT left": Mutant(
        "since",
        "snapshots/closing.py",
        "    return since is None or (watermark is not None and (since == watermark or is_older(since, watermark)))\n",
        "    return True\n",
    ),
    "a type that is neither exported nor declared is empty": Mutant(
        "unserved",
        "connectors/fhir/bulk/silent_types.py",
        'if not declared - {"Patient", "Group"} or "*" in with_file:',
        "if declared:",
    ),
    "a row is in one chart alone": Mutant(
        "shared",
        "connectors/fhir/patients/membership.py",
        "return next(iter(found)), tuple(found)[1:]",
        "return next(iter(found)), ()",
    ),
    "only the first of a type's categories is asked for": Mutant(
        "categories",
        "connectors/fhir/search/units.py",
        'profile.search.splits.get(t, ("",)) for t',
        'profile.search.splits.get(t, ("",))[:1] for t',
    ),
    "a row that is of another category now is a listing's gap": Mutant(
        "categories", "snapshots/fates.py", "    if one.elsewhere:\n        return Fate.MOVED\n", ""
    ),
    "a row that names nobody is the searched patient's, whomever the server heeded": Mutant(
        "Unnarrowed",
        "connectors/fhir/search/gathering.py",
        "whose = self._unit.patient_id if is_whole and not self._tally.of_others else None",
        "whose = self._unit.patient_id",
    ),
    "a filtered export shows what is gone": Mutant(
        "filter", _KICK_OFF, " or resource_type in self.filtered", "", also=_STRICT
    ),
    "a filtered export has the watermarks of a whole one": Mutant(
        "filter", "config/bulk_options.py", "if not self.type_filters and not self.elements:", "if True:"
    ),
    "an export until an instant moves watermarks past it": Mutant(
        "until", _STEPS, "    if until is None:\n", "    if True:\n"
    ),
    "an export until an instant misses what has changed since": Mutant(
        "until",
        _KICK_OFF,
        "return self.until is not None or resource_type in self.filtered",
        "return resource_type in self.filtered",
        also=_STRICT,
    ),
    "a part of a resource replaces the whole": Mutant(
        "elements", "snapshots/ingest.py", "    if any(record.subsetted for record in records):\n", "    if False:\n"
    ),
    "an export of elements has the watermarks of a whole one": Mutant(
        "elements",
        "config/bulk_options.py",
        "if not self.type_filters and not self.elements:",
        "if not self.type_filters:",
    ),
    "a file that cannot be had is empty": Mutant(
        "LostFile",
        "connectors/fhir/bulk/download.py",
        "            if error.status not in _EXPIRED:\n                raise\n",
        "            from snapshots.unit import UnitState\n"
        "            return UnitResult(key=unit.key, state=UnitState.SETTLED)\n",
    ),
    "a job that is lost was an export of nothing": Mutant(
        "LostJob",
        _EXPORT_JOB,
        "            reply, status = await self._poll(job, url)\n            if status",
        "            try:\n"
        "                reply, status = await self._poll(job, url)\n"
        "            except TerminalFetchError:\n"
        "                job = replace(job, manifest_complete=True)\n"
        "                await self._store.jobs.save(job)\n"
        "                return job\n"
        "            if status",
    ),
    "what an export read by id is a part like its files": Mutant(
        "elements",
        "snapshots/ingest.py",
        "if state.has_parts and whole:",
        "if False:",
    ),
    "units that later runs need are pruned": Mutant(
        "pruned",
        "snapshots/sql/retention.sql",
        "AND run.id NOT IN (SELECT run FROM needed) AND",
        "AND",
    ),
    "evidence goes with what is pruned": Mutant(
        "pruned",
        "snapshots/sql/retention.sql",
        "WITH rows AS (DELETE FROM resource_history WHERE to_run = %(run)s RETURNING 1),",
        "WITH evident AS (DELETE FROM evidence), rows AS (DELETE FROM resource_history WHERE to_run = %(run)s RETURNING 1),",
    ),
}


def main() -> int:
    """Play the mutants; 1 when one of them was not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of mutants or twists; default: all")
    parser.add_argument(
        "--most", type=int, default=HISTORIES, metavar="N", help=f"histories of each; default: {HISTORIES}"
    )
    options = parser.parse_args()
    missed = 0
    for name, mutant in MUTANTS.items():
        if options.names and not {name, mutant.twist} & {*options.names}:
            continue
        with tempfile.TemporaryDirectory() as folder:
            _copy_broken(mutant, Path(folder))
            code = [sys.executable, "-c", _PLAY, mutant.twist, str(options.most)]
            played = subprocess.run(code, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        number, seed, kind = json.loads(played.stdout)
        # what falls without the mutant too shows nothing
        falls_anyway = kind and _fallen(mutant.twist, range(seed, seed + 1), 1)[2]
        missed += not kind or bool(falls_anyway)
        found = f"{number}, {kind}" if kind else f"not noticed by {number}"
        sys.stdout.write(f"{mutant.twist}: {name}: {found}{', but so it does unbroken' if falls_anyway else ''}\n")
        sys.stdout.flush()
    return 1 if missed else 0


_PLAY = "import sys; from tests.histories.mutants import play; play(sys.argv[1], int(sys.argv[2]))"


def play(twist: str, most: int) -> None:
    """In the broken copy: print how many histories with the twist were played, the last seed, and the clause that fell, or ""."""
    sys.stdout.write(json.dumps(_fallen(twist, range(1, most * 20), most)))


def _fallen(twist: str, seeds: Iterable[int], most: int) -> tuple[int, int, str]:
    number = seed = 0
    with passing_postgres() as url:
        stage = Stage(url, "mutant")
        for seed in seeds:
            made = forced(untwisted(seed), twist, seed)
            if made is None:
                continue
            number += 1
            failure, _ = stage.play(made)
            if failure is not None or number == most:
                return number, seed, failure.kind if failure else ""
    return number, seed, ""


def _copy_broken(mutant: Mutant, folder: Path) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, old, new in mutant.edits:
        (folder / path).write_text((folder / path).read_text().replace(old, new))


if __name__ == "__main__":
    sys.exit(main())
