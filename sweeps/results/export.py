"""Exports the trained model of a trial as a folder, with its lineage and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sweeps.errors import Problem, SpecError
from sweeps.records import State, TrialRecord
from sweeps.results.sweep import Sweep
from sweeps.results.unfinished import none_complete


def export(sweep: Sweep, out: Path, *, number: int | None = None) -> int:
    """Copy a trained model out; without a number, the best one. Returns the trial's number.

    Raises:
        SpecError: the trial does not exist, did not complete, or its weights were not kept.
        CheckpointError: `out` exists, or the weights are not those that were written.
    """
    from tli.training.export import copy_model

    chosen = sweep.verdict.best if number is None else number
    records = {record.number: record for record in sweep.records}
    if chosen is None or chosen not in records:
        got = none_complete(sweep.verdict) if chosen is None else f"trial {chosen}, which is not there"
        remedy = f"sweeps status {sweep.spec.name}{', which has the reasons' * (chosen is None)}"
        raise SpecError(Problem(f"sweep {sweep.spec.name}", got, "a complete trial", remedy))
    record = records[chosen]
    source = sweep.model_of(record)
    if source is None:
        raise SpecError(_no_weights(sweep, records, chosen, out))
    facts = {
        "heldout_loss": record.value,
        "initial_loss": record.initial_loss,
        "verdict": sweep.verdict.to_json(),
    }
    copy_model(source, out, lineage=facts)
    return chosen


def _no_weights(sweep: Sweep, records: Mapping[int, TrialRecord], chosen: int, out: Path) -> Problem:
    held = [str(number) for number, record in records.items() if record.ours and sweep.model_of(record)]
    state, where = records[chosen].state, f"trial {chosen}"
    if not records[chosen].ours:
        got, again = "one that was not run here", f"sweeps status {sweep.spec.name}"
        return Problem(where, got, f"a trial of this sweep: {', '.join(held) or 'none is kept'}", again)
    if not state.finished:
        got, again = f"one that is {state.value.lower()}", f"`sweeps status {sweep.spec.name}`, and waiting"
        return Problem(where, got, "a complete trial", again)
    words = {State.PRUNED: "one that was stopped early", State.FAIL: "one that failed"}
    final = sweep.folders.model_dir(chosen, records[chosen].attempt)
    lost = "were not kept" if not final.exists() else "in its folder are another study's, or another trial's"
    got = words.get(state, f"one whose weights {lost}")
    kept = f"one of the trials that were kept: {', '.join(held) or 'none'}"
    return Problem(where, got, kept, f"sweeps trial {sweep.spec.name} {chosen} --out {out}, to train it here")
