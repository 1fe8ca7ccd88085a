"""What keeps two specs from sharing a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.spec.model import RAISED, Spec
from sweeps.wording import formatted, masked


def difference(old: Spec, new: Spec) -> list[str]:
    """What keeps two specs from sharing a study: lines `path: old -> new`, none where results compare."""
    before, after = (dict(_flat(spec.identity())) for spec in (old, new))
    paths = [*before, *(path for path in after if path not in before)]
    lines = [(path, before.get(path, "nothing"), after.get(path, "nothing")) for path in paths]
    return [f"{path}: {one} -> {other}" for path, one, other in lines if one != other]


def changed_amounts(old: Spec, new: Spec, *, raised: bool) -> dict[str, tuple[int, int]]:
    """The amounts of `RAISED` that a spec has more of than another, or less: both, by dotted path."""
    before, after = old.changeable, new.changeable
    both = {path: (before[path], after[path]) for path in RAISED}
    return {path: (one, two) for path, (one, two) in both.items() if (two > one if raised else two < one)}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        # A range is one thing: its form and its ends say nothing apart.
        if isinstance(value, Mapping) and not prefix.startswith("search."):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_inline(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(each) for each in value) + "]"
    return masked(value) if isinstance(value, str) else formatted(value)
