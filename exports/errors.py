"""The errors of exports, and nothing else.

    ExportError
    ├── ViewError              a ViewDefinition cannot be used: which view, where in it, what is allowed there
    │   └── UnknownViewError   no view of that name, no file of that path
    ├── FhirPathError          an expression cannot be read; `ViewError` wraps it with the place it stands in
    ├── ViewDataError          the stored data does not fit the view, though the view itself is right
    ├── PlanError              the request contradicts itself
    └── DestinationError       the output cannot be written

Messages carry names and JSON paths out of the view, never a value out of a resource.
"""

from __future__ import annotations


class ExportError(Exception):
    """Anything that exports raise."""


class ViewError(ExportError):
    """A ViewDefinition cannot be used.

    `view` is its name, `where` the JSON path of the bad element in it ("select[0].column[2].path").
    """

    def __init__(self, view: str, where: str, problem: str, *, allowed: str | None = None) -> None:
        self.view, self.where, self.problem, self.allowed = view, where, problem, allowed
        place = f"view {view!r}, {where}" if where else f"view {view!r}"
        super().__init__(f"{place}: {problem}" + (f"; allowed: {allowed}" if allowed else ""))


class UnknownViewError(ViewError):
    """No built-in view has that name, and no file that path."""


class FhirPathError(ExportError):
    """A FHIRPath expression cannot be read: `problem` at character `offset` (0-based)."""

    def __init__(self, problem: str, *, offset: int | None = None, allowed: str | None = None) -> None:
        self.problem, self.offset, self.allowed = problem, offset, allowed
        super().__init__(problem if offset is None else f"{problem} at character {offset + 1}")


class ViewDataError(ExportError):
    """Stored data does not fit a view: two values in a column that holds one, or a value of another type than declared."""


class PlanError(ExportError):
    """The export request contradicts itself; the message says which part, and what to change."""


class DestinationError(ExportError):
    """The output cannot be written; the message says where and why."""
