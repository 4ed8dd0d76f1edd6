"""The exit codes of `chartferry`, and which error gives which; stable, documented in docs/operations.md and cron/README.md.

Knows the error trees of all packages by name; imports them only after something has failed, so that starting stays quick.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """The exit codes of every command. 128+n: ended by signal n; 124 and 127 are the launcher's."""

    COMPLETE = 0
    UNEXPECTED = 1  # a bug in chartferry
    USAGE = 2  # a mistake on the command line or in the configuration
    PARTIAL = 3  # some holes, each named by the report; the next run fills them first
    NOTHING = 4  # nothing to do: no connection, no row
    FAILED = 5  # the EHR, the store or the disk prevented it; the message says what to do
    BUSY = 6  # another run of the same connection is in progress


SIGNAL_BASE = 128

OF_STATUS = {
    "complete": ExitCode.COMPLETE,
    "partial": ExitCode.PARTIAL,
    "nothing": ExitCode.NOTHING,
    "failed": ExitCode.FAILED,
}

# from the code that an operator must see to the one that needs no attention
_WORST_FIRST = (
    ExitCode.UNEXPECTED,
    ExitCode.FAILED,
    ExitCode.USAGE,
    ExitCode.BUSY,
    ExitCode.PARTIAL,
    ExitCode.COMPLETE,
    ExitCode.NOTHING,
)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the worst code of a command's runs; NOTHING only if no run did anything."""
    return min(codes, key=_WORST_FIRST.index, default=ExitCode.NOTHING)


def leaf(error: BaseException) -> BaseException:
    """Return the error inside an exception group that explains it: one of chartferry's own if there is one, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [leaf(inner) for inner in error.exceptions]
    return next((each for each in leaves if of_error(each) is not None), leaves[0])


def of_error(error: BaseException) -> ExitCode | None:
    """Return the exit code of an expected error, None for an unexpected one."""
    from config.errors import ConfigError
    from connectors.core.errors import ConnectorError, PlanError
    from exports.errors import ExportError, QueryError, ViewError
    from exports.errors import PlanError as ExportPlanError
    from mocks.faults import FaultScriptError
    from snapshots.errors import ConnectionBusyError, RunNotFoundError, StoreError

    table: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], ExitCode], ...] = (
        (
            (ConfigError, PlanError, ExportPlanError, ViewError, QueryError, RunNotFoundError, FaultScriptError),
            ExitCode.USAGE,
        ),
        (ConnectionBusyError, ExitCode.BUSY),
        ((ConnectorError, StoreError, ExportError), ExitCode.FAILED),
    )
    return next((code for kind, code in table if isinstance(error, kind)), None)


def explain(error: BaseException) -> tuple[ExitCode, str]:
    """Return the exit code and the message of any error.

    Of an unexpected error it quotes only the type and the place, not the message, which may contain a row.
    """
    error = leaf(error)
    code = of_error(error)
    if code is not None:
        return code, str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExitCode.FAILED, f"cannot write: {error.strerror}. Free some space, and run the same command again."
    if isinstance(error, OSError) and error.errno == errno.EBADF:
        return ExitCode.FAILED, "cannot write: stdout is closed. Run the same command again with stdout open."
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" in {Path(where[0].filename).stem}.{where[0].name}, line {where[0].lineno}" if where else ""
    return ExitCode.UNEXPECTED, (
        f"unexpected {type(error).__name__}{place}: this is a bug in chartferry. What was committed is safe, and you can "
        "run the same command again. --debug shows the traceback; check it for patient data before you send it to anyone."
    )
