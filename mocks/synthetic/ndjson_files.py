"""ndjson_files owns writing synthetic resources to disk as `<ResourceType>.ndjson.gz`: what `mock serve --data` reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

from isal import igzip

from mocks.synthetic.generator import generate
from mocks.synthetic.json_bytes import to_json_bytes

_GZIP_LEVEL = 2  # ISA-L's level 2: 13x compression at 1,900 MB/s here; generation is the limit


def write_ndjson(directory: Path, patients: int, seed: int = 0) -> dict[str, int]:
    """Write `generate(patients, seed)` to gzip NDJSON files by type; return the rows of each type."""
    return write_resources(directory, generate(patients, seed))


def write_resources(directory: Path, resources: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Write resources to `directory/<ResourceType>.ndjson.gz` in the order given; return the rows of each type.

    Equal resources give equal bytes (the gzip header has no time and no name). Memory does not grow with the number
    of resources. Files of types that do not occur are not touched.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rows: Counter[str] = Counter()
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for resource in resources:
            resource_type = resource["resourceType"]
            if resource_type not in files:
                files[resource_type] = _open(stack, directory / f"{resource_type}.ndjson.gz")
            files[resource_type].write(to_json_bytes(resource) + b"\n")
            rows[resource_type] += 1
    return dict(rows)


def _open(stack: ExitStack, path: Path) -> BinaryIO:
    raw = stack.enter_context(path.open("wb"))
    zipped = cast("BinaryIO", igzip.IGzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=raw, mtime=0))  # type: ignore[no-untyped-call]
    return stack.enter_context(zipped)
