"""How much memory this process may use: the machine's, or less where a container, a service or a shell sets a limit.

Owns where Linux keeps those limits. `embedded` decides what the server takes of it.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def memory_bytes(own_groups: Path = Path("/proc/self/cgroup"), groups: Path = _GROUPS) -> int:
    """Return the least of the machine's memory, the limits of this process's control groups, and its address space's limit.

    A limit that cannot be read counts as none.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        found.append(address_space)
    for limit in _limits(own_groups, groups):
        with suppress(OSError, ValueError):  # no such file, or "max"
            found.append(int(limit.read_text()))
    return min(found)


def _limits(own_groups: Path, groups: Path) -> Iterator[Path]:
    """Yield the files that may hold a limit: of each group from the process's own up to the root, in cgroup 2 and 1."""
    lines = []
    with suppress(OSError):
        lines = own_groups.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = root / path.lstrip("/")
        yield from (group / name for group in (own, *own.parents) if group.is_relative_to(root))
