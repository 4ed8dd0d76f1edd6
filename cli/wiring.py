"""Builds every object: from settings a store, an EHR client with its tokens, and requests, with flags overriding settings.

No other module does. The packages decide what the objects do; the commands print the results.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from cli.heartbeat import beating
from cli.patient_file import read_patients
from cli.plan_preview import PreviewRuns
from cli.preview import KickOffReachedError, Preview, PreviewClient
from cli.run_options import RunOptions
from config.connections import STORED, Connection
from config.fhir_server import FhirServer
from config.receivers import Receiver
from connectors.core.run import Progress
from connectors.fhir.auth.credentials import Credentials
from connectors.fhir.auth.login import Login, log_in
from connectors.fhir.inquiry import Step, inquire, inquire_receiver
from connectors.fhir.profile import VendorProfile
from connectors.fhir.prove.prove import ProofRequest, prove
from connectors.fhir.run import LogIn
from connectors.fhir.submit.submission import SCOPE, Submission
from connectors.fhir.submit.submit import Submitted, submit
from connectors.fhir.sync import CohortSource, SyncRequest, sync
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.origins import Origins, SharedOrigin
from connectors.fhir.vendors import profile_for
from snapshots.ledger import OpenRun
from snapshots.proof import Certificate
from snapshots.report import RunReport, RunScope
from snapshots.store import Store

_JITTER = random.Random()  # noqa: S311  spreads retries, nothing secret


def _client(server: FhirServer, profile: VendorProfile, shared: SharedOrigin | None = None) -> EhrClient:
    return EhrClient(server, profile, clock=time.time, sleep=asyncio.sleep, rng=_JITTER, shared=shared)


def _cohort(connection: Connection, options: RunOptions) -> CohortSource | None:
    system = None if options.patients_are_ids else connection.cohort_system
    if options.stored_patients or (options.patients is None and options.group is None and connection.cohort == STORED):
        return CohortSource(stored=True)
    if options.patients is not None:
        lines = tuple(options.patients.values()) if isinstance(options.patients, Mapping) else ()
        return CohortSource(
            values=tuple(options.patients), identifier_system=system, lines=lines, name=options.patients_name
        )
    if connection.cohort is not None and options.group is None:
        found = read_patients(str(connection.cohort), called=f"cohort file {connection.cohort}")
        return CohortSource(values=tuple(found), identifier_system=system, lines=tuple(found.values()), name="cohort")
    return None


def _credentials(connection: FhirServer, scopes: tuple[str, ...] = ()) -> Credentials:
    """Read the secrets of a login. `scopes` are requested if the configuration names none."""
    secrets = {key: ref.read(os.environ).reveal() for key, ref in connection.secrets.items()}
    return Credentials(
        auth=connection.auth,
        client_id=connection.client_id,
        key=secrets.get("key"),
        key_passphrase=secrets.get("key_passphrase"),
        client_secret=secrets.get("client_secret"),
        bearer_token=secrets.get("bearer_token"),
        kid=connection.kid,
        alg=connection.alg,
        scopes=connection.scopes or scopes,
    )


def _request(connection: Connection, options: RunOptions) -> SyncRequest:
    return SyncRequest(
        connection=connection.name,
        base_url=connection.base_url,
        profile=profile_for(connection.vendor, connection.profile),
        kind=options.kind,
        mode=options.mode or connection.mode,
        since=options.since,
        types=options.types or connection.types,
        group=options.group or (None if options.patients is not None or options.stored_patients else connection.group),
        cohort=_cohort(connection, options),
        bulk=connection.bulk.model_copy(update={"until": options.until}) if options.until else connection.bulk,
        logs_in=connection.auth != "none",
        validate=connection.validate_resources,
    )


def _log_in(client: EhrClient, connection: Connection) -> LogIn:
    credentials = _credentials(connection)

    async def log_in_for(types: tuple[str, ...]) -> Callable[[str], bool]:
        sleep = client.waits.sleeper("the login got no answer, or was refused, and will be retried")
        login = await log_in(client, credentials, types, clock=time.time, sleep=sleep, rng=_JITTER)
        return login.readable

    return log_in_for


async def run_connection(
    connection: Connection,
    store: Store,
    options: RunOptions,
    on_progress: Callable[[Progress], None],
    origins: Origins | None = None,
) -> RunReport:
    """Do one run of one connection: profile, tokens, client, request; errors propagate.

    Connections to the same origin share its limits through `origins`.
    """

    @asynccontextmanager
    async def open_run(scope: RunScope, clock: Callable[[], datetime]) -> AsyncIterator[OpenRun]:
        async with await store.begin_run(scope, clock) as run:
            yield run

    return await _run(connection, options, open_run, lambda client: client, on_progress, origins=origins)


async def prove_connection(
    connection: Connection,
    store: Store,
    options: RunOptions,
    on_progress: Callable[[Progress], None],
    *,
    sample: int | None,
    seed: int | None,
) -> Certificate:
    """Compare what one connection's EHR has with what the store holds; errors propagate."""
    request = _request(connection, options)
    async with (
        store.proof(connection.name) as session,
        _client(connection, request.profile) as client,
    ):
        client.restore(await store.pace(connection.name))
        async with beating(client.waits, on_progress) as show:
            return await prove(
                ProofRequest(sync=request, sample=sample, seed=seed),
                client,
                session,
                _log_in(client, connection),
                now=lambda: datetime.now(UTC),
                on_progress=show,
            )


async def inquire_connection(connection: Connection) -> AsyncIterator[Step]:
    """Check that a connection's EHR answers and accepts our login; quickly: few tries, no waiting for quiet hours to end."""
    request = _request(connection, RunOptions())
    request = replace(request, profile=_quick(request.profile))
    async with _client(connection, request.profile) as client:
        log_in = _log_in(client, connection)
        async for step in inquire(request, connection, client, log_in, now=lambda: datetime.now(UTC)):
            yield step


async def inquire_receiver_of(receiver: Receiver) -> AsyncIterator[Step]:
    """Check that a receiver answers and accepts our login, as quickly."""
    quick = _quick(profile_for(receiver.profile_name, receiver.profile))
    async with _client(receiver, quick) as client:
        enter = partial(_log_in_to, receiver, client)
        async for step in inquire_receiver(receiver, client, enter, now=lambda: datetime.now(UTC)):
            yield step


def _quick(profile: VendorProfile) -> VendorProfile:
    """Return the profile with few tries, and without waiting for quiet hours to end."""
    http = profile.http
    return profile.with_overrides(
        {
            "login": {"refused_waits_s": ()},
            "http": {
                "connect_timeout_s": min(http.connect_timeout_s, 10.0),
                "read_timeout_s": min(http.read_timeout_s, 30.0),
            },
            "retry": {"max_tries": 2, "after_cap_s": 5.0},
            "limits": {"quiet_wait_s": 0.0},
        }
    )


async def _log_in_to(receiver: Receiver, client: EhrClient) -> Login:
    sleep = client.waits.sleeper("the login got no answer, or was refused, and will be retried")
    credentials = _credentials(receiver, scopes=(SCOPE,))
    return await log_in(client, credentials, (), clock=time.time, sleep=sleep, rng=_JITTER)


async def submit_to(
    receiver: Receiver,
    *,
    manifest_url: str,
    fhir_base_url: str,
    state: str,
    on_progress: Callable[[str], None],
    keep: Callable[[bytes], None],
) -> Submitted:
    """Submit a dataset to a receiver, or go on with a submission that it has; errors propagate.

    `state` names what the dataset holds: the same state is the same submission. `keep` gets each line of the outcomes.
    """
    headers = {name: ref.read(os.environ).reveal() for name, ref in receiver.file_request_headers.items()}
    system, _, value = receiver.submitter.partition("|")
    submission = Submission(
        submitter=(system, value),
        manifest_url=manifest_url,
        fhir_base_url=fhir_base_url,
        state=state,
        oauth_metadata_url=receiver.oauth_metadata_url,
        file_request_headers=tuple(sorted(headers.items())),
    )
    profile = profile_for(receiver.profile_name, receiver.profile)
    async with _client(receiver, profile) as client:
        await _log_in_to(receiver, client)
        return await submit(
            submission, client, clock=time.time, sleep=asyncio.sleep, on_progress=on_progress, keep=keep
        )


async def preview_connection(
    connection: Connection, options: RunOptions, store: Store | None, on_progress: Callable[[Progress], None]
) -> Preview:
    """Find out what a run would request, without requesting it; read what earlier runs know from the store, if there is one."""
    preview = Preview(connection=connection.name)
    try:
        runs = PreviewRuns(preview, datetime.now(UTC), store)
        await _run(
            connection, options, runs.begin_run, PreviewClient, lambda progress: on_progress(_planning(progress))
        )
    except KickOffReachedError as exc:
        preview.mode, preview.request, preview.types = "bulk", exc.template, exc.types
        preview.since = {} if exc.since is None else {"*": exc.since}
    return preview


def _planning(progress: Progress) -> Progress:
    """Show one phase, "planning": a plan passes through a run's phases without doing them."""
    return replace(progress, phase="planning", units=0, units_done=0)


async def _run(
    connection: Connection,
    options: RunOptions,
    open_run: Callable[[RunScope, Callable[[], datetime]], Any],
    wrap: Callable[[EhrClient], Any],
    on_progress: Callable[[Progress], None],
    *,
    origins: Origins | None = None,
) -> RunReport:
    request = _request(connection, options)
    shared = origins.of(connection.base_url) if origins is not None else None
    async with (
        _client(connection, request.profile, shared) as client,
        beating(client.waits, on_progress) as show,
    ):
        return await sync(
            request,
            wrap(client),
            open_run,
            _log_in(client, connection),
            now=lambda: datetime.now(UTC),
            sleep=asyncio.sleep,
            on_progress=show,
        )
