"""Losses by text: the base before any training, the original trained on, and the best grown model.

What a model loses more on a text than the base did is forgotten; text that was never trained on, of the kind
that the base was made of, shows it best. Differences are over fresh seeds on blocks of test text: the base
has one loss a block and no seed, so all that a seed does to a model counts as error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from sweeps.by_text import Sources
from sweeps.records import Role, TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.claims import Measure
from sweeps.results.looks import tail_of
from sweeps.results.noise import Losses, Pool, paired, variance
from sweeps.results.text_losses import BySource, OnText, TextLosses
from sweeps.results.verdict import Verdict
from sweeps.spec.data_settings import DataSettings
from tli.data.portions import shares

_Model = Literal["control", "matched", "grown"]


@dataclass(frozen=True)
class _Runs:
    """One model with its runs under fresh seeds."""

    model: _Model
    candidate: Candidate
    runs: tuple[TrialRecord, ...]
    own: TrialRecord

    def losses(self, text: str) -> dict[int, tuple[float, ...]]:
        """Losses on the blocks of a text's test side, by seed."""
        found = {run.seed: run.sources[text].test_losses for run in self.runs if text in run.sources}
        return {seed: losses for seed, losses in found.items() if losses and all(map(math.isfinite, losses))}


def by_source(
    data: DataSettings, base: Sources, records: Sequence[TrialRecord], found: Verdict
) -> BySource | None:
    """What the models of an answer lose on each of several texts, beside the base.

    Args:
        data: of the spec.
        base: losses of the base before any training.
        records: of the sweep.
        found: the answer.

    Returns:
        None where there is one text alone, or the base was not measured yet.
    """
    if not data.named or not base:
        return None
    models = _models(records, found)
    weights = shares(data.portions())
    compared = max(1, len(models) * len(base))
    tail = tail_of(found.look, compared)
    texts = tuple(_on(name, weights.get(name), base, models, tail) for name in base)
    return BySource(texts, weights, compared)


def _models(records: Sequence[TrialRecord], found: Verdict) -> list[_Runs]:
    by_number = {record.number: record for record in records}
    wanted: list[tuple[_Model, Candidate | None]] = [
        ("control", found.control),
        ("matched", found.matched),
        ("grown", found.chosen),
    ]
    return [
        _Runs(model, each, _fresh(each, by_number), by_number[each.number])
        for model, each in wanted
        if each is not None
    ]


def _fresh(candidate: Candidate, records: Mapping[int, TrialRecord]) -> tuple[TrialRecord, ...]:
    """Runs of a candidate under the seeds that its test losses are of."""
    own = records[candidate.number]
    matched = own.role is Role.MATCHED
    of = own.replicate_of if matched else own.number
    role = Role.MATCHED if matched else Role.REPLICATE
    return tuple(
        run
        for run in records.values()
        if run.role is role
        and run.replicate_of == of
        and run.steps == own.steps
        and run.seed in candidate.test_blocks
    )


def _on(text: str, weight: float | None, base: Sources, models: Sequence[_Runs], tail: float) -> TextLosses:
    losses = {each.candidate.number: each.losses(text) for each in models}
    tested = all(losses.values()) and bool(models) and bool(base[text].test_losses)
    measure: Measure = "test" if tested else "validation"
    pooled = _pool(list(losses.values()))
    shown = tuple(
        _tested(each, text, base, pooled, tail) if tested else _validated(each, text, base) for each in models
    )
    theirs = base[text]
    loss = fmean(theirs.test_losses) if tested else theirs.eval_loss
    bits = theirs.test_bits_per_byte if tested else theirs.bits_per_byte
    return TextLosses(text, weight, measure, (OnText("base", None, loss, bits), *shown))


def _pool(losses: Sequence[Losses]) -> Pool | None:
    """The mean variance of a model's loss over seeds, that steadies the variance of each."""
    several = [[fmean(blocks) for blocks in by_seed.values()] for by_seed in losses if len(by_seed) > 1]
    degrees = sum(len(means) - 1 for means in several)
    if not degrees:
        return None
    return Pool(sum((len(means) - 1) * variance(means) for means in several) / degrees, degrees)


def _tested(each: _Runs, text: str, base: Sources, pooled: Pool | None, tail: float) -> OnText:
    ours = each.losses(text)
    found = paired(ours, dict.fromkeys(ours, base[text].test_losses), pooled)
    assert found is not None, "they share every seed"
    mean, n, noise = found
    bits = [run.sources[text].test_bits_per_byte for run in each.runs if run.seed in ours]
    known = [value for value in bits if value is not None]
    return OnText(
        each.model,
        each.candidate.number,
        fmean(fmean(blocks) for blocks in ours.values()),
        fmean(known) if known else None,
        mean,
        noise.half_width(tail) if noise is not None and noise.text_degrees else None,
        n,
    )


def _validated(each: _Runs, text: str, base: Sources) -> OnText:
    """By validation loss under the seed that chose, while there is no run under a fresh one."""
    measured = each.own.sources.get(text)
    if measured is None or not math.isfinite(measured.eval_loss):
        return OnText(each.model, each.candidate.number, None, None)
    difference = measured.eval_loss - base[text].eval_loss
    return OnText(
        each.model,
        each.candidate.number,
        measured.eval_loss,
        measured.bits_per_byte,
        difference,
    )
