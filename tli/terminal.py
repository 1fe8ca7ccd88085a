"""Escapes text for a terminal: characters that would steer it are written out."""

from __future__ import annotations

import unicodedata
from typing import Any


def printable(text: str) -> str:
    r"""The text with every character that steers a terminal, or cannot be encoded, as its escape.

    Names, error texts and file names come from elsewhere: an ESC in one would move the cursor, rename the
    window or hide what follows. Line ends, tabs and every visible character stay: `"a\x1b[2J"` becomes
    `"a\\x1b[2J"`.
    """
    if text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character in "\n\t" or character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")


def formatted(value: Any, limit: int = 200) -> str:
    """A name or value as it may be shown: in ASCII, and not at any length."""
    text = ascii(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def formatted_bare(text: str, limit: int = 200) -> str:
    """A name as it may be shown in a place: as `formatted`, without quotes."""
    return formatted(text, limit + 2).strip("'\"")
