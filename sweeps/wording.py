"""The wording of problems: values formatted short and without secrets, and the nearest name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.addresses import MASK, masked_address, secret_name

LONGEST = 60  # characters of a value that a message shows
_DEEPEST = 20  # levels of a value that are looked into

# All of these read a text in time proportional to its length, whatever stands in it.
# An address in a text begins behind a blank, a quote or a bracket; a password may hold `://` itself.
_ADDRESS = re.compile(r"(?<![A-Za-z0-9+.:/@-])(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WORD_END = re.compile(r"[\s'\"`<>)\]}]")
_ASSIGNED = re.compile(
    r"""(?<![\w.%+-])(?P<key>[\w.%+-]*\w)(?P<equals>\s*=\s*)
    (?P<value>'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | (?:\\.|[^\s&;,)\]}'"])(?:\\.|[^\s&;,)\]}])*)""",
    re.VERBOSE,
)
_KEYED = re.compile(r"""(?P<key>(?P<quote>['"])[\w.-]+(?P=quote)\s*:\s*)(?P<value>"[^"]*"|'[^']*')""")
_TOLD = re.compile(r"(?i)(?P<before>\b(?:password|passwd|passphrase|secret|api[_-]?key)\s*:\s+)\S+")
_HEADER = re.compile(r"(?i)(?P<before>\bauthorization['\"]?\s*[:=]\s*['\"]?|\bbearer\s+(?=\S*\d))[^'\"\n]+")
# What some services' tokens look like, wherever they stand.
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[a-z]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[\w-]{16,}|xox[a-z]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|eyJ[\w-]{8,300}\.[\w-]{8,2000}\.[\w-]*)"
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
    """The text with `***` in the place of everything in it that is, or may be, a secret.

    For text that other programs wrote, so it rather hides too much. A text that begins as an address is read
    as one to its end.
    """
    if _SCHEME.match(text):
        text = masked_address(text)
    elif "=" in text or ":" in text:
        text = "\n".join(map(_masked_line, text.split("\n")))
    return _SHAPES.sub(MASK, text)


def _masked_line(line: str) -> str:
    first, *others = _ADDRESS.split(line)
    return "".join([_masked_words(first), *map(_masked_part, others)])


def _masked_part(text: str) -> str:
    """An address and what follows it, to the next address or the end of the line."""
    scheme = _SCHEME.match(text)
    assert scheme is not None, "parts begin with one"
    end = _WORD_END.search(text, scheme.end())
    size = end.start() if end else len(text)
    if re.match(r"[^:/]*:[^@]*@", text[scheme.end() :]):  # a password may hold blanks and quotes
        last = text.rfind("@")
        end = _WORD_END.search(text, last)
        size = max(size, end.start() if end else len(text))
    key, _, value = re.split("[?&;]", text[:size])[-1].partition("=")
    if secret_name(key) and not value.startswith(MASK):  # here, too, and where it ends is not known
        size = len(text)
    return masked_address(text[:size]) + _masked_words(text[size:])


def _masked_words(text: str) -> str:
    """Text without addresses: assignments, mappings and headers of HTTP."""
    text = _ASSIGNED.sub(_masked_value, text)
    text = _KEYED.sub(_masked_value, text)
    for pattern in (_TOLD, _HEADER):
        text = pattern.sub(rf"\g<before>{MASK}", text)
    return text


def _masked_value(found: re.Match[str]) -> str:
    if not secret_name(found["key"]):
        return found[0]
    return found[0][: found.start("value") - found.start()] + MASK


def holds_any(value: Any) -> bool:
    """Whether a plain value, or one in it, is or may be a secret."""
    return bool(_masked_inside(value) != value)


def _masked_inside(value: Any, level: int = 0) -> Any:
    """Plain values with every text in them masked: within a longer text an address has no certain end."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping | list | tuple) and level > _DEEPEST:
        return MASK
    if isinstance(value, Mapping):
        return {
            masked(str(key)): MASK if secret_name(str(key)) else _masked_inside(each, level + 1)
            for key, each in value.items()
        }
    return [_masked_inside(each, level + 1) for each in value] if isinstance(value, list | tuple) else value


def formatted(value: Any) -> str:
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
    text = json.dumps(_masked_inside(value), ensure_ascii=False, default=lambda other: masked(str(other)))
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
