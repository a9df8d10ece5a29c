"""The runner: measures the strategies whose evidence is missing, in real tiers, and stores what it saw."""

__all__: list[str] = []
