"""Pieces of SQL that the compiler puts together: like psycopg's, but already text, because a view has thousands of them.

`SQL` makes a `Fragment` of our own text, `Identifier` of a name, `Literal` of a value. A fragment accepts only other fragments,
so no value can get into a query unquoted. `read` and `written` convert from and to psycopg's pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from psycopg import sql


class Fragment(str):
    """A piece of SQL."""

    __slots__ = ()

    def format(self, *parts: Fragment, **named: Fragment) -> Fragment:  # type: ignore[override]  # it takes less than str's
        """The piece with others in its places, written as for `str.format`."""
        for part in (*parts, *named.values()):
            if not isinstance(part, Fragment):
                raise TypeError(f"only fragments go into SQL, not {type(part).__name__}")
        return Fragment(str.format(self, *parts, **named))

    def join(self, parts: Iterable[Fragment]) -> Fragment:  # type: ignore[override]  # it takes less than str's
        """The pieces with this one between them."""
        listed = list(parts)
        if not all(isinstance(part, Fragment) for part in listed):
            raise TypeError("only fragments go into SQL")
        return Fragment(str.join(self, listed))


SQL = Fragment


def Identifier(name: str) -> Fragment:  # noqa: N802 - as psycopg names it
    """A name, quoted."""
    return Fragment('"' + name.replace('"', '""') + '"')


def Literal(value: str | bool | int | Decimal) -> Fragment:  # noqa: N802 - as psycopg names it
    """A value, quoted; Postgres finds the type of strings that are not cast."""
    if isinstance(value, bool):
        return Fragment("true" if value else "false")
    if isinstance(value, (int, Decimal)):
        number = format(value, "f") if isinstance(value, Decimal) else str(value)
        return Fragment(f"({number})" if value < 0 else number)
    quoted = value.replace("'", "''")
    # a backslash means the same in E'' whatever the session's settings are
    return Fragment(f" E'{quoted}'".replace("\\", "\\\\") if "\\" in value else f"'{quoted}'")


def read(piece: sql.Composable) -> Fragment:
    """Convert what psycopg composed."""
    return Fragment(piece.as_string(None))


def written(piece: Fragment) -> sql.SQL:
    """Convert to what psycopg accepts."""
    return sql.SQL(piece)
