"""Proposals of the Gaussian process: first each value of each choice near a good rate, then expected
improvement (Jones, Schonlau and Welch, J. Global Optimization 13, 1998), or what answers for each value.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sweeps.ledger.search.features import Column, Features
from sweeps.ledger.search.model import RATE, Model, Modeller
from sweeps.ledger.search.normal import Array, normal_below
from sweeps.ledger.search.space import Space
from sweeps.ledger.search.threads import one_thread
from sweeps.records import TrialRecord

_CANDIDATES = 800  # drawn anywhere
_NEAR = 400  # drawn near the best ones
_COVARIANCES = 60_000  # between candidates and trials: of many trials, fewer candidates are looked at
_WIDTH = 0.08  # of what is near, in coordinates
_SPREAD = 0.06  # of the first rates around the good one, in coordinates
_GUESSED = 0.15  # where that is the spec's guess, as nothing has ended yet
_FUNCTIONS = 24  # drawn from the posterior where each value is to be answered for
_POINTS = 160  # that they are drawn at

Params = dict[str, Any]


class ModelProposals:
    """What to try next, by the model of all that ended."""

    def __init__(
        self, features: Features, space: Space, *, answer: str, rate: Callable[[], float | None]
    ) -> None:
        """Ask nothing yet.

        Args:
            features: the coordinates.
            space: the dimensions.
            answer: `best`, or `each` where each value of each choice is to be answered for.
            rate: a learning rate known to be good, as it is known now.
        """
        self._features, self._space, self._answer, self._rate = features, space, answer, rate
        self._modeller = Modeller(features)
        self._columns = {column.path: column for column in features.columns}

    @one_thread
    def propose(
        self,
        seed: int,
        ended: Sequence[TrialRecord],
        end: Callable[[TrialRecord], int],
        running: Sequence[Mapping[str, Any]],
        fixed: Mapping[str, Any],
        allowed: Callable[[Params], bool],
    ) -> Params | None:
        """Parameters for a trial; None where no configuration that was drawn is allowed.

        Args:
            seed: of what is drawn.
            ended: trials that are told of.
            end: their order.
            running: parameters of those that run.
            fixed: values that were chosen elsewhere.
            allowed: whether a configuration may be tried.
        """
        chance = random.Random(seed)  # noqa: S311 - no secret
        tried = [*(record.params for record in ended), *running]
        missing = self._missing(tried, fixed)
        model = None if missing else self._modeller.model(ended, self._rate(), end)
        if model is None:
            return self._first(chance, tried, fixed, allowed, _SPREAD if ended else _GUESSED)
        candidates = [each for each in self._candidates(chance, model, fixed) if allowed(each)]
        if not candidates:
            return None
        points = self._features.rows(candidates)
        if running:
            pending = self._features.rows(running)
            process = model.process.conditioned(pending, model.process.predict(pending)[0])
            model = Model(model.features, model.said, model.scale, process)
        if self._answer == "each":
            return candidates[self._undecided(chance, model, points)]
        return candidates[int(np.argmax(_improvement(model, points)))]

    # -- the first ones --------------------------------------------------------------------------------

    def _missing(self, tried: Sequence[Mapping[str, Any]], fixed: Mapping[str, Any]) -> bool:
        """Whether a value of a choice was never tried that might be."""
        for column in self._features.columns:
            if column.choice and column.path not in fixed and not column.wanted.when:
                seen = {(type(p[column.path]), p[column.path]) for p in tried if column.path in p}
                if len(seen) < len(column.ends):
                    return True
        return False

    def _first(
        self,
        chance: random.Random,
        tried: Sequence[Mapping[str, Any]],
        fixed: Mapping[str, Any],
        allowed: Callable[[Params], bool],
        spread: float,
    ) -> Params | None:
        """The least tried value of each choice, at a rate near the good one."""
        counts = {
            column.path: Counter((type(p[column.path]), p[column.path]) for p in tried if column.path in p)
            for column in self._features.columns
        }
        rate = self._rate()

        def draw(column: Column) -> Any:
            if column.choice:
                seen = counts[column.path]
                least = min(seen[type(v), v] for v in column.ends)
                return chance.choice([v for v in column.ends if seen[type(v), v] == least])
            if column.path == RATE and rate is not None:
                near = column.coordinate(rate) + chance.gauss(0.0, spread)
                return column.value(min(max(near, 0.0), 1.0))
            return column.value(chance.random())

        for _ in range(50):
            params = self._filled(draw, fixed)
            if allowed(params):
                return params
        return None

    # -- candidates ------------------------------------------------------------------------------------

    def _candidates(self, chance: random.Random, model: Model, fixed: Mapping[str, Any]) -> list[Params]:
        """Configurations anywhere, and near the best ones."""

        def anywhere(column: Column) -> Any:
            if column.choice:
                return chance.choice(column.ends)
            return column.value(chance.random())

        share = min(1.0, _COVARIANCES / (len(model.said) * (_CANDIDATES + _NEAR)))
        found = [self._filled(anywhere, fixed) for _ in range(round(share * _CANDIDATES))]
        means, _ = model.posterior(model.said.x)
        best = model.said.x[np.argsort(means, kind="stable")[:5]]
        found += [
            self._filled(partial(self._near, chance, best[index % len(best)]), fixed)
            for index in range(round(share * _NEAR))
        ]
        return found

    def _near(self, chance: random.Random, row: Array, column: Column) -> Any:
        at = float(row[self._features.columns.index(column)])
        if column.choice:
            same = [value for value in column.ends if column.coordinate(value) == at]
            return same[0] if same and chance.random() < 0.5 else chance.choice(column.ends)
        return column.value(min(max(at + chance.gauss(0.0, _WIDTH), 0.0), 1.0))

    def _filled(self, draw: Callable[[Column], Any], fixed: Mapping[str, Any]) -> Params:
        """A configuration: the settings that exist in it, drawn one after another."""
        params: Params = {}
        for name, _ in self._space.walk(params):
            params[name] = fixed[name] if name in fixed else draw(self._columns[name])
        return params

    # -- which one -------------------------------------------------------------------------------------

    def _undecided(self, chance: random.Random, model: Model, points: Array) -> int:
        """By top-two Thompson sampling (Russo, Operations Research 68, 2020): the best of one function drawn
        from the posterior, or the best of another one in which another value of a choice is best.
        """
        likely = np.argsort(-_improvement(model, points), kind="stable")[:_POINTS]
        normal = np.random.default_rng(chance.getrandbits(63)).standard_normal((_FUNCTIONS, len(likely)))
        bests = np.argmin(model.process.sample(points[likely], normal), axis=1)
        first = likely[bests[0]]
        choices = [i for i, column in enumerate(self._features.columns) if column.choice]
        if choices and chance.random() < 0.5:
            which = chance.choice(choices)
            for each in likely[bests[1:]]:
                if points[each, which] != points[first, which]:
                    return int(each)
        return int(first)


def _improvement(model: Model, points: Array) -> Array:
    """Expected improvement on the best that was tried, on the model's scale; less where noise is all that
    another look would take away (augmented: Huang et al., J. Global Optimization 34, 2006).
    """
    means, deviations = model.posterior(points)
    noise = math.exp(model.process.hyper[3])
    better = (model.incumbent - means) / deviations
    density = np.exp(-0.5 * better**2) / math.sqrt(2 * math.pi)
    gained = deviations * (better * normal_below(better) + density)
    found: Array = gained * (1.0 - noise / np.sqrt(deviations**2 + noise**2))
    return found
