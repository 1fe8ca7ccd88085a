"""Bounded, strict reading of JSON files: regular files only, no NaN, no duplicate names.

Configurations, indexes, plans and specs come from outside. A device, a pipe or a file of any size in their
place must not fill the memory or block: only regular files are opened, and at most the limit and one byte is
read. JSON must be what every reader takes: no NaN, no Infinity, no name twice, nothing nested without end.
"""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

from tli.files import reader
from tli.terminal import formatted

CONFIG_LIMIT = 10_000_000  # bytes of a configuration; large ones have some hundred thousand
DEEPEST = 100  # levels of lists and objects


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        ValueError: a device, pipe or folder, or a larger file.
        OSError: the file cannot be opened or read.
    """
    try:
        file = reader(path)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ValueError(error.strerror) from None
        raise
    with file:
        content = file.read(limit + 1)
        size = os.fstat(file.fileno()).st_size
    if len(content) > limit:
        raise ValueError(f"a file of {max(size, limit + 1):,} bytes, larger than {limit:,}")
    return content


def read_json(path: Path, limit: int = CONFIG_LIMIT) -> Any:
    """The JSON value in a file.

    Raises:
        ValueError: what `read_bounded` refuses; text that is no UTF-8 or no JSON; NaN, Infinity, or a number
            that becomes one; a name twice in one object; more than `DEEPEST` levels; halves of characters.
        OSError: the file cannot be opened or read.
    """
    try:
        value = json.loads(
            read_bounded(path, limit).decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError(f"more than {DEEPEST} levels") from None
    _require_plain(value)
    return value


def reason_of(error: Exception) -> str:
    """Why a file could not be read, in one line of at most 200 characters."""
    said = error.strerror if isinstance(error, OSError) else None
    return " ".join((said or str(error) or type(error).__name__).split())[:200]


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large a number")
    return value


def _require_plain(value: Any) -> None:
    """Level by level, so that no nesting can exhaust the stack."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and not _is_text(item):
                raise ValueError("half of a character, which cannot be written again")
        level = inner


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For JSON objects: refuses a name that stands there twice, where plain parsing keeps the last."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"{formatted(name)} is in it twice")
        result[name] = value
    return result


def no_constant(name: str) -> None:
    """For JSON: refuses NaN and Infinity, which Python would take."""
    raise ValueError(f"{name} is no JSON")
