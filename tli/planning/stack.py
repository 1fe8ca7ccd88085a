"""The order of a grown stack: the source of each layer, and the neighbours of each new one."""

from __future__ import annotations

from collections.abc import Sequence

from tli.planning.injection import Injection, read_list, read_range

# A stack, from the bottom: the source of each layer and, for a new one, the two old layers it stands between.
Stack = list[tuple[int, tuple[int, int] | None]]


def stack_of(injection: Injection, depth: int, block_influence: Sequence[float] | None) -> Stack:
    """The stack that a resolved injection gives a model of `depth` layers."""
    if injection.method == "tli":
        return _injected_blocks(injection, depth, block_influence)
    if injection.deepens:
        return _repeated(injection, depth)
    return [(source, None) for source in range(depth)]


def _injected_blocks(injection: Injection, depth: int, block_influence: Sequence[float] | None) -> Stack:
    """TLI: behind some old layers a block of new ones."""
    gaps = _gaps(injection, depth, block_influence)
    stack: Stack = _block(injection, depth, -1) if -1 in gaps else []
    for layer in range(depth):
        stack.append((layer, None))
        if layer in gaps:
            stack += _block(injection, depth, layer)
    return stack


def _gaps(injection: Injection, depth: int, block_influence: Sequence[float] | None) -> set[int]:
    """The old layers that new ones follow; -1 for the place below the first."""
    if injection.after is not None:
        return set(read_list(injection.after))
    sets = sets_of(injection, depth)
    if injection.least_important_sets is not None:
        assert block_influence is not None
        # The mean, as the last set may be shorter; of equal ones the lower.
        least = sorted(
            sets, key=lambda ends: (sum(block_influence[slice(*ends)]) / (ends[1] - ends[0]), ends)
        )
        sets = least[: injection.least_important_sets]
    return {_gap(injection.place, start, stop) for start, stop in sets}


def _gap(place: str, start: int, stop: int) -> int:
    """The old layer that the new one of a set `[start, stop)` follows."""
    if place == "end":
        return stop - 1
    return start - 1 if place == "start" else (start + stop) // 2 - 1


def sets_of(injection: Injection, depth: int) -> list[tuple[int, int]]:
    """The sets of old layers that TLI forms, each from its first layer to the one after its last."""
    assert injection.k is not None
    start, stop = read_range(injection.layers, depth)
    return [(first, min(first + injection.k, stop)) for first in range(start, stop, injection.k)]


def _block(injection: Injection, depth: int, gap: int) -> Stack:
    """The new layers behind old layer `gap`; at an end of the stack the nearest old layers serve."""
    size = injection.block
    below, above = max(gap - size + 1, 0), min(gap + 1, depth - size)
    first = above if injection.source == "next" else below
    return [(first + i, _between(below + i, above + i, depth, size)) for i in range(size)]


def _repeated(injection: Injection, depth: int) -> Stack:
    """DUS, stack and repeat: a layer that was there before is new."""
    if injection.method == "dus":
        assert injection.m is not None
        order = [*range(depth - injection.m), *range(injection.m, depth)]
    elif injection.method == "stack":
        order = [*range(depth)] * injection.g
    else:
        start, stop = read_range(injection.layers, depth)
        order = [n for n in range(depth) for _ in range(injection.g if start <= n < stop else 1)]
    seen: set[int] = set()
    stack: Stack = []
    for layer in order:
        new = layer in seen
        source = min(layer + 1, depth - 1) if new and injection.source == "next" else layer
        stack.append((source, _between(layer, min(layer + 1, depth - 1), depth, 1) if new else None))
        seen.add(layer)
    return stack


def _between(below: int, above: int, depth: int, block: int) -> tuple[int, int]:
    """Two layers, apart from each other where the stack has room for that."""
    if below == above:
        if above + block < depth and below < block:
            return below, above + block
        return max(below - block, 0), above
    return below, above
