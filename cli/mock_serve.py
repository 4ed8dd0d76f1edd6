"""stub."""

EXAMPLES: tuple[str, ...] = ("chartferry mock_serve",)


def serve(types: list[str] = []) -> int:
    """Do."""
    return 0
