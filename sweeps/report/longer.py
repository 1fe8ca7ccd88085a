"""What more tokens would give, as a table of `sweeps best`."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.results.longer import Longer
from sweeps.text import WIDTH, bullets, section, short, table, these


def longer_text(found: Longer) -> list[str]:
    """A row a finalist, the control last; then whether their order is expected to stay."""
    if not found.expected:
        return section(f"At {found.times} times the tokens", bullets(_said(found)))
    rows = [
        (str(each.trial), f"{each.loss:.3f}", f"{each.low:.3f} to {each.high:.3f}", str(each.points))
        for each in found.expected
    ]
    lines = table(("trial", "loss", "90 %", "points of its curve"), rows, left=set(), width=WIDTH - 2)
    tokens = short(max(each.tokens for each in found.expected))
    title = f"At {found.times} times the tokens, {tokens}: validation loss expected from the curve"
    return section(title, [*(f"  {line}" for line in lines), *bullets(_said(found))])


def _said(found: Longer) -> Iterator[str]:
    """Whether curves are expected to cross, and of which trials nothing is said."""
    for first, second in found.stays_ahead:
        yield f"trial {first} is ahead of trial {second}, and expected to be so then"
    if found.open_pairs:
        among = sorted({number for pair in found.open_pairs for number in pair})
        yield f"nothing can be said about whether the curves of {these('trial', among)} cross by then"
    for reason in dict.fromkeys(found.not_said.values()):
        numbers = [number for number, why in found.not_said.items() if why == reason]
        yield f"nothing is said of {these('trial', numbers)}: {reason}"
