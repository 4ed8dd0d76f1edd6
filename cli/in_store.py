"""A command's work in one tenant's store: who acts, whose chart, opening and closing the store, signals."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import typer

from cli.acting import actor_of
from cli.choosing import choose_connections
from cli.configuration import settings_of
from cli.heartbeat import shown_if_slow
from cli.invocation import Invocation, invocation_of
from cli.one_patient import one_patient
from cli.sealed_paths import path_problems
from cli.supervise import supervise
from config.settings import Settings, refused
from snapshots.actor import Actor
from snapshots.errors import describe_server
from snapshots.sealed_values import Keyring
from snapshots.store import Store, open_store
from snapshots.store_url import embedded_directory

T = TypeVar("T")


def import_connectors() -> None:
    """Import what a run needs beside the store: half a second of CPU, which `opened_store` can do meanwhile."""
    import cli.wiring  # noqa: F401, PLC0415  this is what the function is for


def keyring_of(settings: Settings) -> Keyring | None:
    """Return the keys of the store; None: it is plain. ConfigError names a key that cannot be used, or an invalid path."""
    current = settings.encryption.current_key
    if current is None:
        return None
    if problems := list(path_problems(settings)):
        raise refused(settings.source, problems)
    return Keyring(current=current, keys=settings.encryption.read(os.environ), paths=settings.encryption.paths)


@asynccontextmanager
async def opened_store(
    settings: Settings,
    tenant: str,
    actor: Actor,
    *,
    meanwhile: Callable[[], None] = lambda: None,
    encrypts: bool = False,
) -> AsyncIterator[Store]:
    """Yield the tenant's store, opened for an actor and migrated to this version; close it at the end.

    `meanwhile` is done in a thread, while the server starts or makes the schema: that takes as long, and keeps another core busy.
    `encrypts`: a plain store begins to become an encrypted one.
    """
    keyring = keyring_of(settings)
    directory = embedded_directory(settings.store_url)
    where = "the embedded Postgres" if directory is not None else describe_server(settings.store_url)
    waited_for = f"waiting for the store, {where}, to"
    async with AsyncExitStack() as stack:
        async with shown_if_slow(f"{waited_for} start, or to answer"):
            done = asyncio.get_running_loop().run_in_executor(None, meanwhile)
            opening = open_store(settings.store_url, tenant, actor, keyring=keyring, encrypts=encrypts)
            store = await stack.enter_async_context(opening)
            await done
        try:
            yield store
        finally:
            async with shown_if_slow(f"{waited_for} close"):
                await stack.aclose()


def in_store(
    invocation: Invocation,
    settings: Settings,
    tenant: str,
    work: Callable[[Store], Awaitable[T]],
    *,
    reads_charts: bool = False,
    encrypts: bool = False,
    resume: str = "run the same command again",
) -> T:
    """Do the work in the tenant's store, and return what it returns. `resume` is what to do if a signal stops it.

    `encrypts`: the work encrypts a plain store (`opened_store`).

    A usage error says that a reason is missing, if the configuration requires one for reading charts.
    """
    actor = actor_of(invocation, settings, reads_charts=reads_charts)

    async def done() -> T:
        async with opened_store(settings, tenant, actor, encrypts=encrypts) as store, shown_if_slow("asking the store"):
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
