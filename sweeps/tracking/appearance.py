"""How a trial's run looks in MLflow: its name, its colour, and the parameters that a table shows first.

A colour has a contrast of 3:1 or more to MLflow's light and dark background alike, so the control is a
dark grey rather than black. The first ones are of Okabe and Ito's palette for colour-blind readers. What is
no finalist is a light grey; a transparent one would be faint on both, but MLflow's lines take none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeps.records import Role, State, TrialRecord
from sweeps.results.labels import grown, init_label, shape_label
from sweeps.text import short

COLOUR = "mlflow.runColor"
CONTROL, BASELINE = "#666666", "#CC79A7"
FINALISTS = ("#0072B2", "#D55E00", "#009E73", "#7F5FC7", "#A6761D")
REST = "#B4B8BF"
_FROM_CONTROL = (Role.CONTROL, Role.MATCHED, Role.PROMOTED_CONTROL)
_AS_SEARCHED = (Role.CONTROL, Role.BASELINE, Role.SEARCH)


def run_name(record: TrialRecord) -> str:
    """`17 K=2 damped lr=8.9e-4`; under another seed `17 K=2 damped lr=8.9e-4, seed 2`; `control, seed 1`.

    What runs another trial's settings bears that trial's number, and then what is different.
    """
    seed = [f"seed {record.seed}"] if record.role.fresh or record.role is Role.RUNG else []
    return ", ".join([configuration_name(record), *seed])


def configuration_name(record: TrialRecord) -> str:
    """As `run_name`, for all seeds: `17 K=2 damped lr=8.9e-4`, `control lr=1.0e-3, compute of 17`."""
    of = record.replicate_of if record.promotion is None else record.promotion.of
    if record.role is Role.EVALUATION and of is None:
        return "base, evaluation"
    if record.role in _FROM_CONTROL or (of is not None and record.original):
        name = "control"
    else:
        name = f"{record.number if of is None else of} {grown(record) or 'original'}"
    different: Mapping[Role, list[str]] = {
        Role.CONTROL: [],
        Role.SEARCH: [],
        Role.REPLICATE: [],
        Role.MATCHED: [f"compute of {record.replicate_of}"],
        Role.PROMOTION: [_tokens(record), "promotion"],
        Role.PROMOTED_CONTROL: [_tokens(record), "promotion"],
        Role.RUNG: [_tokens(record)],
    }
    return ", ".join([f"{name} lr={short_rate(record)}", *different.get(record.role, [record.role.value])])


def _tokens(record: TrialRecord) -> str:
    return f"{short(record.settings.get('recipe', {}).get('tokens') or 0)} tokens"


def short_rate(record: TrialRecord) -> str:
    """The learning rate in two digits: `8.9e-4`."""
    value = record.settings.get("recipe", {}).get("learning_rate")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "-"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"


def short_params(record: TrialRecord) -> dict[str, str]:
    """The settings that tell trials apart, in few letters: `grown`, `first_weights`, `rate`, `seed`."""
    shape = shape_label(record, short=False)
    return {
        "grown": "original" if shape == "-" else shape,
        "first_weights": init_label(record),
        "rate": short_rate(record),
    }


def colour(record: TrialRecord) -> str:
    """Of a run whose sweep has no answer so far."""
    if record.role in _FROM_CONTROL:
        return CONTROL
    return BASELINE if record.role is Role.BASELINE else REST


def colours(
    records: Sequence[TrialRecord], finalists: Sequence[int], control: int | None, baseline: int | None
) -> dict[int, str]:
    """Of every trial, once there are finalists: these differ, and what runs one again has its colour.

    Args:
        records: of the sweep.
        finalists: numbers of the finalists, the best first.
        control: number of the control at its best rate; the others are among the rest.
        baseline: number of the baseline.
    """
    chosen = {number: FINALISTS[place % len(FINALISTS)] for place, number in enumerate(finalists)}
    chosen |= {} if control is None else {control: CONTROL}
    chosen |= {} if baseline is None else {baseline: BASELINE}
    by_number = {record.number: record for record in records}

    def shade(record: TrialRecord) -> str:
        of = record.replicate_of if record.promotion is None else record.promotion.of
        if record.role is Role.EVALUATION and of in by_number:  # it is that run, made again
            return shade(by_number[of])
        if record.role in (Role.MATCHED, Role.PROMOTED_CONTROL):
            return CONTROL
        return chosen.get(record.number if of is None else of, REST)

    return {record.number: shade(record) for record in records}


def ending(record: TrialRecord) -> str | None:
    """How a run ended, in words; None while it has not."""
    at = f"at step {record.step} of {record.steps}"
    if record.state is State.COMPLETE:
        return "complete"
    if record.state is State.PRUNED:
        return f"stopped early {at}"
    return f"failed {at}" if record.state is State.FAIL else None


def compared(record: TrialRecord) -> bool:
    """Whether its losses compare with those of the search: under the same seed, for the same tokens."""
    return record.role in _AS_SEARCHED
