"""A spec as YAML text with comments: what a program writes for a user to read and change."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from tli.terminal import printable

_WIDTH = 100  # characters of a line of comment


def commented(plain: Mapping[str, Any], comments: Mapping[str, Sequence[str]]) -> str:
    """YAML of nested mappings, in their order, each commented path below its comments.

    Args:
        plain: values as JSON has them; those of `search` are one line each.
        comments: sentences by dotted path; those of the empty path stand first.
    """
    lines = [*_comment(comments.get("", ()), 0), *([""] if comments.get("") else [])]
    for name, value in plain.items():
        lines += [*_lines(name, value, name, comments, 0), ""]
    return "\n".join(lines).rstrip() + "\n"


def _lines(
    name: str, value: Any, path: str, comments: Mapping[str, Sequence[str]], depth: int
) -> Iterator[str]:
    """One key; a mapping goes on in lines of its own, unless it is short or a range."""
    yield from _comment(comments.get(path, ()), depth)
    inside = any(other.startswith(f"{path}.") for other in comments)
    one = f"{'  ' * depth}{_flow(name)}: {_flow(value)}"
    nested = isinstance(value, Mapping) and value
    if not nested or (not inside and len(one) <= _WIDTH and (depth > 0 or path != "search")):
        yield one
        return
    yield f"{'  ' * depth}{_flow(name)}:"
    for inner, each in value.items():
        yield from _lines(inner, each, f"{path}.{inner}", comments, depth + 1)


def _flow(value: Any) -> str:
    """A value in one line, as YAML 1.2 and 1.1 both read it."""
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:.6g}".partition("e")
        return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{exponent}" if exponent else mantissa
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _comment(sentences: Sequence[str], depth: int) -> Iterator[str]:
    for sentence in sentences:
        start = f"{'  ' * depth}# "
        yield from textwrap.wrap(
            printable(sentence),
            _WIDTH,
            initial_indent=start,
            subsequent_indent=start + "  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
