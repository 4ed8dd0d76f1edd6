"""Checks that a connection's EHR, or a receiver, answers and accepts us: step by step, with what was found and what to do.

Sends little: one search with one entry, no export. Stops at a step after which the next cannot work. `cli.config_check` prints
the steps, and checks the configuration first.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote, urlsplit

import anyio
from anyio.abc import SocketStream
from anyio.streams.tls import TLSAttribute, TLSStream

from config.how_many import how_many
from connectors.core.errors import AuthError, ConnectorError, PlanError
from connectors.fhir.auth.login import log_in_as_registered
from connectors.fhir.bundles import NotABundleError
from connectors.fhir.capability import Capability
from connectors.fhir.errors import QuietHoursError, TransientFetchError
from connectors.fhir.json_answers import UnreadableJsonError, json_from
from connectors.fhir.metadata import capability_of
from connectors.fhir.plan import bulk_types, choose_mode, crawl_types, named
from connectors.fhir.records import page_from
from connectors.fhir.run import LogIn, Readable, SyncRequest
from connectors.fhir.sync import types_for_scopes
from connectors.fhir.transport.call import Endpoint
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.explain import next_after
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.tls import distrust_of, refuses_us, tls_context

Verdict = Literal["ok", "warn", "fail"]
REACH_S = 10.0  # for a name, and for a connection
_CERTIFICATE_WARNED = timedelta(days=21)
_SERVER_ERROR = 500
_LOGGED_IN, _NO_LOGIN = "logged in", "no login is configured"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class Step:
    """The result of one step. Its texts contain no id, no URL below the origin and no secret."""

    name: str  # "dns" | "tls" | "metadata" | "token" | "scopes" | "search"
    verdict: Verdict
    found: str
    advice: str = ""


async def inquire(
    request: SyncRequest, endpoint: Endpoint, client: EhrClient, log_in: LogIn, *, now: Callable[[], datetime]
) -> AsyncIterator[Step]:
    """Yield the steps of one connection; the last is a "fail" if they ended early."""
    async for step in _way_to(endpoint, now):
        yield step
        if step.verdict == "fail":
            return
    capability = Capability()
    try:
        capability = await capability_of(client)
        yield _declared(capability)
    except ConnectorError as error:
        if not (isinstance(error, TransientFetchError) and (error.status or 0) >= _SERVER_ERROR):
            yield _failed("metadata", error, "/metadata is requested below base_url")
            return
        advice = "until it is answered, a sync is planned only from the vendor's profile, or from the last sync"
        yield Step(name="metadata", verdict="warn", found=str(error), advice=advice)
    except UnreadableJsonError:
        yield Step(
            name="metadata",
            verdict="fail",
            found="the answer to GET /metadata is not a CapabilityStatement",
            advice="check base_url, and whether a portal or a firewall answers instead",
        )
        return
    try:
        mode = choose_mode(
            request.mode, request.profile, capability, group=request.group, has_cohort=request.cohort is not None
        )
        needed, referred = types_for_scopes(request, capability, mode)
        readable, _ = await log_in_as_registered(log_in, needed, referred)
        wanted = needed or _wanted(request, capability, mode)
    except ConnectorError as error:
        yield _failed("token", error, "")
        return
    yield Step(name="token", verdict="ok", found=_LOGGED_IN if client.tokens is not None else _NO_LOGIN)
    if client.tokens is not None:
        yield _scopes(readable, wanted, referred)
    if mode == "bulk" and request.group is not None:
        yield Step(
            name="search",
            verdict="ok",
            found="not tried: this connection exports a Group, and a kick-off would start the export",
        )
        return
    yield await _searched(request, client)


async def inquire_receiver(
    endpoint: Endpoint, client: EhrClient, log_in: Callable[[], Awaitable[object]], *, now: Callable[[], datetime]
) -> AsyncIterator[Step]:
    """Yield the steps for one receiver, up to its login. Nothing is submitted, and no submission is requested."""
    async for step in _way_to(endpoint, now):
        yield step
        if step.verdict == "fail":
            return
    try:
        await log_in()
    except ConnectorError as error:
        yield _failed("token", error, "")
        return
    yield Step(name="token", verdict="ok", found=_LOGGED_IN if client.tokens is not None else _NO_LOGIN)


async def _way_to(endpoint: Endpoint, now: Callable[[], datetime]) -> AsyncIterator[Step]:
    """Yield whether the server is reached: its name and its TLS, unless a proxy sees to both."""
    if endpoint.proxy is None:
        async for step in _reached(endpoint, now):
            yield step
    else:
        yield Step(name="dns", verdict="ok", found="the proxy resolves the name and opens the TLS connection")


async def _reached(endpoint: Endpoint, now: Callable[[], datetime]) -> AsyncIterator[Step]:
    parts = urlsplit(endpoint.base_url)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
    try:
        with anyio.fail_after(REACH_S):
            addresses = {found[4][0] for found in await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError, TimeoutError):
        advice = "check base_url and this machine's resolver; behind a proxy, set the connection's proxy"
        yield Step(name="dns", verdict="fail", found=f"{host} has no address here", advice=advice)
        return
    yield Step(name="dns", verdict="ok", found=f"{host} has {how_many(len(addresses), 'address', 'addresses')}")
    secure = parts.scheme == "https"
    try:
        with anyio.fail_after(REACH_S):
            stream = await anyio.connect_tcp(host, port)
    except (OSError, TimeoutError) as error:
        yield Step(
            name="tls" if secure else "tcp",
            verdict="fail",
            found=f"port {port} of {host} cannot be reached ({_reason(error)})",
            advice="check port, firewall and VPN; behind a proxy, set the connection's proxy",
        )
        return
    try:
        if not secure:
            yield Step(name="tcp", verdict="ok", found=f"port {port} answers, without TLS")
            return
        yield await _secured(stream, host, endpoint, now)
    finally:
        await anyio.aclose_forcefully(stream)


async def _secured(stream: SocketStream, host: str, endpoint: Endpoint, now: Callable[[], datetime]) -> Step:
    """Return how the TLS handshake on an open connection went."""

    def failed(found: str, advice: str) -> Step:
        return Step(name="tls", verdict="fail", found=found, advice=advice)

    try:
        context = tls_context(endpoint)
        with anyio.fail_after(REACH_S):
            secured = await TLSStream.wrap(
                stream, hostname=host, ssl_context=context, server_side=False, standard_compatible=False
            )
    except ssl.SSLCertVerificationError as error:
        return failed(
            f"the certificate is not trusted: {error.verify_message.rstrip('.')}", next_after(distrust_of(error))
        )
    except ssl.SSLError as error:
        advice = next_after("client-certificate" if refuses_us(error) else "handshake")
        return failed(f"the handshake failed ({error.reason or 'no reason'})", advice)
    except PlanError as error:
        return failed(str(error), "")
    except TimeoutError:
        return failed("the port accepts connections, but does not answer the handshake", next_after("handshake"))
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return failed("the port accepts connections, but closes them during the handshake", next_after("handshake"))
    return _connected(secured, now())


def _connected(stream: TLSStream, now: datetime) -> Step:
    version = stream.extra(TLSAttribute.tls_version)  # noqa: S610  of anyio, not of Django
    end = stream.extra(TLSAttribute.peer_certificate, None)  # noqa: S610
    text = None if end is None else str(end.get("notAfter", ""))
    if not text:
        return Step(name="tls", verdict="ok", found=version)
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
    soon = until - now < _CERTIFICATE_WARNED
    return Step(
        name="tls",
        verdict="warn" if soon else "ok",
        found=f"{version}, certificate good until {until:%Y-%m-%d}",
        advice="ask the server's operator to renew it" if soon else "",
    )


def _declared(capability: Capability) -> Step:
    version = capability.fhir_version
    if not capability.search_params and not capability.bulk_levels:
        advice = "check base_url; a sync is planned only from the vendor's profile"
        return Step(name="metadata", verdict="warn", found="it declares nothing that can be requested", advice=advice)
    summary = f"FHIR {version or 'of unstated version'}, {how_many(len(capability.search_params), 'type')}"
    if capability.is_of_another_fhir:
        advice = "chartferry reads R4: use the base URL of the EHR's R4 endpoint"
        return Step(name="metadata", verdict="warn", found=summary, advice=advice)
    return Step(name="metadata", verdict="ok", found=summary)


def _wanted(request: SyncRequest, capability: Capability, mode: Literal["bulk", "crawl"]) -> tuple[str, ...]:
    """Return the types that a sync requests, if the login uses a wildcard for all of them."""
    if mode == "bulk":
        return bulk_types(request.types, request.profile, bool).types
    return crawl_types(request.types, request.profile, capability, bool).types


def _scopes(readable: Readable, needed: tuple[str, ...], referred: tuple[str, ...]) -> Step:
    lacking = sorted({t for t in needed if not readable(t)})
    if needed and len(lacking) == len(set(needed)):
        advice = "register the app for system scopes of these types, or set the connection's scopes"
        return Step(
            name="scopes", verdict="fail", found=f"none of the types is granted: {named(lacking)}", advice=advice
        )
    if lacking:
        advice = "register the app for them, or remove them from types"
        return Step(name="scopes", verdict="warn", found=f"not granted: {named(lacking)}", advice=advice)
    if further := sorted({t for t in referred if not readable(t)}):
        advice = "charts will lack the resources of these types that they refer to; register the app for them"
        return Step(name="scopes", verdict="warn", found=f"not granted: {named(further)}", advice=advice)
    return Step(name="scopes", verdict="ok", found="the server says that everything requested is granted")


async def _searched(request: SyncRequest, client: EhrClient) -> Step:
    """Return one small request: a crawl's Group, the cohort's first patient, or any one Patient."""
    profile, cohort = request.profile, request.cohort
    launch = None
    if cohort is None and request.group is not None:
        path, template, what = f"Group/{quote(request.group, safe='')}", "GET /Group/{group}", "the Group"
    elif cohort is not None and cohort.values and cohort.identifier_system is not None:
        value = quote(f"{cohort.identifier_system}|{cohort.values[0]}", safe="")
        path, template, what = (
            f"Patient?identifier={value}",
            "GET /Patient?identifier={mrn}",
            "the cohort's first entry",
        )
    elif cohort is not None and cohort.values:
        launch = cohort.values[0]
        path, template, what = f"Patient/{quote(launch, safe='')}", "GET /Patient/{id}", "the cohort's first patient"
        if profile.search.patient_by == "_id":
            path, template = f"Patient?_id={quote(launch, safe='')}", "GET /Patient?_id={id}"
    else:
        path, template, what = "Patient?_count=1", "GET /Patient?_count=1", "one Patient"
    purpose: Literal["read", "search"] = "search" if "?" in path else "read"
    try:
        answer = (await client.send(client.fhir_call(path, template, purpose, patient=launch))).body
        body = json_from(answer)
    except QuietHoursError as error:
        return Step(name="search", verdict="warn", found=str(error))
    except ConnectorError as error:
        # a 401 lets nobody in, to an export no more than to a search
        if cohort is None and request.mode != "crawl" and not isinstance(error, AuthError):
            advice = "an export may still be allowed; `chartferry sync --plan` says which"
            return Step(name="search", verdict="warn", found=f"{what}: {error}", advice=advice)
        return _failed("search", error, "check the cohort's ids, and what the app may read")
    except UnreadableJsonError:
        return Step(name="search", verdict="fail", found=f"{template}: the answer is not JSON", advice="check base_url")
    if isinstance(body, dict) and body.get("resourceType") in ("Bundle", "Patient", "Group"):
        try:
            nobody = body["resourceType"] == "Bundle" and not _holds_any(answer, client.base)
        except NotABundleError as error:
            return Step(name="search", verdict="fail", found=f"{template}: {error}", advice="ask the EHR's operator")
        if nobody:
            advice = "check the cohort, or whether this client may see patients"
            return Step(name="search", verdict="warn", found=f"{template} finds nobody", advice=advice)
        return Step(name="search", verdict="ok", found=f"{what} can be read ({template})")
    return Step(name="search", verdict="fail", found=f"{template}: the answer is not a {what}", advice="check base_url")


def _holds_any(bundle: bytes, base: FhirBase) -> bool:
    """Whether a page has anything on it, if only what cannot be read."""
    page = page_from(bundle, base, where="a check")
    return bool(page.records or page.quarantined)


def _reason(error: OSError | TimeoutError) -> str:
    """Say why no connection came about; anyio hangs the system's own error, or several of them, below its own."""
    below = error.__cause__
    tries = [error, *(below.exceptions if isinstance(below, BaseExceptionGroup) else [below])]
    reasons = dict.fromkeys(os.strerror(one.errno) for one in tries if isinstance(one, OSError) and one.errno)
    return "; ".join(reasons) or "no answer"


def _failed(name: str, error: ConnectorError, advice: str) -> Step:
    if isinstance(error, QuietHoursError):
        return Step(name=name, verdict="warn", found=str(error))
    return Step(name=name, verdict="fail", found=str(error), advice=advice)
