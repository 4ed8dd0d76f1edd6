"""SQL views in the tenant's schema, for analysts with psql or a BI tool: created, replaced, refreshed and dropped.

The caller says what they select; this module provides the rows that they read: those that ended runs have left, whenever
they are read. Only views that chartferry has created are touched: their comments, JSON, say so.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from snapshots.errors import StoreError, store_border
from snapshots.identifying import SealedElements
from snapshots.sql import load
from snapshots.stored_documents import ONCE, PLAIN_BODY, TEXT_PATHS, with_document
from snapshots.tenancy import TenantSession

_SQL, _READER = load("sql_views"), load("reader")
_PLAIN, _MATERIALIZED = "v", "m"  # pg_class.relkind


@dataclass(frozen=True)
class SqlView:
    """A view that chartferry has created. `digest` names its definition; `as_of`: the moment of a materialised one's rows."""

    name: str
    materialized: bool
    digest: str
    columns: tuple[str, ...]
    as_of: datetime | None = None
    dropped: tuple[str, ...] = ()  # columns that it no longer has


def rows_of(resource_type: str, *, documents: bool = False) -> sql.Composable:
    """Return a FROM item with columns connection text, id text, body jsonb: what ended runs have left of a type.

    `documents`: bodies have what is stored of their documents, as the extension of `stored_documents`.
    """
    open_ = sql.SQL(_SQL["open"])
    return sql.SQL(_SQL["rows"]).format(
        ended=sql.SQL(_READER["ended"]).format(rows=sql.SQL(_READER["everyone"]), open=open_),
        resource_type=sql.Literal(resource_type),
        body=with_document(open_) if documents else PLAIN_BODY,
        once=ONCE if documents else sql.SQL(""),
    )


class SqlViews:
    """The SQL views of one tenant, on one session."""

    def __init__(self, session: TenantSession) -> None:
        self._session = session
        self._conn: AsyncConnection[Any] = session.conn

    @property
    def sealed(self) -> SealedElements | None:
        """What is encrypted in the store; None: nothing, it is plain."""
        sealer = self._session.sealer
        return None if sealer is None else SealedElements(sealer.paths | TEXT_PATHS)

    async def existing(self) -> list[SqlView]:
        """Return the views that chartferry has created, by name."""
        with store_border("listing SQL views"):
            async with self._session.transaction():
                return [view for _, view in await self._relations(None) if view is not None]

    @asynccontextmanager
    async def all_or_none(self) -> AsyncIterator[None]:
        """Create several views within the block: if it raises, none of them is created, and none replaced."""
        with store_border("creating SQL views"):
            async with self._session.transaction():
                yield

    async def create(self, name: str, query: sql.Composable, *, digest: str, materialized: bool = False) -> SqlView:
        """Create a view, or put it in the place of one of that name that chartferry has created.

        A plain view whose columns stay keeps its rights; any other is dropped first, and the schema's default rights apply.

        Raises:
            StoreError: something else has that name, or other views depend on what is dropped.
        """
        with store_border(f"creating the SQL view {name}"):
            async with self._session.transaction():
                found = dict(await self._relations([name]))
                former = found.get(name)
                if name in found and former is None:
                    raise StoreError(
                        f"{name} is a table or view that is not chartferry's: rename your view, or drop the other."
                    )
                if not (materialized or former is None or former.materialized) and await self._replaced(name, query):
                    return await self._noted(name, digest, former, materialized=False)
                if former is not None:
                    await self._drop(former)
                await self._execute("create_materialized" if materialized else "create", name, query=query)
                return await self._noted(name, digest, former, materialized=materialized)

    async def refresh(self, names: Collection[str] = ()) -> list[SqlView]:
        """Refresh the rows of materialised views; of all, if none is named.

        Raises:
            StoreError: there is no such materialised view.
        """
        done = []
        for view in await self._named(names, materialized_only=True):
            with store_border(f"refreshing the SQL view {view.name}"):
                async with self._session.transaction():
                    await self._execute("refresh", view.name)
                    done.append(await self._noted(view.name, view.digest, None, materialized=True))
        return done

    async def refresh_each(self, names: Collection[str]) -> list[str]:
        """Refresh materialised views, whichever of them fail; return those that did: only their owner may."""
        failed = []
        for name in names:
            try:
                await self.refresh([name])
            except StoreError:  # the caller tells what is left to do
                failed.append(name)
        return failed

    async def drop(self, names: Collection[str]) -> list[SqlView]:
        """Drop views, all or none.

        Raises:
            StoreError: there is no such view, or other views depend on one.
        """
        views = await self._named(names, materialized_only=False)
        with store_border("dropping SQL views"):
            async with self._session.transaction():
                for view in views:
                    await self._drop(view)
        return views

    async def _named(self, names: Collection[str], *, materialized_only: bool) -> list[SqlView]:
        views = {one.name: one for one in await self.existing() if one.materialized or not materialized_only}
        if unknown := sorted(set(names) - set(views)):
            kind = "materialised view" if materialized_only else "view"
            existing = ", ".join(views) or "none"
            raise StoreError(f"chartferry has created no {kind} {', '.join(unknown)}; there are: {existing}.")
        return [views[name] for name in names] if names else list(views.values())

    async def _replaced(self, name: str, query: sql.Composable) -> bool:
        """Whether the view could be replaced: its columns are the former ones, and perhaps more."""
        try:
            async with self._conn.transaction():
                await self._execute("replace", name, query=query)
        except psycopg.errors.InvalidTableDefinition:
            return False
        return True

    async def _drop(self, view: SqlView) -> None:
        try:
            await self._execute("drop_materialized" if view.materialized else "drop", view.name)
        except psycopg.errors.DependentObjectsStillExist:
            raise StoreError(
                f"other views depend on {view.name}, which would have to be dropped: drop those first (psql: \\d+ {view.name})."
            ) from None

    async def _noted(self, name: str, digest: str, former: SqlView | None, *, materialized: bool) -> SqlView:
        """Write down what a view is, and return it."""
        as_of = None
        if materialized:
            row = await (await self._conn.execute(_SQL["newest"])).fetchone()
            as_of = row[0] if row else None
        comment = json.dumps({"chartferry_view": digest, "as_of": as_of.isoformat() if as_of else None})
        await self._execute("comment_materialized" if materialized else "comment", name, comment=sql.Literal(comment))
        ((_, view),) = await self._relations([name])
        assert view is not None
        dropped = tuple(column for column in former.columns if column not in view.columns) if former else ()
        return SqlView(name, materialized, digest, view.columns, as_of, dropped)

    async def _relations(self, names: Sequence[str] | None) -> list[tuple[str, SqlView | None]]:
        """What has these names; None: not one of chartferry's views."""
        rows = await self._conn.execute(_SQL["relations"], {"names": None if names is None else list(names)})
        return [(row[0], _view(*row)) async for row in rows]

    async def _execute(self, statement: str, name: str, **parts: sql.Composable) -> None:
        await self._conn.execute(sql.SQL(_SQL[statement]).format(name=sql.Identifier(name), **parts))


def _view(name: str, kind: str, comment: str | None, columns: list[str]) -> SqlView | None:
    if kind not in {_PLAIN, _MATERIALIZED}:
        return None
    try:
        facts = json.loads(comment or "{}")
    except ValueError:
        return None
    if not isinstance(facts, dict) or not isinstance(facts.get("chartferry_view"), str):
        return None
    as_of = datetime.fromisoformat(facts["as_of"]) if facts.get("as_of") else None
    return SqlView(name, kind == _MATERIALIZED, facts["chartferry_view"], tuple(columns), as_of)
