"""Notes of optuna-dashboard: in the study's system attributes, a version and pieces of text each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OURS = "**sweeps**: "  # begins a note that this program wrote, and may write again
_LONGEST = 2045  # characters of one attribute


def note_attributes(stored: Mapping[str, Any], trial_id: int | None, text: str) -> dict[str, Any]:
    """The attributes that change for a note to say a text; none where it says so, or is not ours.

    Args:
        stored: the study's system attributes.
        trial_id: of the trial that the note is on; None: on the study.
        text: in Markdown.
    """
    on = "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
    pieces = f"{on}note_str:"
    before = sorted((name for name in stored if name.startswith(pieces)), key=_place)
    now, said = f"{_OURS}{text}", "".join(str(stored[name]) for name in before)
    if said == now or (said and not said.startswith(_OURS)):
        return {}
    parts = [now[start : start + _LONGEST] for start in range(0, len(now), _LONGEST)]
    parts += [""] * (len(before) - len(parts))
    version = stored.get(f"{on}note_ver", 0)
    found: dict[str, Any] = {f"{pieces}{place}": part for place, part in enumerate(parts)}
    return {**found, f"{on}note_ver": (version if isinstance(version, int) else 0) + 1}


def _place(name: str) -> int:
    last = name.rpartition(":")[2]
    return int(last) if last.isdecimal() else 0
