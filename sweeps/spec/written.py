"""The values of a spec as they were written, each with its place: what is said of a fault starts there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Source:
    """Plain values and where each dotted path of them was written.

    `places` holds line and column from 1 of the name of a setting, or of an item of a list. `origins` holds
    the command-line option for the paths that came from one.
    """

    name: str
    values: dict[str, Any] = field(repr=False)  # secrets may stand in them
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def where(self, path: str) -> str:
        """A place a person can go to: `file:line:column path`, or the option that the value came from."""
        known = path
        while known and known not in self.places and known not in self.origins:
            known = _parent(known)
        if known in self.origins:
            option = self.origins[known]
            return option if known == path else f"{option} {path}"
        if not self.places:
            return f"{self.name} {path}".rstrip()
        line, column = self.places.get(known, (1, 1))
        return f"{self.name}:{line}:{column} {path}".rstrip()

    def order(self, path: str) -> tuple[int, int]:
        """A sort key that follows the file from top to bottom, options last."""
        while path and path not in self.places and path not in self.origins:
            path = _parent(path)
        return (1 << 30, 0) if path in self.origins else self.places.get(path, (0, 0))


def _parent(path: str) -> str:
    return path[: max(path.rfind("."), path.rfind("["), 0)]
