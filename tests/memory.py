"""Positions in memory, as the engine keeps them on disk."""

from typing import Any


class Memory:
    """See `contract.Positions`; what is put is there at once."""

    damaged = False

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}

    def load(self) -> dict[str, dict[str, Any]]:
        return {**self.entries}

    def put(self, key: str, value: dict[str, Any]) -> None:
        self.entries[key] = value

    def remove(self, key: str) -> None:
        self.entries.pop(key, None)
