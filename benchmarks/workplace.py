"""workplace owns what measurements share: a folder, a running embedded Postgres, generated data, and configurations.

Every measured run gets its own tenant, so that it writes into an empty store; the tenant is dropped afterwards. `__main__`
deletes the folder.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

import psycopg
from isal import igzip
from joserfc.jwk import ECKey
from psycopg import sql

from benchmarks.figures import Behaviour
from benchmarks.processes import CHARTFERRY, Measured, measure
from mocks.synthetic import generate_patient, shared_resources, to_json_bytes
from snapshots.embedded import embedded_postgres

CLIENT_ID = "chartferry-benchmark"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class DataSet:
    """Generated resources on disk: `gz/` for the mock, `plain/` for the bare COPY."""

    gz: Path
    plain: Path
    rows_by_type: Mapping[str, int]
    bytes: int

    @property
    def rows(self) -> int:
        """The number of resources."""
        return sum(self.rows_by_type.values())

    @property
    def megabytes(self) -> float:
        """The size as plain NDJSON, in 10^6 bytes."""
        return self.bytes / 1e6


@dataclass
class Workplace:
    """The folder of one bench run and the Postgres in it. A context manager."""

    folder: Path
    megabytes: int
    runs: int
    behaviours: list[Behaviour] = field(default_factory=list)
    pieces: ExitStack = field(default_factory=ExitStack)
    _names: count[int] = field(default_factory=count)
    _data: DataSet | None = None

    def __enter__(self) -> Self:
        self.url = self.pieces.enter_context(embedded_postgres(self.folder / "store"))
        key: Any = ECKey.generate_key("P-384", {"kid": "benchmark", "use": "sig", "alg": "ES384"})
        self.jwks = {"keys": [{**key.as_dict(private=False), "key_ops": ["verify"]}]}
        (self.folder / "key.jwk.json").write_text(json.dumps({**key.as_dict(private=True), "key_ops": ["sign"]}))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.pieces.close()

    def data(self) -> DataSet:
        """Return the generated data set of the configured size, made at the first call."""
        if self._data is None:
            tell(f"generating {self.megabytes} MB of synthetic charts")
            self._data = make_data_set(self.folder / "data", _until(self.megabytes))
        return self._data

    def tenant(self) -> str:
        """Return an unused tenant name."""
        return f"bench{next(self._names)}"

    def drop(self, tenant: str) -> None:
        """Drop a tenant's schema and free its space."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(f"tenant_{tenant}")))
            connection.execute("CHECKPOINT")  # so that this measurement's dirty pages do not slow the next one

    def configure(self, tenant: str, connection: Mapping[str, Any], *, name: str = "ehr") -> Path:
        """Write a chartferry.toml with one connection of the tenant; return its path."""
        store = json.dumps(f"embedded:{self.folder / 'store'}")
        lines = [
            "[store]", f"url = {store}", f"[tenants.{tenant}]",
            f"[connections.{name}]", f"tenant = {json.dumps(tenant)}",
        ]  # fmt: skip
        lines += [f"{key} = {_toml(value)}" for key, value in connection.items()]
        path = self.folder / f"{tenant}-{name}.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def login(self) -> dict[str, Any]:
        """Return a connection's login: client id and key."""
        return {"client_id": CLIENT_ID, "key": f"file:{self.folder / 'key.jwk.json'}"}

    def chartferry(self, config: Path, *arguments: str) -> Measured:
        """Run one chartferry command with that configuration, as a user would."""
        return measure([str(CHARTFERRY), *arguments, "--config", str(config)], self.folder)

    @contextmanager
    def table(self, data: DataSet) -> Iterator[str]:
        """Yield an empty one-column jsonb table, then drop it."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS public.bare; CREATE TABLE public.bare (body jsonb)")
            try:
                yield "public.bare"
            finally:
                connection.execute("DROP TABLE public.bare; CHECKPOINT")


def make_data_set(folder: Path, resources: Iterator[dict[str, Any]]) -> DataSet:
    """Write resources by type, compressed and plain."""
    gz, plain = folder / "gz", folder / "plain"
    gz.mkdir(parents=True)
    plain.mkdir()
    rows: Counter[str] = Counter()
    size = 0
    with ExitStack() as stack:
        files: dict[str, tuple[Any, Any]] = {}
        for resource in resources:
            kind = resource["resourceType"]
            if kind not in files:
                packed = stack.enter_context(_gzip(gz / f"{kind}.ndjson.gz"))
                files[kind] = (packed, stack.enter_context((plain / f"{kind}.ndjson").open("wb")))
            line = to_json_bytes(resource) + b"\n"
            for file in files[kind]:
                file.write(line)
            rows[kind] += 1
            size += len(line)
    return DataSet(gz, plain, rows, size)


def _gzip(path: Path) -> Any:
    return igzip.open(path, "wb", compresslevel=1)  # type: ignore[no-untyped-call]


def _until(megabytes: int, seed: int = 42) -> Iterator[dict[str, Any]]:
    hospital = shared_resources(seed)
    yield from hospital
    size = 0
    for number in count():
        for resource in generate_patient(number, seed, hospital=hospital):
            size += len(to_json_bytes(resource)) + 1
            yield resource
        if size >= megabytes * 1e6:
            return


def copy_in(url: str, table: str, data: DataSet) -> None:
    """COPY the plain files into the one-column table over one connection, in one transaction: the ingest limit.

    CSV with a quote and a delimiter that JSON text cannot contain takes each line unchanged.
    """
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        statement = f"COPY {table} FROM STDIN (FORMAT csv, QUOTE e'\\x01', DELIMITER e'\\x02')"
        with cursor.copy(statement.encode()) as copy:
            for path in sorted(data.plain.iterdir()):
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        copy.write(chunk)


def copy_out(url: str, table: str) -> int:
    """COPY the table out as text and discard it: the export limit. Return the number of bytes."""
    size = 0
    with (
        psycopg.connect(url) as connection,
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} TO STDOUT".encode()) as copy,
    ):
        for chunk in copy:
            size += len(chunk)
    return size


def gunzipped_size(path: Path) -> int:
    """Return the uncompressed size of a gzip file."""
    unpack, size = zlib.decompressobj(31), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(unpack.decompress(chunk))
    return size


def tell(text: str) -> None:
    """Print on stderr what is being measured: stdout is for the table."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)
