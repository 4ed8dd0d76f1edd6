"""The report of a finished export: a table of its files and notes about them, or JSON."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from cli.render import number, print_line, print_table, size
from config.how_many import how_many
from exports.delivery.files import DeliveredFile
from exports.delivery.manifest import instant, states
from exports.run import ExportResult

_FORMS = (".csv", ".parquet", "")  # suffixes that mark files of tables; the last one marks a file of all tables


def result_as_json(result: ExportResult) -> dict[str, object]:
    """Return what `export --json` prints."""
    return {
        "status": "complete" if result.rows else "nothing",
        "out": result.out,
        "as_of": instant(result.as_of),
        "runs": [one.run for one in result.runs],
        "states": states(result.runs),
        "not_included": [
            {"run": one.run, "connection": one.connection, "began": instant(one.began)} for one in result.not_included
        ],
        "rows": result.rows,
        "notes": list(result.notes),
        "drift": [asdict(one) for one in result.drift],
        "undecided": dict(result.undecided),
        **({} if result.profile is None else {"profile": dict(result.profile)}),
        **({} if result.recipients is None else {"encrypted_to": list(result.recipients.public_keys)}),
        "files": [asdict(file) for file in result.files],
    }


def print_result(result: ExportResult) -> None:
    """Print the files with their rows and the sizes of their content and of the files."""
    rows = [
        (f"{result.out}/{file.path}", number(file.rows), size(file.uncompressed_bytes), size(file.bytes))
        for file in result.files
    ]
    print_table(("file", "rows#", "content#", "on disk#"), rows)
    runs = _states(result)
    word = "run" if len(result.runs) == 1 else "runs"
    of = f"{word} {runs}, as of {result.as_of.isoformat()}" if runs else "no run has ended yet"
    print_line(f"{result.out}/manifest.json: counts and checksums; {of}")
    if result.not_included:
        runs_named = ", ".join(f"run {one.run} of {one.connection}" for one in result.not_included)
        print_line(f"not included: {runs_named}, which {'has' if len(result.not_included) == 1 else 'have'} not ended")
    for line in (
        *result.notes,
        *odd_value_lines(result.files),
        *_column_lines(result),
        *_profile_lines(result),
        *_recipient_lines(result),
    ):
        print_line(line)
    if not result.rows:
        print_line("the store has nothing that matches the request: `chartferry runs` shows what was fetched")


def _column_lines(result: ExportResult) -> list[str]:
    """Say which columns have drifted, and what no criterion could decide."""
    lines = [f"columns differ from the last export here: {one}" for one in result.drift]
    if result.undecided:
        resources = ", ".join(f"{name} {number(count)}" for name, count in result.undecided.items())
        lines.append(f"left out, because --where met a value of another type and could not decide: {resources}")
    return lines


def _profile_lines(result: ExportResult) -> list[str]:
    """Say by what the files were de-identified, and how much was left out."""
    if result.profile is None:
        return []
    elements, resources = (sum(result.profile[key].values()) for key in ("dropped", "left_out"))
    types = ", ".join(result.profile["types_left_out"])
    return [
        f"de-identified by {result.profile['name']}: {how_many(elements, 'element')} dropped, "
        f"{how_many(resources, 'resource')} left out" + (f"; types left out: {types}" if types else "")
    ]


def _recipient_lines(result: ExportResult) -> list[str]:
    """Say who can read the files."""
    if result.recipients is None:
        return []
    keys = result.recipients.public_keys
    who = "1 recipient" if len(keys) == 1 else f"any of {len(keys)} recipients"
    return [f"encrypted: only {who} can decrypt the files, with `age --decrypt -i IDENTITY`; the manifest names them"]


def _states(result: ExportResult) -> str:
    """Say how the runs ended, and which sync was whole if one of them says nothing of that."""
    states = []
    for run in result.runs:
        state = run.state if run.kind == "sync" else f"{run.state} {run.kind}"
        if (run.state, run.kind) != ("complete", "sync"):
            whole = run.last_complete
            state += "; no sync was complete yet" if whole is None else f"; the last complete sync is {whole}"
        states.append(f"{run.run} ({state})")
    return ", ".join(states)


def odd_value_lines(files: Sequence[DeliveredFile]) -> list[str]:
    """Return one line about cells left empty and one about resources left out because a value did not fit, or none.

    Each format holds the same tables, and counts the same; parts of a table count their own.
    """
    empty: dict[str, Counter[str]] = {form: Counter() for form in _FORMS}
    left_out: dict[str, Counter[str]] = {form: Counter() for form in _FORMS}
    for file in files:
        form = next(form for form in _FORMS if form in file.path)
        tables = file.tables if file.tables is not None else {_table(file): file}
        for table, counts in tables.items():
            empty[form].update({f"{table}.{column}": cells for column, cells in (counts.left_empty or {}).items()})
            left_out[form].update({table: counts.left_out or 0})
    lines = []
    if found := _counts(empty.values()):
        lines.append(f"left empty, because the value does not fit the column: {found}; NDJSON has what the EHR wrote")
    if found := _counts(left_out.values()):
        lines.append(f"left out, because the view's criteria could not be decided: {found}")
    return lines


def _counts(by_form: Iterable[Counter[str]]) -> str:
    most: Counter[str] = functools.reduce(operator.or_, by_form)
    return ", ".join(f"{name} {number(count)}" for name, count in most.items())


def _table(file: DeliveredFile) -> str:
    return file.path.split(".")[0]
