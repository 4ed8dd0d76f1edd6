"""Says on whose behalf a command runs: the account of the operating system, or whom `--as` names; its roles; why."""

from __future__ import annotations

import os
import pwd
import socket

import typer

from cli.invocation import Invocation
from config.accountability import roles_of
from config.settings import Settings
from snapshots.actor import Actor


def account() -> str:
    """Return the account that runs this process. Not from the environment, where anyone can write another name."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container without a passwd entry
        return f"uid {number}"


def actor_of(invocation: Invocation, settings: Settings, *, reads_charts: bool) -> Actor:
    """Return who acts; raise a usage error if the configuration demands a reason for reading charts, and there is none."""
    if reads_charts and settings.audit.require_reason and not invocation.reason:
        raise typer.BadParameter(
            f"{settings.source} demands a reason for reading charts ([audit] require_reason): add --reason, such as "
            '--reason "treatment, ticket 4711". It is kept in the audit; name no patient in it.'
        )
    login = account()
    name = invocation.acting_as or login
    return Actor(
        name=name,
        login=login,
        roles=roles_of(name, settings.roles),
        origin=socket.gethostname(),
        reason=invocation.reason,
    )
