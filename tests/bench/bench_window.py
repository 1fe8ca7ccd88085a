"""Whether a sampler that looks at a part of a long study picks as well: `python -m tests.bench.bench_window`.

TPE's time grows with the trials it looks at, so the ledger shows it the best ones and the latest
`sweeps.ledger.search.sampling.WINDOW`. Here studies of synthetic functions are run in memory under several windows,
the same seeds for each, and two things are compared: the best value found, and the mean of the last tenth of
the picks, which has less noise. Printed are both as medians over the seeds, and processor time per pick.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.ledger.search import sampling
from sweeps.ledger.search.sampling import Proposals, Turn
from sweeps.ledger.search.space import Dimension, Space
from sweeps.ledger.search.view import SearchView
from sweeps.ledger.store.mirror import Mirror
from sweeps.ledger.store.trials import END
from sweeps.ledger.store.visible import VisibleTrials
from tests.bench.landscape import true_loss

Function = Callable[[Mapping[str, Any]], float]
_EVERYTHING = 10**9


def _recipe(params: Mapping[str, Any]) -> float:
    """The made-up landscape of recipes: mixed and conditional dimensions."""
    injection = {"method": "tli", "k": params["k"], "init": params["init"], "scale": params.get("scale", 0.5)}
    return true_loss({"injection": injection, "recipe": {"learning_rate": params["rate"]}})


def _rastrigin(params: Mapping[str, Any]) -> float:
    """Many local minima; 0 at 0.3 in every dimension."""
    offs = [params[name] - 0.3 for name in params]
    return sum(off**2 + 0.5 * (1 - math.cos(4 * math.pi * off)) for off in offs)


def _valley(params: Mapping[str, Any]) -> float:
    """Rosenbrock's curved valley: dimensions that hang together, which TPE takes one by one."""
    x = [params[name] for name in params]
    return sum(100 * (b - a**2) ** 2 + (1 - a) ** 2 for a, b in itertools.pairwise(x))


def _floats(low: float, high: float, count: int) -> dict[str, Dimension]:
    return {f"x{i}": Dimension(f"x{i}", FloatDistribution(low, high), {}) for i in range(count)}


def _one(name: str, distribution: BaseDistribution, **when: Any) -> dict[str, Dimension]:
    return {name: Dimension(name, distribution, when)}


FUNCTIONS: Mapping[str, tuple[Function, dict[str, Dimension]]] = {
    "recipe": (
        _recipe,
        {
            **_one("k", CategoricalDistribution((1, 2, 4, 8))),
            **_one("init", CategoricalDistribution(("copy", "identity", "damped", "mean", "random"))),
            **_one("scale", FloatDistribution(0.1, 0.9), init=("damped",)),
            **_one("rate", FloatDistribution(1e-4, 1e-2, log=True)),
        },
    ),
    "rastrigin": (_rastrigin, _floats(-2.0, 2.0, 5)),
    "valley": (_valley, _floats(-2.0, 2.0, 4)),
}


class _Trials:
    """A study in memory, as far as proposals ask for it."""

    study_id = 0

    def __init__(self) -> None:
        self.visible = VisibleTrials(lambda _params: True)

    def freshen(self) -> None:
        """All there is was added here."""

    def running(self) -> list[FrozenTrial]:
        return []

    def is_ours(self, _number: int) -> bool:
        return True

    def add(self, trial: FrozenTrial) -> None:
        self.visible.trials[trial.number] = trial
        self.visible.take_end(trial, ours=True)


def picks(function: str, trials: int, seed: int, window: int) -> list[float]:
    """The values of so many trials, one after another."""
    value_of, dimensions = FUNCTIONS[function]
    space = Space(dimensions, {})
    memory = _Trials()
    sampling.WINDOW = window
    proposals = Proposals(SearchView(function, cast("Mirror", memory)), space, sampler="tpe", seed=seed)
    for number in range(trials):
        params = proposals.propose(Turn(number, number))
        assert params is not None
        value = value_of(params)
        trial = create_trial(
            state=TrialState.COMPLETE,
            value=value,
            params=params,
            distributions=space.distributions(params),
            user_attrs={END: number + 1},
        )
        trial.number = number
        memory.add(trial)
    return [cast("float", trial.value) for trial in memory.visible.ended]


def main() -> None:
    """Run all and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--windows", type=int, nargs="+", default=[250, 500, 1000, _EVERYTHING])
    parser.add_argument("--functions", nargs="+", choices=list(FUNCTIONS), default=list(FUNCTIONS))
    given = parser.parse_args()
    print("| function | window | best | mean of the last tenth | CPU, ms per pick |")
    print("|---|---|---|---|---|")
    for function in given.functions:
        for window in given.windows:
            started = time.process_time()
            runs = [picks(function, given.trials, seed, window) for seed in range(given.seeds)]
            spent = (time.process_time() - started) / (given.trials * given.seeds)
            best = statistics.median(min(run) for run in runs)
            last = statistics.median(statistics.fmean(run[-(given.trials // 10) :]) for run in runs)
            shown = "all" if window == _EVERYTHING else window
            print(f"| {function} | {shown} | {best:.5g} | {last:.5g} | {1000 * spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
