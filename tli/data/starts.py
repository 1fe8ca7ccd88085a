"""Writes where the documents of one side of the token files start, while the tokens are written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tli.data.dataset import reason
from tli.data.manifests import STARTS_WIDTH
from tli.errors import DataError, Problem


class Starts:
    """A file of places, ascending and each once, as little-endian uint64."""

    def __init__(self, path: Path) -> None:
        """Make the file."""
        self._path = path
        self._file = path.open("wb")
        self._last: int | None = None  # written once another follows: a document without tokens is none
        self._count = 0

    def add(self, places: Iterable[int]) -> None:
        """Documents that start at these places, in the order of the text."""
        for place in places:
            if self._last is not None and place > self._last:
                self._write(self._last)
            self._last = place

    def finish(self, tokens: int) -> int:
        """Write the last one, if there are more tokens than that; how many documents there are."""
        if self._last is not None and self._last < tokens:
            self._write(self._last)
        return self._count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, place: int) -> None:
        try:
            self._file.write(place.to_bytes(STARTS_WIDTH, "little"))
        except OSError as error:
            raise DataError(Problem(str(self._path), reason(error), "room to write to")) from None
        self._count += 1
