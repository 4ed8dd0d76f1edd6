"""stub."""

EXAMPLES: tuple[str, ...] = ("chartferry demo",)


def demo(types: list[str] = []) -> int:
    """Do."""
    return 0
