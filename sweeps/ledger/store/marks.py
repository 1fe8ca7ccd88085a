"""Names of the attributes that a study of this program bears, and which of a trial's people read.

Whatever reads Optuna shows a trial's user attributes. So those of ours are short texts and numbers; what only
the program reads, such as all settings, stands in the system attributes, among the user's in memory alone.
Studies of earlier versions have all of it in the user attributes, which are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OURS_PREFIX = "sweeps:"

SPEC = "sweeps:spec"  # JSON, as it was last run
IDENTITY = "sweeps:identity"  # tells it from another study that takes its name later
INPUT_DIGESTS = "sweeps:material"  # digests of what the spec only names
FINISHED = "sweeps:finished"
LAYERS = "sweeps:layers"  # of the base
CHECKPOINTING = "sweeps:activation_checkpointing"  # as it was chosen for all trials
WALL = "sweeps:wall"  # seconds in which drivers searched
SEARCH_ANSWERS = "sweeps:search_answers"  # what the search's model says of each value
WARM_START = "sweeps:warm_start"  # what was taken over from other sweeps when the study was made
REFERENCE = "sweeps:reference"  # what the baseline spends in all
BASE_SOURCES = "sweeps:base_sources"  # what the base loses on each of several texts before any training
BEST = "sweeps:best"  # number of the trial that the answer hands over; null while there is none
ANSWER = "sweeps:answer"  # grow, do not grow, or not shown

_PROGRAM = {f"{OURS_PREFIX}{name}" for name in ("trial", "request", "end", "hidden")}


def parted(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A trial's attributes as they are stored: the user's, and the system's."""
    system = {name: value for name, value in attributes.items() if _is_for_the_program(name, value)}
    return {name: value for name, value in attributes.items() if name not in system}, system


def united(user: Mapping[str, Any], system: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inverse of `parted`: ours among the user's, where all of this program looks for them."""
    ours = {name: value for name, value in system.items() if name.startswith(OURS_PREFIX)}
    return {**user, **ours}, {name: value for name, value in system.items() if name not in ours}


def legible_of_study(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A study's attributes without those of ours that are JSON for the program, which stay where they are."""
    unread = (SPEC, IDENTITY)
    return {
        name: value
        for name, value in attributes.items()
        if not (name in unread or (name.startswith(OURS_PREFIX) and isinstance(value, dict | list)))
    }


def _is_for_the_program(name: str, value: Any) -> bool:
    return name.startswith(OURS_PREFIX) and (name in _PROGRAM or isinstance(value, dict | list))
