"""stub."""

EXAMPLES: tuple[str, ...] = ("chartferry export",)


def export(types: list[str] = []) -> int:
    """Do."""
    return 0
