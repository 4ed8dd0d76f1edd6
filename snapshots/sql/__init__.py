"""The SQL of snapshots: `.sql` files of named queries, `-- name: x` with a line that says what it does, then the statement.

`load` reads one file; nothing else in the code holds SQL of substance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import LiteralString

_NAMED = re.compile(r"^-- name: (\w+)\n(-- .+\n)+", re.MULTILINE)


@cache
def load(file: str) -> Mapping[str, LiteralString]:
    """Give the queries of `snapshots/sql/<file>.sql` by name.

    LiteralString is honest here: the text comes from a file of this package, not from a user.

    Raises:
        ValueError: a name occurs twice in the file.
    """
    text = resources.files(__package__).joinpath(f"{file}.sql").read_text(encoding="utf-8")
    heads = list(_NAMED.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    queries: dict[str, LiteralString] = {
        head[1]: text[head.end() : end].strip() for head, end in zip(heads, ends, strict=True)
    }
    if len(queries) != len(heads):
        raise ValueError(f"snapshots/sql/{file}.sql names a query twice")
    return MappingProxyType(queries)
