"""An injection as a phrase of a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from tli.planning.injection import Injection, read_list, read_range


def injection_in_words(injection: Injection, depth: int, sizes: Sequence[int]) -> str:
    """What a resolved injection does to a stack of `depth` layers, in sets of the given sizes."""
    init = injection.init
    if injection.method == "dus":
        m = injection.m
        cut = f"without the last {m} of the first and the first {m} of the second"
        return f"two copies of the stack ({init}), {cut}"
    if injection.method == "stack":
        return f"the whole stack {injection.g} times ({init})"
    if injection.method == "repeat":
        start, stop = read_range(injection.layers, depth)
        return f"each of layers {start} to {stop - 1} {injection.g} times ({init})"
    new = "one new layer" if injection.block == 1 else f"a block of {injection.block} new layers"
    if injection.after is not None:
        return f"{new} ({init}) after {', '.join(map(str, read_list(injection.after)))}"
    where = {"end": "after", "start": "before", "middle": "amid"}[injection.place]
    sets = f"every {injection.k}" if injection.k != 1 else "each"
    if injection.least_important_sets is not None:
        sets = (
            f"the {injection.least_important_sets} sets of {injection.k} that change the hidden state least"
        )
    text = f"{new} ({init}) {where} {sets}"
    if injection.layers is not None:
        text += f" of layers {injection.layers}"
    if sizes[-1] != injection.k:
        text += f"; the last set is shorter ({sizes[-1]} of {injection.k})"
    return text
