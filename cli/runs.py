"""stub."""

EXAMPLES: tuple[str, ...] = ("chartferry runs",)


def runs(types: list[str] = []) -> int:
    """Do."""
    return 0
