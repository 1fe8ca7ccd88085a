"""The licence of a model, by its own card."""

from __future__ import annotations

import re
from pathlib import Path

CARD = "README.md"
_HEAD = 1 << 16  # bytes; the metadata stands first
_FRONT_MATTER = re.compile(r"\A\ufeff?---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
_LICENCE = re.compile(r"^license:[ \t]*['\"]?([A-Za-z0-9][\w.+-]{0,60})['\"]?[ \t]*(?:#.*)?$", re.MULTILINE)


def licence_of(folder: Path) -> str | None:
    """The licence that the card in a model's folder names, as `apache-2.0`; None where it names none.

    The card may be a link, as all files of the hub's cache are: what it says is shown, and decides nothing.
    """
    path = folder / CARD
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            text = file.read(_HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    front = _FRONT_MATTER.match(text)
    found = _LICENCE.search(front.group(1)) if front else None
    return found.group(1) if found else None
