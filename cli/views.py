"""`chartferry views`: lists the views, shows one, and checks whether a view is correct, without store or EHR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.exit_codes import ExitCode
from cli.invocation import invocation_of
from cli.render import emit_json, print_line, print_message, print_table
from exports.catalogue import builtin_names, load_view, view_sets
from exports.errors import ViewError
from exports.view_check import CompiledView, compiled_over_nothing

LIST_EXAMPLES = ("chartferry views list",)
SHOW_EXAMPLES = ("chartferry views show observation",)
CHECK_EXAMPLES = ("chartferry views check my_view.json", "chartferry views check")
EXAMPLES = (*LIST_EXAMPLES, *SHOW_EXAMPLES, *CHECK_EXAMPLES)


def list_views(context: typer.Context) -> int:
    """List the built-in views: name, resource type, columns and subject. Those of a set are exported only where named."""
    sets = {"": builtin_names(), **view_sets()}
    views = [(load_view(name), _compiled(name), of_set) for of_set, names in sets.items() for name in names]
    rows = [
        {
            "name": view.name,
            "resource": view.resource,
            "columns": len(compiled.columns),
            "title": view.definition["title"],
            "set": of_set,
        }
        for view, compiled, of_set in views
    ]
    if invocation_of(context).json:
        emit_json({"views": rows})
    else:
        print_table(("view", "resource", "columns#", "about", "set"), [tuple(map(str, row.values())) for row in rows])
    return ExitCode.COMPLETE


def show(
    context: typer.Context,
    view: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A built-in view, or a ViewDefinition's file.")],
) -> int:
    """Show the columns of a view: name, FHIR type and meaning; with --json its whole definition.

    Exit codes: 0 shown, 2 the view does not exist or is wrong.
    """
    loaded = load_view(view)
    if invocation_of(context).json:
        emit_json(loaded.definition)
        return ExitCode.COMPLETE
    described = {column["name"]: str(column.get("description", "")) for column in _columns(loaded.definition)}
    rows = [
        (column.name, f"{column.type} (list)" if column.collection else column.type, described.get(column.name, ""))
        for column in _compiled(view).columns
    ]
    print_table(("column", "type", "meaning"), rows)
    return ExitCode.COMPLETE


def check(
    context: typer.Context,
    views: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|FILE", help="Built-in views or ViewDefinitions' files; default: all built-in."),
    ] = None,
) -> int:
    """Check views: every element that they name must exist in R4, and every expression must be executable.

    Exit codes: 0 all are correct, 2 one is not.
    """
    found: dict[str, list[str]] = {}
    unchecked: list[str] = []
    sets = view_sets()
    named = [one for name in views or (*builtin_names(), *sets) for one in sets.get(name, (name,))]
    for name in dict.fromkeys(named):
        try:
            compiled = _compiled(name)
            found[name] = list(compiled.notes)
            unchecked += [] if compiled.of_r4 else [name]
        except ViewError as error:
            found[name] = [str(error)]
    wrong = {name: problems for name, problems in found.items() if problems}
    if invocation_of(context).json:
        emit_json({"views": [{"view": name, "problems": problems} for name, problems in found.items()]})
    for name, problems in wrong.items():
        for problem in problems:
            print_message(problem if problem.startswith("view ") else f"view {Path(name).name!r}, {problem}")
    for name in unchecked:
        print_message(f"view {Path(name).name!r} is not for R4: its elements were not looked up")
    if not invocation_of(context).json and not wrong:
        print_line(f"{len(found)} {'view is' if len(found) == 1 else 'views are'} correct")
    return ExitCode.USAGE if wrong else ExitCode.COMPLETE


def _compiled(name: str) -> CompiledView:
    return compiled_over_nothing(load_view(name))


def _columns(selection: dict[str, Any]) -> Sequence[dict[str, Any]]:
    inner = [one for key in ("select", "unionAll") for one in selection.get(key, [])]
    return [*selection.get("column", []), *[column for one in inner for column in _columns(one)]]
