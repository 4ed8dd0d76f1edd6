"""A command's work in one tenant's store: who acts, whose chart, opening and closing the store, signals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import typer

from cli.acting import actor_of
from cli.one_patient import one_patient
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


def in_chart(
    context: typer.Context,
    connection: str,
    patient: str,
    work: Callable[[Store, str, str], Awaitable[T]],
    *,
    command: str,
    resume: str,
) -> tuple[Invocation, str, T]:
    """Do the work with one patient of one connection in its store, given the store, the connection's name and the patient's id.

    Return how the command was called, the connection's name, and what the work returns. A usage error ends in `command`.
    """
    from cli.choosing import choose_connections
    from cli.invocation import invocation_of, settings_of

    invocation = invocation_of(context)
    settings = settings_of(invocation)
    (chosen,) = choose_connections(settings, invocation.tenant, [connection])
    who = one_patient(patient, f"{command} takes one")
    done = in_store(
        invocation,
        settings,
        chosen.tenant,
        lambda store: work(store, chosen.name, who),
        reads_charts=True,
        resume=resume,
    )
    return invocation, chosen.name, done
