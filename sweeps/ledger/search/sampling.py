"""Proposals by a Gaussian process or Optuna's samplers, seeded by trial: a restart proposes the same.

A sampler lives for one question. Its randomness comes from the study's seed and from how many trials of its
own the sweep had asked for. So a resumed sweep proposes what the uninterrupted one would have proposed from
the same results, and what other programs add to the study shifts no draw.

The trial that ended last counts as one that still runs. So the next proposal hangs on nothing that is not
known while all slots are taken, and is worked out then: a free slot waits for no sampler. What that costs in
quality is in tests/bench/LOG.md.
"""

from __future__ import annotations

import bisect
import copy
import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from sweeps.ledger.search.apart import SHARES, Places, Tried
from sweeps.ledger.search.drawing import sample
from sweeps.ledger.search.features import Features
from sweeps.ledger.search.front_proposals import CostAim
from sweeps.ledger.search.model_proposals import ModelProposals
from sweeps.ledger.search.observations import by_score
from sweeps.ledger.search.prior import Prior
from sweeps.ledger.search.sequences import spread
from sweeps.ledger.search.space import Space
from sweeps.ledger.search.summaries import TrialSummary, rank_of
from sweeps.ledger.search.view import SearchView
from sweeps.ledger.store.trials import END
from sweeps.records import TrialRecord
from sweeps.spec import Range

WINDOW = 500  # latest ended trials that the sampler looks at, and running ones, beside the best
_BELOW = 25  # the most that TPE takes for good ones; these it gets however old they are
_WITH_RESULT = (TrialState.COMPLETE, TrialState.PRUNED)
_NEVER = 2**62  # after all ends of the sweep's own trials
_DRAWS = 20  # of a sampler, before what is left is looked for without it

SAMPLERS = ("gp", "tpe", "random", "qmc", "grid")
_CLOSING_IN = ("gp", "tpe")  # on good ones: these keep a distance from what was tried
_OPTUNA: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=8, constant_liar=True),
    "random": lambda seed: RandomSampler(seed=seed),
}


class Turn(NamedTuple):
    """Which trial is asked for."""

    number: int  # in the study
    own: int  # so many of its own did the sweep ask for before; with the study's seed, all the randomness


@dataclass(frozen=True)
class Aim:
    """What is searched, and for what."""

    search: Mapping[str, Range]  # the ranges
    answer: str = "best"  # or `each`
    rate: Callable[[], float | None] = lambda: None  # a learning rate that is known to be good, by now
    cost: CostAim | None = None  # that losses are minimised against
    prior: Prior | None = None  # of sibling sweeps
    scored: bool = False  # whether scores of a task are aimed at in place of losses
    front_scores: bool = False  # whether losses are minimised against such scores


class Proposals:
    """The sampler of one study."""

    def __init__(
        self,
        study: SearchView,
        space: Space,
        *,
        sampler: str,
        seed: int,
        alike: Callable[[Mapping[str, Any]], Hashable] | None = None,
        aim: Aim | None = None,
    ) -> None:
        """Ask nothing yet.

        Args:
            study: what was seen so far, whenever that is asked.
            space: the dimensions, parents before those that depend on them.
            sampler: a name in SAMPLERS.
            seed: of the study.
            alike: what the trials of these parameters have in common, where they would train the same; their
                values when left out.
            aim: for the Gaussian process and for points spread evenly.
        """
        self.space, self._seed = space, seed
        self._name, self._mirror = study.study_name, study.mirror
        aim = aim or Aim({})
        self._sampler, self._rate, self._scored = sampler, aim.rate, aim.scored
        self._features = Features(aim.search)
        self._model = ModelProposals(
            self._features, space, answer=aim.answer, rate=aim.rate, prior=aim.prior,
            cost=aim.cost, front_scores=aim.front_scores,
        )  # fmt: skip
        self._places = Places(space, self._features, alike or space.key)
        self._tried = Tried()  # by trials that have ended
        self._best: list[tuple[Any, ...]] = []  # of those, with their ranks
        self._summaries: dict[int, TrialSummary] = {}  # of those in the latest window, by number
        self._read = 0  # of the list of visible ones
        self._prepared: _PreparedProposal | None = None

    def prepare(self, turn: Turn) -> None:
        """Work out what `propose` will say of it, should one that runs end before any begins."""
        ended = len(self._mirror.visible.ended)
        if self._prepared is None or (self._prepared.turn, self._prepared.ended) != (turn, ended):
            running = self._running(None)
            of = turn, ended, _shown(running), self._rate()
            self._prepared = _PreparedProposal(*of, self._work_out(turn, {}, running, None))

    def propose(self, turn: Turn, fixed: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Parameters for a trial, or None when a finite space has nothing left that was not tried.

        Args:
            turn: which trial that is.
            fixed: values that were chosen elsewhere; a wholly fixed proposal may repeat a tried one.
        """
        last = self._mirror.visible.ended_last
        running = self._running(last)
        if fixed:
            return self._work_out(turn, fixed, running, last)
        of = turn, len(self._mirror.visible.ended) - (last is not None), _shown(running), self._rate()
        if self._prepared is None or self._prepared.of != of:
            self._prepared = _PreparedProposal(*of, self._work_out(turn, {}, running, last))
        return self._prepared.params

    def _work_out(
        self, turn: Turn, fixed: Mapping[str, Any], running: list[FrozenTrial], last: FrozenTrial | None
    ) -> dict[str, Any] | None:
        """A proposal from what is told of all but the trial `last`, which is among `running`."""
        self._read_on()
        begun = Tried()
        for trial in running:
            if self._mirror.is_ours(trial.number):
                begun.add(self._places.of(trial.params))

        def apart(params: Mapping[str, Any], share: float) -> bool:
            place = self._places.of(params)
            return not (self._tried.near(place, share) or begun.near(place, share))

        def allowed(params: Mapping[str, Any], share: float = 0.0) -> bool:
            return set(params) <= set(fixed) or apart(params, share)

        drawn: dict[int, dict[str, Any] | None] = {}
        closing_in = self._sampler in _CLOSING_IN and self._places.ranges
        for share in SHARES if closing_in else SHARES[-1:]:
            far = partial(allowed, share=share)
            for draw in range(_DRAWS):
                if draw not in drawn or self._sampler == "gp":
                    drawn[draw] = self._drawn(turn, draw, fixed, running, last, far)
                params = drawn[draw]
                if params is not None and far(params):
                    return params
        return self._left(turn, fixed, apart) if self.space.finite else self._elsewhere(turn, fixed, allowed)

    def _left(
        self, turn: Turn, fixed: Mapping[str, Any], apart: Callable[[Mapping[str, Any], float], bool]
    ) -> dict[str, Any] | None:
        """What a finite space has left, if anything."""
        grid = (p for p in self.space.grid() if all(p.get(name) == fixed[name] for name in fixed))
        left = [params for params in grid if apart(params, 0.0)]
        chance = random.Random(_seed(self._seed, turn.own, _DRAWS))  # noqa: S311 - no secret
        return None if not left else left[0] if self._sampler == "grid" else chance.choice(left)

    def _elsewhere(
        self, turn: Turn, fixed: Mapping[str, Any], allowed: Callable[[Mapping[str, Any]], bool]
    ) -> dict[str, Any] | None:
        """Something of an endless space in which the sampler proposes only what was tried.

        Where chance finds nothing else either, as where the values that are fixed leave nothing open, a trial
        is tried again.
        """
        if self._sampler == "grid":
            return None
        for draw in range(_DRAWS, 10 * _DRAWS):
            sampler = RandomSampler(seed=_seed(self._seed, turn.own, draw))
            params = sample(self._window([], None), self.space, turn.number, sampler, fixed)
            if allowed(params):
                break
        return params

    def _drawn(
        self,
        turn: Turn,
        draw: int,
        fixed: Mapping[str, Any],
        running: list[FrozenTrial],
        last: FrozenTrial | None,
        allowed: Callable[[Mapping[str, Any]], bool],
    ) -> dict[str, Any] | None:
        """What the sampler proposes, at one of its draws for a trial; None where it has no say."""
        seed = _seed(self._seed, turn.own, draw)
        if self._sampler == "grid" or (self._sampler == "gp" and draw):
            return None
        if self._sampler == "qmc":
            return spread(self.space, self._features, self._seed, turn.own + draw, fixed)
        if self._sampler == "gp":
            by_number = {
                trial.number: trial
                for trial in self._mirror.visible.ended
                if (last is None or trial.number != last.number)
                # Of another program's trials only what has a loss says anything.
                and (trial.state is TrialState.COMPLETE or self._mirror.is_ours(trial.number))
            }

            def end(record: TrialRecord) -> int:
                return int(by_number[record.number].user_attrs.get(END, _NEVER))

            ended = [self._mirror.record(number) for number in by_number]
            ended = by_score(ended) if self._scored else ended
            return self._model.propose(seed, ended, end, [t.params for t in running], fixed, allowed)
        study = self._window(running, last)
        return sample(study, self.space, turn.number, _OPTUNA[self._sampler](seed), fixed)

    def _running(self, last: FrozenTrial | None) -> list[FrozenTrial]:
        """What runs, and the trial that ended last as if it did."""
        return [*self._mirror.running(), *([] if last is None else [_as_running(last)])]

    def _read_on(self) -> None:
        """Take in what has ended since the last question."""
        ended = self._mirror.visible.ended
        for trial in ended[self._read :]:
            # The result of another program's trial is none of this sweep.
            if self._mirror.is_ours(trial.number):
                self._tried.add(self._places.of(trial.params))
            if trial.state in _WITH_RESULT:
                bisect.insort(self._best, (*rank_of(trial), trial.number, trial))
                del self._best[_BELOW + 1 :]  # one of them may be the last
        self._read = len(ended)

    def _window(self, running: list[FrozenTrial], last: FrozenTrial | None) -> SearchView:
        """The study, or where it is long the part of it that tells: the best, the latest, and what runs."""
        self._mirror.freshen()
        visible = self._mirror.visible.trials.values()  # what was not run here, too
        if len(self._mirror.visible.ended) - (last is not None) <= WINDOW:
            stand_ins = {trial.number: trial for trial in running}
            return SearchView(self._name, self._mirror, [stand_ins.get(t.number, t) for t in visible])
        past = None if last is None else last.number
        ended = (trial for trial in reversed(visible) if trial.state in _WITH_RESULT and trial.number != past)
        latest_running = heapq.nlargest(WINDOW, running, key=lambda trial: trial.number)
        best = [entry[-1] for entry in self._best if entry[-1].number != past][:_BELOW]
        chosen = {trial.number: trial for trial in (*best, *itertools.islice(ended, WINDOW), *latest_running)}
        known, self._summaries = self._summaries, {}
        for number in sorted(chosen):
            summary, trial = known.get(number), chosen[number]
            self._summaries[number] = (
                summary if summary is not None and summary.of is trial else TrialSummary(trial)
            )
        seen = cast("Iterable[FrozenTrial]", self._summaries.values())
        return SearchView(self._name, self._mirror, seen)


@dataclass(frozen=True)
class _PreparedProposal:
    """A proposal, and what it was made from."""

    turn: Turn
    ended: int  # so many trials were told of
    running: frozenset[tuple[int, int]]  # their numbers, and how many parameters each had
    rate: float | None  # that was known to be good
    params: dict[str, Any] | None

    @property
    def of(self) -> tuple[Turn, int, frozenset[tuple[int, int]], float | None]:
        """All that a proposal hangs on: what has ended never changes, and a parameter is never another."""
        return self.turn, self.ended, self.running, self.rate


def _shown(running: Iterable[FrozenTrial]) -> frozenset[tuple[int, int]]:
    return frozenset((trial.number, len(trial.params)) for trial in running)


def _as_running(trial: FrozenTrial) -> FrozenTrial:
    """A trial that has ended, as it was before."""
    copied = copy.copy(trial)
    copied.state, copied.values = TrialState.RUNNING, None
    return copied


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
