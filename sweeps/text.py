"""Plain text 80 columns wide: tables, labelled values, bullets, sizes, losses, durations."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

WIDTH = 80


def pairs(values: Mapping[str, str]) -> list[str]:
    """One line per value, labels aligned."""
    width = max(map(len, values), default=0)
    return [f"  {label:<{width}}  {value}" for label, value in values.items()]


def indented(text: str, by: int = 2) -> list[str]:
    """A paragraph."""
    return textwrap.wrap(text, WIDTH, initial_indent=" " * by, subsequent_indent=" " * by)


def bullets(sentences: Iterable[str]) -> list[str]:
    """One item per sentence."""
    wrapped = (textwrap.wrap(s, WIDTH, initial_indent="  - ", subsequent_indent="    ") for s in sentences)
    return [line for lines in wrapped for line in lines]


def section(title: str, lines: list[str]) -> list[str]:
    """The lines under their title; nothing when there are none."""
    return [title, *lines] if lines else []


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: set[int], width: int | None = None
) -> list[str]:
    """Aligned columns, to the right unless in `left`; lines are cut at `width`, where one is given."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def cells(row: Sequence[str]) -> Iterator[str]:
        for place, (text, wide) in enumerate(zip(row, widths, strict=True)):
            yield text.ljust(wide) if place in left else text.rjust(wide)

    lines = ["  ".join(cells(row)).rstrip() for row in [header, *rows]]
    return [line if width is None or len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def join(*sections: list[str]) -> str:
    """The page: sections with a blank line between, the empty ones left out. Without a newline at its end."""
    return "\n\n".join("\n".join(section) for section in sections if section)


def short(number: float) -> str:
    """Three digits and a unit: `1.84M`."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number / size < 999.5 else f"{number / size:.0f}{unit}"
    return f"{number:.3g}"


def in_bytes(number: int) -> str:
    """An amount of memory or disk, in words."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if number >= size:
            return f"{number / size:.1f} {unit}" if number / size < 10 else f"{number / size:.0f} {unit}"
    return f"{number / 1024:.0f} KiB"


def counted(number: float, word: str) -> str:
    """A number of things: `1 trial`, `24 trials`, `2,048 tokens`."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {word}{'s' * (number != 1)}"


def these(word: str, values: Iterable[object]) -> str:
    """Which things: `trial 3`, `trials 3, 5`."""
    shown = [str(value) for value in values]
    return f"{word}{'s' * (len(shown) > 1)} {', '.join(shown)}"


def loss(value: float | None) -> str:
    """Four digits after the point: `3.4567`."""
    return "-" if value is None else f"{value:.4f}"


def digits_apart(values: Iterable[float], least: int = 4, most: int = 8) -> int:
    """Digits after the point with which numbers that differ look different, and none but 0 looks like 0.

    Args:
        values: finite numbers that stand together.
        least: digits that there are anyway.
        most: digits beyond which two numbers may look alike.
    """
    different = {0.0, *map(abs, values)}
    for digits in range(least, most):
        if len({f"{value:.{digits}f}" for value in different}) == len(different):
            return digits
    return most


def figures_apart(values: Iterable[float], least: int = 2, most: int = 8) -> int:
    """Significant figures with which numbers that differ look different, as `digits_apart` gives digits."""
    different = set(values)
    for figures in range(least, most):
        if len({f"{value:.{figures}g}" for value in different}) == len(different):
            return figures
    return most


def duration(seconds: float) -> str:
    """`12s`, `1m20s`, `2h05m`, `3d04h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def short_value(value: object) -> str:
    """A setting's value, numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
