"""stub."""

EXAMPLES: tuple[str, ...] = ("chartferry pull",)


def pull(types: list[str] = []) -> int:
    """Do."""
    return 0
