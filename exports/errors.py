"""The errors of exports, and nothing else.

    ExportError
    ├── ViewError              a ViewDefinition cannot be used; names the view, the place in it, and what is allowed there
    │   └── UnknownViewError   there is no view with that name and no file at that path
    ├── FhirPathError          an expression cannot be parsed; `ViewError` wraps it and adds its place
    ├── ViewDataError          the stored data do not fit the view, though the view itself is correct
    ├── PlanError              the request contradicts itself
    │   └── MissingExtraError  what the request needs is an extra, and not installed
    ├── DriftError             a frozen export would change the columns that the last export of its folder had
    ├── QueryError             a query cannot run: it is wrong, does more than select, or takes too long
    ├── DatasetError           a published dataset, or one of its pages, is not what Bulk Publish says
    └── DestinationError       the output cannot be written
        └── WarehouseError     the database that views are loaded into refuses, or holds something else than is needed

Messages contain names and JSON paths from the view, never a value from a resource.
"""

from __future__ import annotations

import shlex
import sys


class ExportError(Exception):
    """The base of all errors of exports."""


class ViewError(ExportError):
    """A ViewDefinition cannot be used.

    `view` is its name, `where` the JSON path of the bad element in it ("select[0].column[2].path").
    """

    def __init__(self, view: str, where: str, problem: str, *, allowed: str | None = None) -> None:
        self.view, self.where, self.problem, self.allowed = view, where, problem, allowed
        place = f"view {view!r}, {where}" if where else f"view {view!r}"
        super().__init__(f"{place}: {problem}" + (f"; allowed: {allowed}" if allowed else ""))


class UnknownViewError(ViewError):
    """There is no built-in view with that name and no file at that path."""


class FhirPathError(ExportError):
    """A FHIRPath expression cannot be parsed: `problem` at character `offset` (0-based)."""

    def __init__(self, problem: str, *, offset: int | None = None, allowed: str | None = None) -> None:
        self.problem, self.offset, self.allowed = problem, offset, allowed
        super().__init__(problem if offset is None else f"{problem} at character {offset + 1}")


class EncryptedElementError(FhirPathError):
    """An expression needs the value of an encrypted element. Its literals may be such values: no message quotes them."""


class ViewDataError(ExportError):
    """Stored data do not fit a view: two values in a column for one, or a value of another type than declared."""


class PlanError(ExportError):
    """The export request contradicts itself; the message says which part, and what to change."""


class MissingExtraError(PlanError):
    """What the request needs is an extra, and not installed. The message installs it beside this chartferry, not elsewhere."""

    def __init__(self, does: str, extra: str) -> None:
        pip = f"{shlex.quote(sys.executable)} -m pip"
        super().__init__(f"nothing is installed that {does}: {pip} install 'chartferry[{extra}]'")


class DriftError(ExportError):
    """The columns of a frozen export are not those of the last export of its folder, or those are not known."""


class QueryError(ExportError):
    """A query cannot run; the message names the library, and quotes no value."""


class DatasetError(ExportError):
    """A published dataset cannot be read, or gone on with; the message says which page, and what is wrong with it."""


class DestinationError(ExportError):
    """The output cannot be written; the message says where and why."""


class WarehouseError(DestinationError):
    """A database cannot be loaded; the message names it and its tables, and quotes neither a value nor a password."""
