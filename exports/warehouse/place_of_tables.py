"""Finds the folder of Delta tables that a name means. Only this module imports the extra that writes them."""

from __future__ import annotations

from exports.errors import MissingExtraError
from exports.formats.table_file import load_formats
from exports.warehouse.warehouse_port import Warehouse


def delta_folder(place: str) -> Warehouse:
    """Return the folder that a name or a URL means.

    Raises:
        PlanError: no Delta table can be there.
        MissingExtraError: nothing is installed that writes them.
    """
    load_formats(["parquet"])  # as it is imported for files
    try:
        from exports.warehouse.delta import DeltaFolder
    except ImportError:
        raise MissingExtraError("writes Delta tables", "delta") from None
    return DeltaFolder(place)
