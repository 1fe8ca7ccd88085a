"""Proposals of the Gaussian process: first each value of each choice near a good rate, then expected
improvement (Jones, Schonlau and Welch, J. Global Optimization 13, 1998), or what answers for each value.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sweeps.ledger.search.features import Column, Features
from sweeps.ledger.search.front_proposals import SAME, CostAim, cost_levels, front_improvement
from sweeps.ledger.search.model import RATE, Model, Modeller
from sweeps.ledger.search.normal import Array, normal_below
from sweeps.ledger.search.observations import by_front_score
from sweeps.ledger.search.prior import Prior
from sweeps.ledger.search.score_front import score_front_improvement
from sweeps.ledger.search.space import Space
from sweeps.ledger.search.threads import one_thread
from sweeps.records import TrialRecord

_CANDIDATES = 800  # drawn anywhere
_NEAR = 400  # drawn near the best ones
_COVARIANCES = 60_000  # between candidates and trials: of many trials, fewer candidates are looked at
_WIDTH = 0.08  # of what is near, in coordinates
_SPREAD = 0.06  # of the first rates around the good one, in coordinates
_GUESSED = 0.15  # where that is the spec's guess, as nothing has ended yet
_ALONE = 3  # trials of which one is proposed without what siblings say
_FUNCTIONS = 24  # drawn from the posterior where each value is to be answered for
_POINTS = 160  # that they are drawn at

Params = dict[str, Any]


class ModelProposals:
    """What to try next, by the model of all that ended."""

    def __init__(
        self,
        features: Features,
        space: Space,
        *,
        answer: str,
        rate: Callable[[], float | None],
        cost: CostAim | None = None,
        front_scores: bool = False,
        prior: Prior | None = None,
    ) -> None:
        """Ask nothing yet.

        Args:
            features: the coordinates.
            space: the dimensions.
            answer: `best`, or `each` where each value of each choice is to be answered for.
            rate: a learning rate known to be good, as it is known now.
            cost: that losses are minimised against, along the front.
            front_scores: whether they are minimised against the trials' scores on a task.
            prior: of sibling sweeps.
        """
        self._features, self._space, self._answer, self._rate = features, space, answer, rate
        self._cost, self._prior = cost, prior
        self._scores = Modeller(features) if front_scores else None
        self._alone, self._modeller = Modeller(features), Modeller(features, prior)
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
        # Some are proposed as if there were no siblings, so that wrong ones mislead for a while only.
        prior = None if len(tried) % _ALONE == _ALONE - 1 else self._prior
        missing = (prior is None or self._answer == "each") and self._missing(tried, fixed)
        modeller = self._alone if prior is None else self._modeller
        model = None if missing else modeller.model(ended, self._rate(), end)
        if model is None and prior is not None and not missing:
            return self._by_siblings(chance, prior, tried, fixed, allowed)
        if model is None:
            return self._first(chance, tried, fixed, allowed, _SPREAD if ended else _GUESSED)
        models = [model, *self._score_model(ended, end)]
        candidates = [each for each in self._candidates(chance, models, fixed) if allowed(each)]
        if not candidates:
            return None
        points = self._features.rows(candidates)
        if running:
            models = [_with_pending(each, self._features.rows(running)) for each in models]
        if self._answer == "each":
            return candidates[self._undecided(chance, models[0], points)]
        return candidates[int(np.argmax(self._gains(models, candidates, points, ended)))]

    def _score_model(
        self, ended: Sequence[TrialRecord], end: Callable[[TrialRecord], int]
    ) -> Iterator[Model]:
        """Of the scores that losses are minimised against, where there are any. They need not be the best
        near the rate that is good for losses.
        """
        if self._scores is not None:
            found = self._scores.model(by_front_score(ended), None, end)
            if found is not None:
                yield found

    def _gains(
        self,
        models: Sequence[Model],
        candidates: Sequence[Params],
        points: Array,
        ended: Sequence[TrialRecord],
    ) -> Array:
        """What each candidate is expected to gain: of the lowest loss, or of the front."""
        model, *scores = models
        gained = partial(_gained, model, model.posterior(points))
        if self._cost is not None:
            costs = np.array([self._cost.of_params(each) for each in candidates])
            return front_improvement(model, gained, costs, ended, self._cost)
        if scores:
            return score_front_improvement(model, scores[0], gained, points)
        return gained(model.incumbent)

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

    def _by_siblings(
        self,
        chance: random.Random,
        prior: Prior,
        tried: Sequence[Mapping[str, Any]],
        fixed: Mapping[str, Any],
        allowed: Callable[[Params], bool],
    ) -> Params | None:
        """The best of a function drawn from what sibling sweeps say, while this one says too little."""

        def anywhere(column: Column) -> Any:
            return chance.choice(column.ends) if column.choice else column.value(chance.random())

        drawn = [self._filled(anywhere, fixed) for _ in range(_CANDIDATES)]
        candidates = [each for each in drawn if allowed(each)]
        if not candidates:
            return None
        losses = prior.drawn(self._features.rows(candidates), chance.getrandbits(63), len(tried))
        if self._cost is not None:  # any place of the front
            costs = np.array([self._cost.of_params(each) for each in candidates])
            losses[costs > chance.choice(cost_levels(costs)) * (1 + SAME)] = np.inf
        return candidates[int(np.argmin(losses))]

    # -- candidates ------------------------------------------------------------------------------------

    def _candidates(
        self, chance: random.Random, models: Sequence[Model], fixed: Mapping[str, Any]
    ) -> list[Params]:
        """Configurations anywhere, and near the best ones by each model in turn."""

        def anywhere(column: Column) -> Any:
            if column.choice:
                return chance.choice(column.ends)
            return column.value(chance.random())

        share = min(1.0, _COVARIANCES / (len(models[0].said) * (_CANDIDATES + _NEAR)))
        found = [self._filled(anywhere, fixed) for _ in range(round(share * _CANDIDATES))]
        best = [row for rows in zip(*map(_best_rows, models), strict=False) for row in rows]
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


def _best_rows(model: Model) -> Array:
    """Coordinates of the best ones that were tried."""
    means, _ = model.posterior(model.said.x)
    found: Array = model.said.x[np.argsort(means, kind="stable")[:5]]
    return found


def _with_pending(model: Model, pending: Array) -> Model:
    """The model once trials that run have ended as it expects."""
    process = model.process.conditioned(pending, model.process.predict(pending)[0])
    return Model(model.features, model.said, model.scale, process)


def _improvement(model: Model, points: Array) -> Array:
    """Expected improvement on the best that was tried, on the model's scale."""
    return _gained(model, model.posterior(points), model.incumbent)


def _gained(model: Model, moments: tuple[Array, Array], lowest: float) -> Array:
    """Expected improvement on a loss, on the model's scale; less where noise is all that another look would
    take away (augmented: Huang et al., J. Global Optimization 34, 2006).

    Args:
        model: of the trials that have ended.
        moments: means and deviations of the candidates.
        lowest: that is improved on.
    """
    means, deviations = moments
    noise = math.exp(model.process.hyper[3])
    better = (lowest - means) / deviations
    density = np.exp(-0.5 * better**2) / math.sqrt(2 * math.pi)
    gained = deviations * (better * normal_below(better) + density)
    found: Array = gained * (1.0 - noise / np.sqrt(deviations**2 + noise**2))
    return found
