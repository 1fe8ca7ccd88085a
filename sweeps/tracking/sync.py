"""Rebuilds a sweep in MLflow from the ledger and the curves on disk.

Everything passes through the outbox, which drops what it knows, as when the sweep runs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeps import addresses
from sweeps.checks import stores
from sweeps.curve import CURVE, measurements
from sweeps.errors import Problem, SpecError, SweepError
from sweeps.records import Point, Role, State, TrialRecord
from sweeps.results.kept import unasked_tracking
from sweeps.results.ranking import best_of, ranking
from sweeps.results.sweep import Sweep
from sweeps.tracking import LOG, Tracker, Tracking, store_uri, tracking_problems
from sweeps.tracking.control_gap import ControlGaps, best_control
from sweeps.tracking.descriptions import experiment_text, run_text, running_text
from sweeps.tracking.live import show_colours
from sweeps.tracking.outbox import forget_sent
from sweeps.tracking.registry import asked_for, patience, show_registrations
from sweeps.tracking.saved_view import KIND, TAG, figure_ranges, saved_view
from sweeps.tracking.trial_runs import NOTE, show, show_end
from sweeps.tracking.undriven import undriven
from sweeps.wording import masked

_PATIENCE = 120.0  # seconds in which nothing is delivered; a store that is made takes some of them


@dataclass(frozen=True)
class Synced:
    """What MLflow shows now."""

    uri: str  # without its password
    trials: int
    points: int  # held-out measurements
    lost: tuple[int, ...]  # trials whose measurements are no longer on disk, or not all of them

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def sync(sweep: Sweep, uri: str | None = None) -> Synced:
    """Have MLflow show all of a sweep again; what is there already stays as it is.

    Args:
        sweep: that no process drives meanwhile.
        uri: of another MLflow than the spec's; `sqlite` is a file in the artifacts folder.

    Raises:
        SpecError: there is no MLflow to deliver to, or its address will not do; or the folder is another
            study's.
        LedgerHeldError: another process drives the sweep, and delivers.
        SweepError: not all could be delivered; what is left goes out the next time.
    """
    target, ledger, folders = _target(sweep, uri), sweep.ledger, sweep.folders
    artifacts = folders.artifacts.absolute()
    with undriven(sweep):
        forget_sent(folders.sweep)
        tracker = Tracker(
            target,
            study=ledger.spec.name,
            folder=folders.sweep,
            artifacts=artifacts,
            study_uuid=ledger.study.study_uuid,
            restore=True,
        )
        open_sweep(tracker, sweep, again=False)
        synced = show_trials(tracker, sweep, masked(store_uri(target, artifacts)))
        show_conclusions(tracker, sweep)
        show_registrations(tracker, sweep, sweep.records)
        if not ledger.finished:
            if ledger.study.completions:
                open_sweep(tracker, sweep, again=True)
            show_course(tracker, sweep)
        if not tracker.drain(_PATIENCE + _uploading(sweep)):
            raise SweepError(_not_delivered(tracker, synced.uri, folders.sweep / LOG))
    return synced


def open_sweep(tracker: Tracking, sweep: Sweep, *, again: bool) -> None:
    """Tell of the sweep itself; `again`: it goes on, if it had ended."""
    spec = sweep.ledger.spec
    tags = {"sweeps.study": spec.name, "sweeps.spec_hash": spec.hash}
    began = min((each.started for each in sweep.records if each.ours and each.started), default=None)
    tracker.open_sweep(spec.to_json(), tags, again=again, when=began)
    if not sweep.ledger.study.completions:  # else it is told with the answer
        tracker.describe({**KIND, TAG: saved_view(ranked=False)})


def show_trials(tracker: Tracking, sweep: Sweep, uri: str = "") -> Synced:
    """Tell of every trial, as the ledger and the curves have it."""
    lost, trials, points = [], 0, 0
    for record in filter(_shown, sweep.records):
        known = _show_trial(tracker, sweep, record)
        lost += [record.number] if known != record.losses.keys() else []
        trials, points = trials + 1, points + len(known)
    return Synced(uri, trials, points, tuple(lost))


def show_untold(tracker: Tracking, sweep: Sweep) -> None:
    """Tell of what a driver that was killed between the ledger and the outbox had told only one of them.

    Of a trial that has ended, the outbox knows whether it has everything: no curve of it is read then.
    """
    for record in filter(_shown, sweep.records):
        if not (record.state.finished and tracker.knows(record.number, record.losses, record.request)):
            _show_trial(tracker, sweep, record)
    show_registrations(tracker, sweep, sweep.records)


def show_course(tracker: Tracking, sweep: Sweep) -> None:
    """Tell how far a sweep is that no process drives, and its gaps to the control."""
    records = sweep.records
    controls = sum(record.role is Role.CONTROL for record in records)
    settled = controls >= sweep.ledger.spec.control_rates or any(record.role.after for record in records)
    against = ControlGaps(tracker).tell(records, best_control(records) if settled else None)
    tracker.describe({NOTE: running_text(sweep, records, "search", against)})


def show_conclusions(tracker: Tracking, sweep: Sweep) -> None:
    """Tell of the answer that the sweep ended with, the ranking and the best; and of the best before that."""
    records, completions = sweep.records, sweep.ledger.study.completions
    if not completions:
        return
    objectives: dict[int, tuple[int, float, float]] = {}
    for completion in completions:
        then = records[: completion.trials]
        found = sweep.answer(then)
        searched = sum(record.budgeted for record in then)
        if (best := best_of(found)) is not None and not best.scores:  # of these each trial has its score
            objectives.setdefault(searched, (searched, best.mean, completion.time))
    compared = [found.answer.trial, *(each.number for each in found.finalists)]
    compared += [each.number for each in (found.control, found.baseline) if each is not None]
    tracker.rank(ranking(found, then), [number for number in compared if number is not None])
    answer = found.answer
    tags: dict[str, Any] = {
        "sweeps.best": answer.trial,
        "sweeps.best_grown": answer.grown,
        "sweeps.grow": answer.grow,
    }
    tags[NOTE] = run_text(sweep, found, then)
    control = found.control.number if found.control else None
    against = ControlGaps(tracker).tell(then, control)
    # Of long runs, too, which came after the answer and have the colour of what they make longer.
    coloured = [*then, *(each for each in records[completion.trials :] if each.role.promoted)]
    show_colours(tracker, coloured, [each.number for each in found.finalists], control, found.front)
    text = experiment_text(sweep, found, then, against)
    view = saved_view(ranked=True, ranges=figure_ranges(then, against))
    tracker.describe({**KIND, TAG: view, NOTE: text})
    tracker.end_sweep(tags, list(objectives.values()), completion.time)
    if sweep.folders.report.is_file():
        tracker.report()


# -- inside ---------------------------------------------------------------------------------------


def _shown(record: TrialRecord) -> bool:
    """Not one that was enqueued and is not taken yet, or cannot be run, or was not run here."""
    return bool(record.settings)


def _show_trial(tracker: Tracking, sweep: Sweep, record: TrialRecord) -> set[int]:
    """Tell all of a trial; the steps whose measurements are on disk."""
    show(tracker, record)
    curve = sweep.folders.trial(record.number) / CURVE
    points = _told(record, measurements(curve, sweep.ledger.owner(record)))
    tracker.points(record.number, record.attempt, points)
    if record.state.finished:
        show_end(tracker, record)
    return {point.step for point in points}


def _uploading(sweep: Sweep) -> float:
    """Seconds for the largest model that is to be registered; none where none is."""
    complete = [record for record in sweep.records if record.state is State.COMPLETE]
    wanted = [each for each in complete if asked_for(sweep.folders, each.number, each.attempt)]
    return max((patience(sweep.folders, each) for each in wanted), default=0.0)


def _target(sweep: Sweep, uri: str | None) -> str:
    """Where to deliver to, as a spec would have it, once it is known to be usable."""
    spec = sweep.spec
    where = "--tracking" if uri is not None else spec.where("tracking.uri")
    written = uri if uri is not None else spec.tracking.uri if spec.tracking else None
    if written is None:
        raise SpecError(Problem(where, "tracking: null", "an MLflow to deliver to", "--tracking sqlite"))
    if uri is None and sweep.kept and (unasked := unasked_tracking(spec)):
        raise SpecError(unasked)
    if problems := tracking_problems(written, where):
        raise SpecError(*problems)
    if addresses.without_masks(written) != written:
        got = f"{masked(written)!r}, without its password"
        raise SpecError(Problem(where, got, "the whole address", "--tracking with the whole address"))
    address = store_uri(written, sweep.folders.artifacts)
    if addresses.driven(addresses.absolute(address)) == addresses.driven(
        addresses.absolute(sweep.spec.study_url)
    ):
        expected = "a store of its own: Optuna and MLflow would take each other's tables for theirs"
        got = f"{masked(address)!r}, the study's own store"
        raise SpecError(Problem(where, got, expected, "another database, or sqlite"))
    if not address.startswith("http"):
        problems = list(stores.store(address, where, table="experiments"))
    elif reason := stores.address(address):
        problems = [Problem(where, f"{masked(address)!r} ({reason})", "an MLflow that answers")]
    if problems:
        raise SpecError(*problems)
    return written


def _told(record: TrialRecord, measured: Any) -> list[Point]:
    """The measurements that the ledger has, of several at one step those first that it has the loss of.

    The others may hold train losses that were not told: an attempt that goes on from a state has none of the
    steps before it.
    """
    known = [point for point in measured if point.step in record.losses]
    known.sort(key=lambda point: (point.step, point.eval_loss != record.losses[point.step]))
    return known


def _not_delivered(tracker: Tracker, uri: str, log: Path) -> str:
    said = log.read_text("utf-8", "replace").strip().splitlines()[-1:] if log.exists() else []
    reason = tracker.problem or (said[0] if said else f"nothing came through in {_PATIENCE:g} s")
    return f"{uri} has not got everything: {reason}; the same command again delivers the rest"
