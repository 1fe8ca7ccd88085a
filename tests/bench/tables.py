"""Recorded tables of real curves (`tests.bench.record`) as landscapes of the simulator.

A table has a grid of first weights, K and learning rates, each cell run to its end under two seeds. Between the
recorded rates losses lie on a shape-preserving cubic in log rate, at each measured step; between the scales of
damped first weights on a line. Seeds beyond the recorded ones replay one of them, with an independent residual as
large as the recorded seeds differ in at that rate after what all cells share there is taken out.

Of a table that is recorded in part, a cell with fewer than three rates keeps its distance from the control, as it
was at its nearest recorded rate, along the control's valley; and with one seed the residual is a constant.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

RECORDED = Path(__file__).parent / "recorded"
_WORST = 12.0  # nats: what stands for a loss that was no number
_SHARED = 0.8  # of a residual, by all steps of a trial; the rest is each step's own
_FEWEST = 3  # rates of a cell that a valley is laid through
_RESIDUAL = 4e-4  # nats: of the quickstart, where a table has one seed
_FINE = 400  # rates at which the best is looked for

Key = tuple[Any, ...]  # K and first weights; K is None for the control


class Table:
    """One recorded table."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        """Take a table as it was recorded; compute-matched controls are left out."""
        self.name: str = plain["name"]
        self.source = self.name  # what `read` finds it by
        self.steps: int = plain["steps"]
        self.measured: list[int] = plain["measured"]
        self._control: float = plain["control_flops_per_token"]
        self._flops: dict[Key, float] = {}
        curves: defaultdict[tuple[Key, float | None, int], dict[float, list[float]]] = defaultdict(dict)
        for cell in plain["cells"]:
            if cell.get("matched"):
                continue
            key = (cell["k"], cell["init"])
            curve = [math.nan if loss is None else loss for loss in cell["validation"]]
            curve += [math.nan] * (len(self.measured) - len(curve))
            curves[key, cell["scale"], cell["seed"]][cell["learning_rate"]] = curve
            self._flops[key] = cell["flops_per_token"]
        control = {
            seed: _Valley(by_rate)
            for ((k, _), _, seed), by_rate in curves.items()
            if k is None and len(by_rate) >= _FEWEST
        }
        self._curves = {
            (key, scale, seed): _Valley(by_rate, None if len(by_rate) >= _FEWEST else control[seed])
            for (key, scale, seed), by_rate in curves.items()
        }
        self.seeds = sorted({seed for _, _, seed in curves})
        scales = defaultdict(set)
        for key, scale, _ in curves:
            scales[key].add(scale)
        self._scales = {key: sorted(found, key=lambda scale: scale or 0.0) for key, found in scales.items()}
        rates = sorted({rate for by_rate in curves.values() for rate in by_rate})
        self._rates, self.rates = rates, (rates[0], rates[-1])
        self.ks = sorted({key[0] for key in self._scales if key[0] is not None})
        inits = dict.fromkeys(key[1] for key in self._scales if key[1] is not None)
        self.inits = [init for init in inits if all((k, init) in self._scales for k in self.ks)]

    @classmethod
    def read(cls, name: str) -> Table:
        """A packed one by its name, or by its file."""
        path = Path(name) if "." in name else RECORDED / f"{name}.json.xz"
        with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as file:
            table = cls(json.load(file))
            table.source = name
            return table

    @property
    def search(self) -> str:
        """The space of a sweep over it, as a spec writes it."""
        lines = [
            f"injection.k: {{choice: {self.ks}}}",
            f"injection.init: {{choice: [{', '.join(self.inits)}]}}",
        ]
        scaled = [key[1] for key, scales in self._scales.items() if len(scales) > 1]
        if scaled:
            low, high = (
                pick(s for scales in self._scales.values() for s in scales if s is not None)
                for pick in (min, max)
            )
            lines.append(
                f"injection.scale: {{uniform: [{low}, {high}], when: {{injection.init: {scaled[0]}}}}}"
            )
        low, high = self.rates
        lines.append(f"recipe.learning_rate: {{log: [{low}, {high}]}}")
        return "\n" + "".join(f"  {line}\n" for line in lines)

    def seconds_per_step(self, settings: Mapping[str, Any]) -> float:
        """What a step takes, in seconds; the control's takes one."""
        return self._flops[self._key(settings)] / self._control

    def true_loss(self, settings: Mapping[str, Any]) -> float:
        """The mean final loss over the recorded seeds, in nats per token."""
        return statistics.fmean(self._recorded(settings, seed)[-1] for seed in self.seeds)

    def loss_at(self, settings: Mapping[str, Any], step: int) -> float:
        """The held-out loss that a trial reports at a step; no number where it diverged."""
        seed = settings["seed"]
        losses = self._recorded(settings, self.seeds[seed % len(self.seeds)])
        recorded = float(np.interp(step, self.measured, losses))
        if recorded >= _WORST:
            return math.nan
        if seed < len(self.seeds) or step == 0:
            return recorded
        own, shared = _normal(settings, step), _normal(settings, None)
        residual = self.residual(settings["recipe"]["learning_rate"], step)
        return recorded + residual * (_SHARED * shared + math.sqrt(1 - _SHARED**2) * own)

    @cached_property
    def best(self) -> float:
        """The lowest `true_loss` of the space."""
        return min(self.best_of(k, init) for k in self.ks for init in self.inits)

    @lru_cache(maxsize=256)  # noqa: B019 - as many as there are cells, for as long as the table is used
    def best_of(self, k: int, init: str) -> float:
        """The lowest `true_loss` of one K with one kind of first weights."""
        scales = self._scales[k, init]
        between = np.linspace(scales[0], scales[-1], 9) if len(scales) > 1 else scales
        logs = np.linspace(math.log(self.rates[0]), math.log(self.rates[1]), _FINE)
        rates = [math.exp(each) for each in logs]
        return min(self.true_loss(_settings(k, init, scale, rate)) for scale in between for rate in rates)

    @cached_property
    def residuals(self) -> Any:
        """By rate and measured step: the standard deviation of one trial's loss once its seed's own effect at
        that rate is out. The higher the rate, the further seeds are apart, and cells of one seed with them.
        """
        found = np.full((len(self._rates), len(self.measured)), _RESIDUAL)
        if len(self.seeds) < 2:
            return found
        first, second = self.seeds[:2]
        pairs = [
            (valley, self._curves[key, scale, second])
            for (key, scale, seed), valley in self._curves.items()
            if seed == first and (key, scale, second) in self._curves
        ]
        for row, rate in enumerate(self._rates):
            apart = np.array([one.recorded(rate) - other.recorded(rate) for one, other in pairs])
            middle = np.nanmedian(apart, axis=0)
            found[row] = 1.4826 * np.nanmedian(np.abs(apart - middle), axis=0) / math.sqrt(2)
        return found

    def residual(self, rate: float, step: int) -> float:
        """`residuals` on the lines between rates, by their logarithm, and between measured steps."""
        at = math.log(rate)
        by_step = [np.interp(at, np.log(self._rates), column) for column in self.residuals.T]
        return float(np.interp(step, self.measured, by_step))

    def _recorded(self, settings: Mapping[str, Any], seed: int) -> Any:
        key = self._key(settings)
        rate = settings["recipe"]["learning_rate"]
        scales = self._scales[key]
        if len(scales) == 1:
            return self._curves[key, scales[0], seed].at(rate)
        scale = settings["injection"]["scale"]
        scale = 0.5 if scale is None else scale
        above = next((index for index, each in enumerate(scales) if each >= scale - 1e-9), len(scales) - 1)
        high, low = scales[above], scales[max(0, above - 1)]
        share = 1.0 if high == low else min(max((scale - low) / (high - low), 0.0), 1.0)
        lower, upper = (self._curves[key, each, seed].at(rate) for each in (low, high))
        return lower + share * (upper - lower)

    def _key(self, settings: Mapping[str, Any]) -> Key:
        injection = settings["injection"]
        return (None, None) if injection["method"] == "none" else (injection["k"], injection["init"])


class _Valley:
    """The curves of one cell by learning rate."""

    def __init__(self, by_rate: Mapping[float, list[float]], control: _Valley | None = None) -> None:
        if control is not None:
            known = sorted(by_rate)

            def gap(rate: float) -> Any:
                near = min(known, key=lambda each: abs(math.log(each / rate)))
                return np.array(by_rate[near]) - control.at(near)

            by_rate = {rate: list(control.at(rate) + gap(rate)) for rate in control.rates}
        self.rates = self._rates = sorted(by_rate)
        losses = np.array([by_rate[rate] for rate in self._rates])
        self._losses = losses
        worst = np.where(np.isnan(losses), _WORST * 2, losses)
        self._curve = PchipInterpolator(np.log(self._rates), worst, axis=0)
        self._seen: dict[float, Any] = {}

    def at(self, rate: float) -> Any:
        """The losses at the measured steps."""
        if rate not in self._seen:
            if len(self._seen) > 5000:
                self._seen.clear()
            self._seen[rate] = self._curve(math.log(min(max(rate, self._rates[0]), self._rates[-1])))
        return self._seen[rate]

    def recorded(self, rate: float) -> Any:
        """The losses at the measured steps, as they were; no numbers at a rate that was not recorded."""
        if rate not in self._rates:
            return np.full(self._losses.shape[1], math.nan)
        return self._losses[self._rates.index(rate)]


def _settings(k: int, init: str, scale: float | None, rate: float) -> dict[str, Any]:
    injection = {"method": "tli", "k": k, "init": init, "scale": scale}
    return {"injection": injection, "recipe": {"learning_rate": rate}}


def _normal(settings: Mapping[str, Any], step: int | None) -> float:
    """A standard normal number that belongs to a trial and a step."""
    injection = settings["injection"]
    what = (
        settings["seed"], injection["method"], injection["k"], injection["init"], injection.get("scale"),
        settings["recipe"]["learning_rate"], step,
    )  # fmt: skip
    low, high = np.frombuffer(hashlib.sha256(repr(what).encode()).digest()[:8], dtype=np.uint32)
    one, other = (float(low) + 1) / 2**32, float(high) / 2**32
    return math.sqrt(-2 * math.log(min(one, 1.0))) * math.cos(2 * math.pi * other)
