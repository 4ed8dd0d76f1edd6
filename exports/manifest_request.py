"""What the manifest says about an export's request. Pure. `manifest` has the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from exports.criteria import Applied
from exports.plan import ExportRequest, PlannedFile
from exports.queries.statement import Statement


def request_entry(
    request: ExportRequest,
    files: Sequence[PlannedFile],
    applied: Sequence[Applied],
    statements: Sequence[Statement],
    *,
    changed_since: int | None,
) -> dict[str, Any]:
    """Return the request for the manifest: no path of this machine, and patients only as a count and a checksum."""
    patients: dict[str, Any] | None = None
    if request.patients is not None:
        ids = sorted(set(request.patients))
        patients = {"count": len(ids)}
        if request.safe_harbor is None and request.recipients is None:  # a few ids could be guessed by their checksum
            patients["sha256"] = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    # once a format, also where a table has several files
    views = dict.fromkeys(
        (file.kind, one.name, one.view.digest) for file in files for one in file.tables if one.view is not None
    )
    return {
        "formats": list(request.wanted_formats),
        "types": sorted(set(request.types)),
        "views": [{"name": name, "sha256": digest} for _, name, digest in views],
        "connections": sorted(set(request.connections)),
        "patients": patients,
        **({"queries": [{"name": one.name, "sha256": one.digest} for one in statements]} if statements else {}),
        **({} if changed_since is None else {"changed_since": changed_since}),
        **({"where": [_criterion(one, request) for one in applied]} if applied else {}),
        **({} if request.sample is None else {"sample": {"patients": request.sample, "seed": request.seed}}),
        **({} if request.limit is None else {"limit": request.limit}),
        **({} if request.part_size is None else {"part_size": request.part_size}),
        **({} if request.partition_by is None else {"partition_by": request.partition_by}),
    }


def _criterion(one: Applied, request: ExportRequest) -> dict[str, Any]:
    return {
        "type": one.resource_type,
        # beside encrypted files the manifest stays readable, and an expression may have a name or a birth date
        **({"paths": list(one.paths)} if request.recipients is None else {}),
        **({"undecided": one.undecided} if one.undecided else {}),
    }
