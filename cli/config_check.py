"""`chartferry config check`: every problem in the configuration at once, including keys that cannot be read.

`config` knows what the file may say; this module also checks it against the vendor profiles, the file system and the environment.
It contacts the store, the EHRs and the receivers only with --connect (`connect_check`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from cli.choosing import checked_tenant, override_problems, problems_of_profile
from cli.deidentified import safe_harbor_problems
from cli.exit_codes import ExitCode
from cli.invocation import invocation_of
from cli.render import emit_json, print_line, print_table
from cli.sealed_paths import path_problems
from cli.supervise import supervise
from config.connections import Connection
from config.errors import Problem, SecretUnreadableError
from config.fhir_server import FhirServer, masked_url
from config.how_many import how_many
from config.receivers import Receiver
from config.settings import Settings, read_settings, refused
from connectors.core.errors import AuthError
from connectors.fhir.auth.assertion import load_signing_key
from connectors.fhir.former_keys import former_places
from connectors.fhir.profile import VendorProfile
from connectors.fhir.vendors import PROFILES, profile_for

if TYPE_CHECKING:  # only --connect needs the connectors and the store
    from cli.connect_check import Checked

EXAMPLES = ("chartferry config check", "chartferry config check --connect", "chartferry config check --show")

READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
SHOWN_CHARS = 200
LOCAL_HOSTS = ("://localhost", "://127.", "://[::1]")


ShowOption = Annotated[bool, typer.Option("--show", help="Also print every effective value and where it comes from.")]
ConnectOption = Annotated[
    bool,
    typer.Option(
        "--connect",
        help="Also check the store, and each EHR and receiver: name, TLS, login; of EHRs also metadata, scopes and one search.",
    ),
]


def check(
    context: typer.Context,
    *,
    show: ShowOption = False,
    connect: ConnectOption = False,
) -> int:
    """Check the configuration; report each problem with its key, what was found and what is allowed.

    Exit codes: 0 all is well (apart from notes and warnings), 2 a problem in the configuration, 5 with --connect: a step failed.
    """
    invocation = invocation_of(context)
    tenant, json = invocation.tenant, invocation.json
    settings, problems = read_settings(invocation.config, os.environ, vendors=PROFILES, profile=VendorProfile)
    connections = settings.of_tenant(tenant)
    receivers = {name: each for name, each in settings.receivers.items() if tenant in (None, each.tenant)}
    found = {name: list(server_problems(each, os.environ)) for name, each in connections.items()}
    of_receivers = {name: list(server_problems(each, os.environ)) for name, each in receivers.items()}
    # warn about one connection even if another has a problem
    warnings = [
        *settings_warnings(settings),
        *(text for name, each in connections.items() if not found[name] for text in connection_warnings(each)),
        *(text for name, each in receivers.items() if not of_receivers[name] for text in server_warnings(each)),
    ]
    problems += [
        *settings.encryption.key_problems(os.environ),
        *path_problems(settings),
        *safe_harbor_problems(settings, os.environ),
        *(problem for each in (*found.values(), *of_receivers.values()) for problem in each),
        *misshapen_problems(settings),
    ]
    checked: list[Checked] = []
    if connect:
        store = not any(problem.path.startswith(("store.", "encryption.")) for problem in problems)
        checked = supervise(
            lambda: _connected(
                settings,
                list(connections.values()),
                list(receivers.values()),
                {**_by_path(connections, found), **_by_path(receivers, of_receivers)},
                store=store,
                shows_steps=not json,
            ),
            resume="nothing was changed",
        )
    if problems:
        if not json:
            for warning in warnings:
                print_line(f"note  {warning}")
        raise refused(settings.source, problems)
    checked_tenant(settings, tenant)
    if not connections:
        warnings.append("no connection yet: `chartferry init examples.toml` writes some to copy from")
    values = list(effective(settings, tenant)) if show else None
    if json:
        return _emit(settings, connections, warnings, checked if connect else None, values)
    return _report(settings, connections, warnings, checked, values)


def _emit(
    settings: Settings,
    connections: Mapping[str, Connection],
    warnings: Sequence[str],
    checked: Sequence[Checked] | None,
    values: Sequence[tuple[str, str, str]] | None,
) -> int:
    failed = any(one.verdict == "fail" for one in checked or ())
    answer: dict[str, object] = {
        "status": "failed" if failed else "complete",
        "source": settings.source,
        "connections": list(connections),
        "warnings": warnings,
    }
    if checked is not None:
        answer["steps"] = [asdict(one) for one in checked]
    if values is not None:
        answer["values"] = [{"path": path, "value": value, "from": origin} for path, value, origin in values]
    emit_json(answer)
    return ExitCode.FAILED if failed else ExitCode.COMPLETE


def _report(
    settings: Settings,
    connections: Mapping[str, Connection],
    warnings: Sequence[str],
    checked: Sequence[Checked],
    values: Sequence[tuple[str, str, str]] | None,
) -> int:
    if values is not None:
        print_table(("key", "value", "from"), ((path, _shortened(value), origin) for path, value, origin in values))
    for warning in warnings:
        print_line(f"note  {warning}")
    failed = [one for one in checked if one.verdict == "fail"]
    if failed:
        where = ", ".join(dict.fromkeys(one.where for one in failed))
        print_line(
            f"{settings.source}: {how_many(len(failed), 'step')} failed ({where}); each line above says what to do"
        )
        return ExitCode.FAILED
    known = how_many(len(connections), "connection")
    if doubtful := list(dict.fromkeys(one.where for one in checked if one.verdict == "warn")):
        print_line(f"{settings.source}: no step failed, but read the warnings above ({', '.join(doubtful)}); {known}")
    else:
        print_line(f"{settings.source}: all is well, {known}")
    return ExitCode.COMPLETE


def _by_path(
    servers: Mapping[str, FhirServer], problems: Mapping[str, Sequence[Problem]]
) -> dict[str, Sequence[Problem]]:
    return {each.path: problems[name] for name, each in servers.items()}


async def _connected(
    settings: Settings,
    connections: Sequence[Connection],
    receivers: Sequence[Receiver],
    problems: Mapping[str, Sequence[Problem]],
    *,
    store: bool,
    shows_steps: bool,
) -> list[Checked]:
    """Check the store, every connection and every receiver; print each step as it ends, since the next may take long."""
    from cli.connect_check import check_all  # noqa: PLC0415  only --connect needs it

    checked = []
    async for one in check_all(settings, connections, receivers, problems, store=store):
        checked.append(one)
        if shows_steps:
            print_line(one.line())
    return checked


def server_problems(server: FhirServer, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the problems that `config` cannot see by itself: unreadable secrets and files, overrides that the profile refuses."""
    path = server.path
    read: dict[str, str] = {}
    for key, ref in server.secrets.items():
        try:
            read[key] = ref.read(environ).reveal()
        except SecretUnreadableError as exc:
            found, _, allowed = str(exc).rpartition(": ")
            yield Problem(f"{path}.{key}", found, allowed)
    opens = server.key_passphrase is None or "key_passphrase" in read
    if "key" in read and server.auth == "smart" and opens:
        yield from _key_problems(server, path, read["key"], read.get("key_passphrase"))
    for key, file in server.files.items():
        if not file.is_file() or not os.access(file, os.R_OK):
            found = "this user may not read" if file.exists() else "does not exist"
            found = "is a folder" if file.is_dir() else found
            found += "; folders are separated by /" if "\\" in str(file) else ""
            yield Problem(f"{path}.{key}", f"{file}, which {found}", "a file that can be read")
    yield from problems_of_profile(server)


def misshapen_problems(settings: Settings) -> Iterator[Problem]:
    """Yield the refused overrides of tables that are left out for their wrong shape: all mistakes are reported at once."""
    for path, (vendor, overrides) in settings.misshapen.items():
        yield from override_problems(path, vendor if vendor in PROFILES else "generic", overrides)


def _key_problems(server: FhirServer, path: str, text: str, passphrase: str | None) -> Iterator[Problem]:
    try:
        load_signing_key(text, PROFILES[server.profile_name], kid=server.kid, alg=server.alg, passphrase=passphrase)
    except AuthError as exc:
        yield Problem(f"{path}.key", f"{server.key}, which cannot sign a login", str(exc))


def settings_warnings(settings: Settings) -> Iterator[str]:
    """Yield warnings about the whole file: settings that work but are unwise."""
    if settings.passwords and settings.source.stat().st_mode & READABLE_BY_OTHERS:
        for path in settings.passwords:
            yield (
                f"{path} holds a password, and others on this machine can read {settings.source}; chmod 600 it, or write "
                f'"env:NAME" and put the URL into the environment'
                if path == "store.url"
                else f"{path} holds a password, and others on this machine can read {settings.source}; chmod 600 it"
            )


def server_warnings(server: FhirServer) -> Iterator[str]:
    """Yield warnings about one connection or receiver: settings that work but are unwise."""
    if server.base_url.startswith("http://") and not any(host in server.base_url for host in LOCAL_HOSTS):
        yield f"{server.path}.base_url is http: charts and tokens travel unencrypted"
    for key, ref in server.secrets.items():
        if ref.scheme == "file" and Path(ref.where).stat().st_mode & READABLE_BY_OTHERS:
            yield f"{server.path}.{key}: others on this machine can read {ref.where}: chmod 600 it"


def connection_warnings(connection: Connection) -> Iterator[str]:
    """Yield warnings about one connection: settings that work but are unwise."""
    path = connection.path
    yield from server_warnings(connection)
    for key, place in former_places(connection.profile, VendorProfile).items():
        yield f"{path}.profile.{key} is now {path}.profile.{place}; the former name still works"
    if connection.cohort_system and not connection.cohort:
        yield f"{path}.cohort_system has no effect without cohort"
    if connection.cohort is None and connection.group is None:
        yield from _cohort_problems(connection, path)


def _cohort_problems(connection: Connection, path: str) -> Iterator[str]:
    """Yield why a plain `sync` cannot know its patients: the server does not list them, and the file does not name them."""
    profile = profile_for(connection.vendor, connection.profile)
    mode = profile.mode if connection.mode == "auto" else connection.mode
    whose = f"{path}: neither cohort nor group"
    if mode == "bulk" and not {"system", "patient"} & set(profile.bulk.levels):
        yield f"{whose}: this vendor exports by Group; set group, or name one with `sync --group`"
    elif mode == "crawl" and not profile.search.lists_patients:
        yield f'{whose}: {connection.vendor} does not list patients; set cohort = "file:…", or name them with `sync --patients`'


def effective(settings: Settings, tenant: str | None) -> Iterator[tuple[str, str, str]]:
    """Yield (key path, value, source) of every setting, vendor profiles included."""
    yield "store.url", masked_url(settings.store_url), _origin(settings, "store.url")
    for key, value in settings.export.model_dump().items():
        shown = masked_url(value) if isinstance(value, str) else value
        yield f"export.{key}", _text(shown), _origin(settings, f"export.{key}")
    for key, value in settings.audit.model_dump().items():
        yield f"audit.{key}", _text(value), _origin(settings, f"audit.{key}")
    for name, ref in settings.encryption.keys.items():
        yield f"encryption.keys.{name}", str(ref), "file"
    if settings.encryption.current_key is not None:
        yield "encryption.current", settings.encryption.current_key, _origin(settings, "encryption.current")
    if settings.encryption.paths:
        yield "encryption.paths", _text(sorted(settings.encryption.paths)), _origin(settings, "encryption.paths")
    for role, names in settings.roles.items():
        yield f"roles.{role}", _text(names), "file"
    for connection in settings.of_tenant(tenant).values():
        yield from _effective_of(connection, settings)
    for receiver in settings.receivers.values():
        if tenant in (None, receiver.tenant):
            yield from _effective_of(receiver, settings)


def _effective_of(server: FhirServer, settings: Settings) -> Iterator[tuple[str, str, str]]:
    path = server.path
    for key, value in dict(server).items():
        if key in ("name", "profile"):
            continue
        written = "validate" if key == "validate_resources" else key
        text = masked_url(value) if key == "proxy" and value else _text(value)
        origin = _origin(settings, f"{path}.{written}")
        if key == "auth" and origin == "default" and value != "none":
            origin = "implied by the other keys"
        yield f"{path}.{written}", text, origin
    profile = profile_for(server.profile_name, server.profile)
    written_flat = set(former_places(server.profile, VendorProfile).values())
    for key, value in profile:
        fields = {f"{key}.{name}": each for name, each in value} if isinstance(value, BaseModel) else {key: value}
        for field, each in fields.items():
            in_file = field in written_flat or f"{path}.profile.{field}" in settings.written
            origin = "file" if in_file else f"profile of {server.profile_name}"
            yield f"{path}.profile.{field}", _text(each), origin


def _shortened(value: str) -> str:
    """Shorten long values to keep the table readable (client ids of 1,000 characters exist); --json prints them whole."""
    return value if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]}… ({len(value):,} characters)"


def _origin(settings: Settings, path: str) -> str:
    return "file" if path in settings.written else "default"


def _text(value: Any) -> str:
    if value is None:
        return "(not set)"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "(none)"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {each}" for key, each in value.items()) or "(none)"
    return str(value)
