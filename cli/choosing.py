"""Chooses the connections and the tenant that a command line means. Usage errors suggest the closest name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer
from pydantic import ValidationError

from cli.refused_words import no_such
from config.connections import Connection, keys_of_connection
from config.errors import Problem
from config.fhir_server import FhirServer
from config.receivers import Receiver
from config.settings import Settings, problems_of, refused
from connectors.fhir.profile import VendorProfile
from connectors.fhir.vendors import profile_for


def choose_connections(settings: Settings, tenant: str | None, names: list[str]) -> list[Connection]:
    """Return the named connections, or all of the tenant's; raise a usage error that suggests the closest name.

    ConfigError names what `config` cannot check by itself: overrides that the vendors' profiles refuse.
    """
    checked_tenant(settings, tenant)
    known = settings.of_tenant(tenant)
    for name in names:
        if name not in known:
            whose = f"of tenant {tenant} " if tenant else ""
            raise typer.BadParameter(no_such("connection", name, known, f"{whose}in {settings.source}"))
    chosen = [known[name] for name in dict.fromkeys(names)] if names else list(known.values())
    if problems := [problem for each in chosen for problem in problems_of_profile(each)]:
        raise refused(settings.source, problems)
    return chosen


def choose_receiver(settings: Settings, tenant: str | None, name: str) -> Receiver:
    """Return the named receiver of the tenant; raise a usage error that suggests the closest name.

    ConfigError names overrides that the profile refuses.
    """
    checked_tenant(settings, tenant)
    known = {each.name: each for each in settings.receivers.values() if tenant in (None, each.tenant)}
    if name not in known:
        declare = "" if known else "; declare one as [receivers.NAME]"
        raise typer.BadParameter(no_such("receiver", name, known, f"in {settings.source}") + declare)
    if problems := list(problems_of_profile(known[name])):
        raise refused(settings.source, problems)
    return known[name]


def problems_of_profile(server: FhirServer) -> Iterator[Problem]:
    """Yield a server's overrides that its profile refuses."""
    yield from override_problems(server.path, server.profile_name, server.profile)


def override_problems(server: str, profile: str, overrides: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the overrides that a profile refuses; `server` is the key path of the table that has them."""
    if not overrides:
        return

    try:
        profile_for(profile, overrides)
    except ValidationError as exc:
        path = f"{server}.profile"
        for one in problems_of(exc, VendorProfile, path):
            key = one.path.removeprefix(f"{path}.")
            beside = f"write {key} = … beside profile, not in it; " if key in keys_of_connection() - {"mode"} else ""
            yield one._replace(allowed=beside + one.allowed)


def checked_tenant(settings: Settings, tenant: str | None) -> None:
    """Raise a usage error that lists the tenants if the configuration does not know this one."""
    known = {"default", *settings.tenants, *(each.tenant for each in settings.connections.values())}
    if tenant is not None and tenant not in known:
        raise typer.BadParameter(no_such("tenant", tenant, sorted(known), f"in {settings.source}"))


def choose_tenant(settings: Settings, tenant: str | None) -> str:
    """Return the tenant whose store to open: the named one, else the only one; raise a usage error if there are several."""
    if tenant is not None:
        checked_tenant(settings, tenant)
        return tenant
    tenants = sorted({each.tenant for each in settings.connections.values()}) or ["default"]
    if len(tenants) > 1:
        raise typer.BadParameter(f"tenants' data never mix: name one with --tenant ({', '.join(tenants)})")
    return tenants[0]
