"""What of a sweep is still to be run, in words."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.records import Role
from sweeps.results.left import Left
from sweeps.text import counted, these

_WORDS = {
    Role.CONTROL: "of the original at another learning rate",
    Role.BASELINE: "of the baseline",
    Role.SEARCH: "of the search",
    Role.REPLICATE: "under fresh seeds",
    Role.MATCHED: "of the original with the winner's FLOPs",
    Role.RUNG: "of the ladder",
    Role.EVALUATION: "for scores on tasks alone",
}
_SHOWN = 12  # numbers of trials


def left_lines(found: Left | None) -> Iterator[str]:
    """What is left of a sweep that was begun, and which of its runs are trained again for scores.

    Args:
        found: None of a sweep that was not begun.
    """
    if found is None:
        return
    parts = [f"{number} {_WORDS[role]}" for role, number in found.runs.items() if number]
    yield ""
    if not parts:
        yield "it was begun, and nothing of it is left to run"
        return
    total = counted(sum(found.runs.values()), "run")
    yield f"it was begun; still to be run, at most: {total}: {', '.join(parts)}"
    if found.again:
        rest = len(found.again) - _SHOWN
        which = these("trial", found.again[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        yield (
            f"of these trained again, for a model is scored in the run that trains it: {which}; "
            f"{found.tokens:,} tokens, {found.flops:.2e} FLOPs"
        )
