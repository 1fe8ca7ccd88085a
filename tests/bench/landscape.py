"""Made-up loss curves: what a trial of the simulator would have measured, and what is truly best.

Shaped after the quickstart's: the rate matters most, deeper models want a smaller one, a high rate is ahead at
first and behind in the end (so that stopping early can err), first weights set the loss before training. The
noise belongs to the trial's seed and its values, so that a trial replayed has the same losses.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from typing import Any

NOISE = 0.002  # nats per token, standard deviation of a trial's final loss under one seed
LAYERS = 8  # of the base
_WOBBLE = 0.0007  # of single measurements
_BEFORE = {"identity": 0.0, "copy": 0.17, "damped": 0.06, "mean": 0.03, "random": 0.6}  # over the base's loss
_AFTER = {"identity": 0.0, "copy": 0.012, "damped": 0.003, "mean": 0.006, "random": 0.035}

SEARCH = """
  injection.k: {choice: [1, 2, 4, 8]}
  injection.init: {choice: [copy, identity, damped, mean, random]}
  injection.scale: {uniform: [0.1, 0.9], when: {injection.init: damped}}
  recipe.learning_rate: {log: [1e-4, 1e-2]}
"""


class MadeUp:
    """All of it, as the simulator asks for it."""

    search = SEARCH

    def __init__(self, steps: int) -> None:
        """Of trials with so many steps."""
        self._steps = steps

    def loss_at(self, settings: Mapping[str, Any], step: int) -> float:
        """The held-out loss that a trial reports at a step."""
        return measured(settings, step, self._steps)

    def seconds_per_step(self, settings: Mapping[str, Any]) -> float:
        """What a step takes."""
        return seconds_per_step(settings)


def layers(settings: Mapping[str, Any]) -> int:
    """How many layers the trial's model has."""
    injection = settings["injection"]
    return LAYERS if injection["method"] == "none" else LAYERS + math.ceil(LAYERS / injection["k"])


def seconds_per_step(settings: Mapping[str, Any]) -> float:
    """What a step takes, in seconds of one GPU; FLOPs go with it."""
    return layers(settings) / LAYERS


def true_loss(settings: Mapping[str, Any]) -> float:
    """The mean final loss over all seeds, in nats per token."""
    injection, rate = settings["injection"], math.log10(settings["recipe"]["learning_rate"])
    more = layers(settings) - LAYERS
    best_rate = -2.5 - 0.12 * math.log2(1 + more)
    off = rate - best_rate
    loss = 3.10 - 0.02 * math.sqrt(more) + (0.25 if off > 0 else 0.08) * off**2
    loss += 0.004 * math.sin(9 * rate)
    if more:
        loss += _AFTER[injection["init"]]
        if injection["init"] == "damped":
            loss += 0.08 * (injection["scale"] - 0.4) ** 2
    return loss


def measured(settings: Mapping[str, Any], step: int, steps: int) -> float:
    """The held-out loss that a trial reports at a step."""
    injection, rate = settings["injection"], math.log10(settings["recipe"]["learning_rate"])
    start = 3.24 + (_BEFORE[injection["init"]] if layers(settings) > LAYERS else 0.0)
    end = true_loss(settings) + NOISE * _noise(settings, None)
    speed = 12 * min(2.5, max(0.3, 1 + 0.8 * (rate + 3)))
    left = (1 + speed * step / steps) ** -0.7
    least = (1 + speed) ** -0.7
    share = (left - least) / (1 - least)
    return end + (start - end) * share + (_WOBBLE * _noise(settings, step) if 0 < step < steps else 0.0)


def best_loss() -> float:
    """The lowest `true_loss` of the space, by a fine grid."""
    return min(
        true_loss(
            {
                "injection": {"method": "tli", "k": k, "init": init, "scale": 0.4},
                "recipe": {"learning_rate": 10**rate},
            }
        )
        for k in (1, 2, 4, 8)
        for init in _AFTER
        for rate in (-4 + 2 * i / 2000 for i in range(2001))
    )


def _noise(settings: Mapping[str, Any], step: int | None) -> float:
    """A standard normal number that belongs to these settings (their seed is among them) and this step."""
    injection = settings["injection"]
    what = (
        settings["seed"], injection["method"], injection["k"], injection["init"], injection.get("scale"),
        settings["recipe"]["learning_rate"], step,
    )  # fmt: skip
    digest = hashlib.sha256(repr(what).encode()).digest()
    return random.Random(digest).gauss(0.0, 1.0)
