"""Decides for whom a command runs: the operating system's account, or the person that `--as` names; with roles and reason."""

from __future__ import annotations

import os
import pwd
import socket

import typer

from cli.invocation import Invocation
from cli.render import print_message
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


def actor_of(invocation: Invocation, settings: Settings, *, reads_charts: bool, opens_values: bool = True) -> Actor:
    """Return the actor, and warn on stderr if a mask is lifted.

    `opens_values`: False if what is encrypted is read as it is, so that there is nothing to mask.

    A usage error says that a reason is missing (white space does not count) although the configuration requires one for reading
    charts, or a mask is lifted.
    """
    glass = (invocation.break_glass or "").strip() or None
    if invocation.break_glass is not None and glass is None:
        raise typer.BadParameter(
            '--break-glass needs a reason, such as --break-glass "unconscious, ward 3". It is kept in the audit; name no '
            "patient in it."
        )
    reason = (invocation.reason or "").strip() or glass
    if reads_charts and settings.audit.require_reason and not reason:
        raise typer.BadParameter(
            f"{settings.source} requires a reason for reading charts ([audit] require_reason): add --reason, such as "
            '--reason "treatment, ticket 4711". It is kept in the audit; name no patient in it.'
        )
    login = account()
    name = invocation.acting_as or login
    roles = roles_of(name, settings.roles)
    masked = settings.encryption.masks(roles)
    shows = reads_charts and opens_values
    broke_glass = glass if masked and shows else None
    if masked and shows and not broke_glass:
        seeing = ", ".join(settings.encryption.shown_to or ()) or "nobody"
        print_message(
            f"masked   {name} sees *** in place of encrypted values (shown to: {seeing}); --break-glass REASON lifts that"
        )
    if broke_glass:
        print_message(
            f"BREAK-GLASS: {name} is in no role that sees encrypted values, and sees them now. The audit records who, what "
            "and why."
        )
    return Actor(
        name=name,
        login=login,
        roles=roles,
        origin=socket.gethostname(),
        reason=reason,
        masked=masked and not broke_glass,
        broke_glass=broke_glass,
    )
