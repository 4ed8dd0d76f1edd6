"""The settings of one chartferry: store, tenants, connections and export defaults, read from one TOML file.

Finds the file, reads it and reports every problem in it at once. `chartferry config check` checks that referenced files exist and
that profile overrides are valid.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo

from config.accountability import AuditRules, role_problems
from config.connections import Connection, place_in_connection
from config.encryption import Encryption
from config.errors import ConfigError, ConfigNotFoundError, Problem
from config.fhir_server import OptionalRef, masked_url
from config.how_many import how_many
from config.key_places import place_near, places_of, tables_of
from config.near_words import nearest
from config.quoted_values import shown
from config.receivers import Receiver
from config.resource_types import as_list
from config.secret_refs import ALLOWED
from config.source import NAME_PATTERN, NAME_RULE, Source
from config.toml_text import pasted_problem, texts, tree_of

FILE_NAME = "chartferry.toml"
ENVIRON_CONFIG = "CHARTFERRY_CONFIG"
STORE_RULE = '"embedded", "embedded:DIR", "postgresql://user@host/db" or "env:NAME"'

# pydantic's kinds of error -> what is allowed, in words of TOML
_WANTED = {
    "string_type": "text, in quotes",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false, without quotes"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number, without quotes"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number, without quotes"),
    "path_type": "text, in quotes",
    "finite_number": "a number that is not infinite",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a table, such as {{ key = value }}"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list, such as [ value, value ]"),
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}

Model = TypeVar("Model", bound=BaseModel)
Named = TypeVar("Named", bound=Source)


def _out(value: object, info: ValidationInfo) -> object:
    """Return a URL as it is, and a folder's path as it is meant: relative to the file."""
    if value is not None and not isinstance(value, str):
        raise ValueError("a folder or a URL, in quotes")
    if value is None or "://" in value:
        return value
    if value.strip() in ("", "-"):
        raise ValueError("a folder or a URL: an export is several files")
    base = (info.context or {}).get("base", Path.cwd())
    return (base / Path(value).expanduser()).resolve()


class Tenant(BaseModel):
    """An organisation whose data never mix with another's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str | None = None


class ExportDefaults(BaseModel):
    """Defaults for `chartferry export`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Annotated[Path | str | None, BeforeValidator(_out)] = None  # a folder, or a URL
    format: tuple[Literal["ndjson", "csv", "parquet", "duckdb"], ...] = ("ndjson", "csv")
    views: tuple[str, ...] = ()
    safe_harbor_key: OptionalRef = None  # of `--profile safe-harbor`
    refresh_views: bool = False  # materialised SQL views (`views create --materialized`), after each sync

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for key, value in super().__repr_args__():
            yield key, masked_url(value) if isinstance(value, str) else value


class Settings(BaseModel):
    """The whole configuration, checked and with defaults filled in. Frozen; its repr shows no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    store_url: str = "embedded"
    tenants: dict[str, Tenant] = {}
    connections: dict[str, Connection] = {}
    receivers: dict[str, Receiver] = {}
    export: ExportDefaults = ExportDefaults()
    audit: AuditRules = AuditRules()
    encryption: Encryption = Encryption()
    roles: dict[str, tuple[str, ...]] = {}  # who is in a role, by the names that `--as` or the account give
    # vendor and overrides of the tables of connections that cannot be read, by key path
    misshapen: dict[str, tuple[str, dict[str, Any]]] = {}
    written: frozenset[str] = frozenset()  # key paths that the file sets; all others are defaults
    passwords: tuple[str, ...] = ()  # key paths of URLs in the file that contain a password

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for key, value in super().__repr_args__():
            yield key, masked_url(value) if key == "store_url" else value

    def of_tenant(self, tenant: str | None) -> dict[str, Connection]:
        """Return the connections of one tenant, or all of them for None."""
        return {name: each for name, each in self.connections.items() if tenant in (None, each.tenant)}


def find_config(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file to read: `path`, else $CHARTFERRY_CONFIG, else ./chartferry.toml, else the user's.

    ConfigNotFoundError lists the places searched.
    """
    if path is None and environ.get(ENVIRON_CONFIG):
        path = Path(environ[ENVIRON_CONFIG])
        named = f"${ENVIRON_CONFIG}"
    else:
        named = "--config"
    if path is not None:
        if path.is_file():
            return path.resolve()
        what = "that is not a file" if path.exists() else "there is no such file"
        raise ConfigNotFoundError(f"{named} names {path}: {what}; write one with `chartferry init`")
    places = [Path(FILE_NAME).resolve(), platformdirs.user_config_path("chartferry") / FILE_NAME]
    for place in places:
        if place.is_file():
            return place
        if place.exists():
            raise ConfigNotFoundError(f"{place} is not a file; move it away, or name a file with --config")
    looked = ", ".join(str(place) for place in places)
    raise ConfigNotFoundError(
        f"no configuration found; looked at --config, ${ENVIRON_CONFIG}, {looked}; write one with `chartferry init`"
    )


def load_settings(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    vendors: Collection[str] = (),
    profile: type[BaseModel] | None = None,
) -> Settings:
    """Read and check the configuration; ConfigError carries every problem with key path, found and allowed."""
    settings, problems = read_settings(path, environ, vendors=vendors, profile=profile)
    if problems:
        raise refused(settings.source, problems)
    return settings


def read_settings(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    vendors: Collection[str] = (),
    profile: type[BaseModel] | None = None,
) -> tuple[Settings, list[Problem]]:
    """Read as much as possible, and return it with every problem; connections whose shape is wrong are left out.

    `vendors` are the known vendors; if empty, any word may name a vendor. `profile` is the model of a vendor's profile, for the
    place of a key that stands outside it.
    Raises ConfigError only if nothing can be read at all: no file, or no TOML.
    """
    source = find_config(path, environ)
    try:
        tree, unread = tree_of(source.read_bytes())
    except OSError as exc:
        raise ConfigError(f"{source} cannot be read: {exc.strerror}; check its permissions", source=source) from exc
    if unread:
        raise refused(source, unread)

    context = {"base": source.parent, "vendors": tuple(vendors), "profile": profile, "misshapen": {}}
    tops = ("store", "tenants", "connections", "receivers", "export", "audit", "roles", "encryption")
    store = tree.get("store", {})
    problems: list[Problem] = [*_unknown(tree, tops, "", profile), *_unknown(store, ("url",), "store.", profile)]
    store_url = _store_url(_table(tree, "store", problems), source.parent, environ, problems)
    export = _parse(ExportDefaults, _table(tree, "export", problems), "export", context, problems)
    audit = _parse(AuditRules, _table(tree, "audit", problems), "audit", context, problems)
    encryption = _parse(Encryption, _table(tree, "encryption", problems), "encryption", context, problems)
    roles, wrong_roles = role_problems(_table(tree, "roles", problems))
    problems.extend(wrong_roles)
    problems.extend(encryption.problems(roles) if encryption is not None else ())
    tenants = _tenants(_table(tree, "tenants", problems), context, problems)
    connections = _sources(Connection, _table(tree, "connections", problems), context, set(tenants), problems)
    receivers = _sources(Receiver, _table(tree, "receivers", problems), context, set(tenants), problems)
    settings = Settings(
        source=source,
        store_url=store_url,
        tenants=tenants,
        connections=connections,
        receivers=receivers,
        export=export or ExportDefaults(),
        audit=audit or AuditRules(),
        encryption=encryption or Encryption(),
        roles=roles,
        misshapen=context["misshapen"],
        written=frozenset(_paths(tree)),
        passwords=tuple(path for path, text in texts(tree) if masked_url(text) != text),
    )
    pasted = {path: Problem(path, *wrong) for path, text in texts(tree) if (wrong := _pasted(path, text))}
    return settings, [*pasted.values(), *(problem for problem in problems if problem.path not in pasted)]


def _pasted(path: str, text: str) -> tuple[str, str] | None:
    return None if path.startswith("tenants.") else pasted_problem(text)  # a label is free text


def refused(source: Path, problems: list[Problem]) -> ConfigError:
    """Return the error that lists these problems of this file."""
    return ConfigError(f"{source}: {how_many(len(problems), 'problem')}", problems=problems, source=source)


def _table(tree: Mapping[str, Any], key: str, problems: list[Problem]) -> dict[str, Any]:
    value = tree.get(key, {})
    if isinstance(value, dict):
        return value
    of_tables = key in ("connections", "receivers", "tenants")
    problems.append(Problem(key, shown(key, value), f"a table: [{key}.NAME]" if of_tables else f"a table: [{key}]"))
    return {}


def _unknown(table: Any, known: Iterable[str], path: str, profile: type[BaseModel] | None) -> Iterator[Problem]:
    names = list(known)
    for key in table if isinstance(table, dict) else ():
        if key not in names:
            guess = nearest(key, names)
            hint = f"did you mean {guess}? " if guess else ""
            hint = _in_a_connection(key, profile) or hint
            yield Problem(f"{path}{key}", "an unknown key", f"{hint}one of: {', '.join(names)}")


def _store_url(table: dict[str, Any], base: Path, environ: Mapping[str, str], problems: list[Problem]) -> str:
    url = table.get("url", "embedded")
    if not isinstance(url, str):
        problems.append(Problem("store.url", shown("url", url), STORE_RULE))
        return "embedded"
    if url.startswith("env:"):
        name = url.removeprefix("env:")
        if name not in environ:
            problems.append(Problem("store.url", f"{url}, which is not set", f"export {name}, or {STORE_RULE}"))
            return "embedded"
        url = environ[name].strip()  # a file's content, put into a variable, ends with a line end
    if url.startswith("embedded:") and url.removeprefix("embedded:"):
        return f"embedded:{(base / Path(url.removeprefix('embedded:')).expanduser()).resolve()}"
    if url != "embedded" and not re.match(r"postgres(ql)?://", url):
        # without :// nobody can tell which part of it is a password
        quotable = "://" in url or "@" not in url
        found = shown("url", masked_url(url)) if quotable else "no URL; it is not shown because of its @"
        problems.append(Problem("store.url", found, STORE_RULE))
    return url


def _tenants(table: dict[str, Any], context: Mapping[str, Any], problems: list[Problem]) -> dict[str, Tenant]:
    found = {}
    for name, entry in table.items():
        if not re.match(NAME_PATTERN, name):
            problems.append(Problem(f"tenants.{name}", repr(name), NAME_RULE))
        tenant = _parse(Tenant, entry, f"tenants.{name}", context, problems)
        found[name] = tenant or Tenant()
    return found


def _sources(
    model: type[Named], table: dict[str, Any], context: Mapping[str, Any], tenants: set[str], problems: list[Problem]
) -> dict[str, Named]:
    found = {}
    for name, entry in table.items():
        path = f"{model.table}.{name}"
        if not isinstance(entry, dict):
            unnamed = name in {field.alias or each for each, field in model.model_fields.items()}
            rule = f"this key below a table that names the {model.table.removesuffix('s')}: [{model.table}.NAME]"
            named = f"a table: [{path}]; a key stands below [{model.table}.NAME]"
            problems.append(Problem(path, shown(name, entry), rule if unnamed else named))
            continue
        if not re.match(NAME_PATTERN, name):
            problems.append(Problem(path, repr(name), NAME_RULE))
            name = "x"  # noqa: PLW2901  so that its other keys are still checked
        if "name" in entry:
            rule = f"no such key: the name is the table's, [{path}]"
            problems.append(Problem(f"{path}.name", "an unknown key", rule))
        source = _parse(model, {**entry, "name": name}, path, context, problems)
        problems.extend(model.missing(entry, path))
        tenant = entry.get("tenant", "default")
        if tenants and isinstance(tenant, str) and tenant not in {"default", *tenants}:
            guess = nearest(tenant, tenants)
            hint = f"did you mean {guess}? " if guess else ""
            allowed = f"{hint}one of: {', '.join(sorted(tenants))}; or declare [tenants.{tenant}]"
            problems.append(Problem(f"{path}.tenant", repr(tenant), allowed))
        if source is not None:
            found[name] = source
        elif isinstance(overrides := entry.get("profile"), dict):
            context["misshapen"][path] = (str(entry.get("vendor")), overrides)
    return found


def _parse(
    model: type[Model], table: Any, path: str, context: Mapping[str, Any], problems: list[Problem]
) -> Model | None:
    try:
        return model.model_validate(table, context=dict(context))
    except ValidationError as exc:
        problems.extend(problems_of(exc, model, path, context["profile"]))
        return None


def problems_of(
    error: ValidationError, model: type[BaseModel], path: str, profile: type[BaseModel] | None = None
) -> Iterator[Problem]:
    """Yield a pydantic error as problems in plain words; never quote secrets, suggest close names.

    If `profile` is given, a key of a connection or its profile that stands elsewhere is answered with its place.
    """
    known = {field.alias or name: field for name, field in model.model_fields.items() if name != "name"}
    for one in error.errors(include_url=False):
        if not one["loc"] and one["type"] == "value_error":
            continue  # an incomplete login: `auth_problems` names the missing keys
        key = str(one["loc"][0]) if one["loc"] else ""
        where = ".".join(
            [path, *(str(part) for part in one["loc"] if part != "[key]")]
        )  # the table's key itself is wrong
        context = one.get("ctx", {})
        found = "nothing" if one["type"] == "missing" else shown(key, one["input"])
        match one["type"]:
            case "extra_forbidden":
                table = tables_of(model).get(key) if len(one["loc"]) > 1 else None
                names = list(known if table is None else table.model_fields)
                last = str(one["loc"][-1])
                place = _in_a_connection(last, profile, inside=model is Connection) if table is None else ""
                hint = place or _meant(last, model, table)
                yield Problem(where, "an unknown key", f"{hint}one of: {', '.join(names)}")
            case "missing":
                yield Problem(where, found, "required")
            case "literal_error":
                options = re.findall(r"'([^']+)'", str(context["expected"]))
                guess = nearest(str(one["input"]), options)
                hint = f"; did you mean {guess}?" if guess else ""
                yield Problem(where, found, f"one of: {', '.join(options)}{hint}")
            case "value_error":
                yield Problem(where, found, str(context["error"]))
            case "tuple_type" if isinstance(one["input"], str):
                words = [word for word in re.split(r"[,;\s]+", one["input"]) if word]
                yield Problem(where, found, f"a list: {as_list(words)}")
            case "is_instance_of" if "SecretRef" in one["msg"]:
                yield Problem(where, found, ALLOWED)
            case kind if kind in _WANTED:
                whole = {name: int(one) for name, one in context.items() if isinstance(one, float) and one.is_integer()}
                yield Problem(where, found, _WANTED[kind].format(**{**context, **whole}))
            case _:
                yield Problem(where, found, one["msg"][0].lower() + one["msg"][1:])


def _in_a_connection(key: str, profile: type[BaseModel] | None, *, inside: bool = False) -> str:
    """Return a hint at the place in a connection of a key that stands elsewhere; `inside`: in the connection's own table."""
    place = None if profile is None else place_in_connection(key, profile)
    where = "" if inside else "below [connections.NAME], "
    return f"{where}write {place}; " if place else ""


def _meant(key: str, model: type[BaseModel], table: type[BaseModel] | None) -> str:
    """Return a hint at what an unknown key of `model`, or of a table in it, means: it may stand in another table."""
    if places := places_of(key, model):
        return f"write {' or '.join(places)}; "
    guess = nearest(key, table.model_fields) if table is not None else None
    guess = guess or place_near(key, model)
    return f"did you mean {guess}? " if guess else ""


def _paths(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")
