"""How complaints about input are worded: values shown short and without secrets, and the nearest name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST = 60  # characters of a value that a message shows

_PASSWORD = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^:/@\s]*:)[^\s'\"]+(?=@)")
_TOKEN = re.compile(r"(?P<before>https?://)[^:/@\s'\"]+(?=@)")
_QUERY = re.compile(
    r"(?P<before>[?&;](?:password|passwd|pwd|token|secret|api_?key)=)[^&;\s'\"]+", re.IGNORECASE
)


@dataclass(frozen=True)
class Fault:
    """A mistake at a dotted path of a spec, before it is known where in which file that path stands.

    `involves` names the further paths that the judgement rests on: a fault is dropped when one of them is
    itself wrong.
    """

    path: str
    got: str
    expected: str
    remedy: str = ""
    involves: tuple[str, ...] = field(default=(), compare=False)


def masked(text: str) -> str:
    """The text with every password in an address replaced by `***`."""
    for pattern in (_PASSWORD, _TOKEN, _QUERY):
        text = pattern.sub(r"\g<before>***", text)
    return text


def shown(value: Any) -> str:
    """A value as a message shows it: as YAML would have it, short, on one line, without secrets."""
    if isinstance(value, str):
        text = masked(value)
        text = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
        return (
            "'" + text.encode("unicode_escape").decode("ascii") + "'"
            if not text.isprintable()
            else f"'{text}'"
        )
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() < 200 else "a number of more than 60 digits"
    text = masked(json.dumps(value, ensure_ascii=False, default=str))
    if len(text) <= LONGEST:
        return text
    return f"a mapping of {len(value)}" if isinstance(value, Mapping) else f"a list of {len(value)}"


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant, or None.

    Close spelling comes first, then abbreviation: `lrr` means `learning_rate`, its letters in order.
    """
    candidates = list(names)
    lowered = {name.lower(): name for name in candidates}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return lowered[close[0]]
    short = [name for name in candidates if len(word) >= 2 and _abbreviates(word.lower(), name.lower())]
    return min(short, key=len, default=None)


def _abbreviates(word: str, name: str) -> bool:
    letters = iter(name)
    return word[:1] == name[:1] and all(letter in letters for letter in word)
