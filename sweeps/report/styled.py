"""Lines with a style: bold and coloured on a terminal that has them, plain elsewhere."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from sweeps.text import WIDTH
from tli.terminal import printable


@dataclass(frozen=True)
class Line:
    """One line; `style` (of rich) is that of its first `wide` characters, of all where that is None."""

    text: str
    style: str = ""
    wide: int | None = None


def paragraph(text: str, style: str = "") -> list[Line]:
    """Text wrapped to the page."""
    return [Line(each, style) for each in textwrap.wrap(text, WIDTH, break_on_hyphens=False)]


def row(label: str, text: str, wide: int, style: str = "dim") -> list[Line]:
    """A label of `wide` characters, then text that goes on beneath itself."""
    lines = textwrap.wrap(text, WIDTH - wide - 2, break_on_hyphens=False, break_long_words=False) or [""]
    first, *others = lines
    return [
        Line(f"{label:<{wide}}  {first}", style, wide),
        *(Line(f"{'':<{wide + 2}}{each}") for each in others),
    ]


def plain(lines: Iterable[Line]) -> str:
    """The lines as text alone."""
    return "\n".join(line.text for line in lines)


def show(lines: Sequence[Line], stream: TextIO) -> None:
    """Print the lines; with their styles on a terminal, without colours where NO_COLOR is set."""
    if not stream.isatty():
        stream.write(f"{printable(plain(lines))}\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    for line in lines:
        text = Text(printable(line.text))
        if line.style:
            text.stylize(line.style, 0, len(line.text) if line.wide is None else line.wide)
        console.print(text, soft_wrap=True)
