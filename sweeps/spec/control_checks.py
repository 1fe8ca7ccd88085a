"""Checks of what the control trains, against what the trials do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sweeps.spec.ranges import Range
from sweeps.spec.settings import ControlSettings, TrialSettings
from sweeps.wording import Fault, formatted


def control_faults(
    control: ControlSettings, trial: TrialSettings, search: Mapping[str, Range]
) -> Iterator[Fault]:
    """A control of a few layers beside trials that train all, or beside none that are injected."""
    if control.train == "all":
        return
    train = search.get("recipe.train")
    involves = ("trial.recipe.train", "search.recipe.train", "trial.injection.method")
    if "all" in (train.ends if train else (trial.recipe.train,)):
        got = f"{formatted(control.train)} beside trials of recipe.train: all"
        expected = "all, or trials that train injected layers alone"
        yield Fault("control.train", got, expected, "all", involves)
    elif not trial.to_injection().resolved().deepens:
        got = f"{formatted(control.train)} beside a baseline of method {formatted(trial.injection.method)}"
        yield Fault("control.train", got, "a baseline with injected layers", "all", involves)
