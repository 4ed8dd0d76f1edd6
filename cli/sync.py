"""stub."""

EXAMPLES: tuple[str, ...] = ("chartferry sync",)


def sync(types: list[str] = []) -> int:
    """Do."""
    return 0
