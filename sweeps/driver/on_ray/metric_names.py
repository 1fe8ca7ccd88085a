"""Names and labels of what a sweep's driver shows Prometheus, through Ray, which writes `ray_` before each.

The dashboards and the alert rules ask for these, and for Ray's own. There are few series: a label has few
values, and of running trials there is one series a slot, not one a trial.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "ray_"  # written by Ray before every name


@dataclass(frozen=True)
class Metric:
    """A gauge: its name without Ray's prefix, what it is, and its labels beside `sweep`."""

    name: str
    what: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """Its name in Prometheus."""
        return f"{PREFIX}{self.name}"


TRIALS = Metric("sweeps_trials", "trials by state: waiting, running, complete, pruned, fail", ("state",))
TRIALS_BY_ROLE = Metric("sweeps_trials_ended", "trials that have ended, by role", ("role",))
PLANNED = Metric("sweeps_trials_planned", "trials that the sweep may have")
BEST = Metric("sweeps_best_loss", "final loss of the best grown model, under the search's own seed")
CONTROL = Metric(
    "sweeps_control_loss", "final loss of the original, trained on at its best rate, under the same seed"
)
GAP = Metric("sweeps_control_gap", "the best loss minus the control's; below 0 is better")
LOSS = Metric("sweeps_running_loss", "latest held-out loss of the trial in a slot", ("slot",))
TRIAL = Metric("sweeps_running_trial", "number of the trial in a slot", ("slot",))
DONE = Metric("sweeps_running_share", "share of its steps that the trial in a slot has done", ("slot",))
SLOTS = Metric("sweeps_slots", "trials that can run at once: busy and idle ones", ("state",))
TOKENS = Metric("sweeps_tokens", "tokens trained on so far, by all trials")
FLOPS = Metric("sweeps_flops", "FLOPs of training so far, by all trials")
SLOT_SECONDS = Metric("sweeps_slot_seconds", "seconds that slots were taken so far, by all trials")
FAILURES = Metric("sweeps_failures", "attempts that ended without a result, by cause", ("reason",))
LEDGER_LAG = Metric("sweeps_ledger_lag_seconds", "from the last measurement until it was in the study")
TRACKING_LAG = Metric("sweeps_tracking_lag_bytes", "what MLflow has not got yet")
SILENCE = Metric("sweeps_silence_seconds", "since the last measurement of any trial")
USUAL_SILENCE = Metric("sweeps_usual_silence_seconds", "the longest of the last 50 between two measurements")
LEFT = Metric("sweeps_left_seconds", "to the end: likely, and a range that holds it with 80 %", ("bound",))
DISK_FREE = Metric("sweeps_disk_free_bytes", "free where the sweep writes its results")
DISK_SIZE = Metric("sweeps_disk_size_bytes", "all of that file system")
UPDATED = Metric("sweeps_updated_seconds", "when the driver wrote these, in seconds since the epoch")

METRICS = (
    TRIALS,
    TRIALS_BY_ROLE,
    PLANNED,
    BEST,
    CONTROL,
    GAP,
    LOSS,
    TRIAL,
    DONE,
    SLOTS,
    TOKENS,
    FLOPS,
    SLOT_SECONDS,
    FAILURES,
    LEDGER_LAG,
    TRACKING_LAG,
    SILENCE,
    USUAL_SILENCE,
    LEFT,
    DISK_FREE,
    DISK_SIZE,
    UPDATED,
)
