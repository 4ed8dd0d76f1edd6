"""A command's work in one tenant's store: who acts, opening and closing the store, signals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from cli.acting import actor_of
from cli.supervise import supervise

if TYPE_CHECKING:
    from cli.invocation import Invocation
    from config.settings import Settings
    from snapshots.store import Store

T = TypeVar("T")


def in_store(
    invocation: Invocation,
    settings: Settings,
    tenant: str,
    work: Callable[[Store], Awaitable[T]],
    *,
    reads_charts: bool = False,
    resume: str = "run the same command again",
) -> T:
    """Do the work in the tenant's store, and return what it returns. `resume` is what to do if a signal stops it.

    A usage error says that the configuration demands a reason for reading charts, if there is none.
    """
    actor = actor_of(invocation, settings, reads_charts=reads_charts)

    async def done() -> T:
        from cli.heartbeat import told_if_slow
        from cli.wiring import opened_store

        async with opened_store(settings, tenant, actor) as store, told_if_slow("asking the store"):
            return await work(store)

    return supervise(done, resume=resume)
