"""Checks of how a sweep searches and stops: settings that its sampler or its stopping rule cannot use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sweeps.spec.ranges import Range
from sweeps.spec.settings import ObjectiveSettings, SamplerSettings, StoppingSettings
from sweeps.wording import Fault, formatted


def stopping_faults(stopping: StoppingSettings) -> Iterator[Fault]:
    """Successive halving keeps one in n, and n is at least two; what is learned is not set by hand."""
    if stopping.rule == "learned":
        usual = StoppingSettings()
        for name in ("on", "grace", "keep"):
            value = getattr(stopping, name)
            if value != getattr(usual, name):
                got = f"{formatted(value)}, which the rule learned does not read"
                expected = "no such setting with learned, which finds out itself where to stop"
                yield Fault(f"stopping.{name}", got, expected, "stopping.rule: asha", ("stopping.rule",))
    if stopping.rule in ("asha", "hyperband") and stopping.keep > 0.5:
        expected = f"at most 0.5 with {stopping.rule}, which keeps one half, one third, ..."
        yield Fault("stopping.keep", formatted(stopping.keep), expected, "0.5", ("stopping.rule",))


def sampler_faults(
    sampler: SamplerSettings, objective: ObjectiveSettings, search: Mapping[str, Range]
) -> Iterator[Fault]:
    """A grid needs ranges that can be counted; each value is answered for by the Gaussian process alone."""
    endless = [
        path
        for path, wanted in search.items()
        if wanted.log is not None or (wanted.uniform is not None and wanted.step is None)
    ]
    if sampler.name == "grid" and endless:
        got = f"'grid', where {', '.join(endless)} cannot be counted"
        expected = "choices, whole numbers or a step in every range of a grid"
        yield Fault("sampler.name", got, expected, "qmc", tuple(f"search.{path}" for path in endless))
    if objective.answer == "each" and sampler.name != "gp":
        got = f"'each', which the sampler {sampler.name} does not read"
        expected = "best, or the sampler gp"
        yield Fault("objective.answer", got, expected, "sampler.name: gp", ("sampler.name",))
