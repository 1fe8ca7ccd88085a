"""Promotes a trial: trains it on a larger budget, in its sweep's study, and hands the model over."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from sweeps.checks.checkpointing import settled
from sweeps.checks.costs import trial_costs
from sweeps.commands import command
from sweeps.driver.promotion_plan import Planned, Where
from sweeps.driver.schedule.promotions import Promotions
from sweeps.driver.service import Closing, carry_out, gauges_of, joined_cluster, ray_in_words
from sweeps.driver.tidying import Tidying
from sweeps.driver.tokenising import Tokenising
from sweeps.driver.watchers import Onlookers, Quiet, Watcher, doing
from sweeps.errors import SweepError
from sweeps.ledger import Ledger
from sweeps.ownership import claimed
from sweeps.records import State, TrialRecord
from sweeps.results.export import is_model_of
from sweeps.results.finding import found
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec
from sweeps.tracking import Tracking, open_tracker
from sweeps.tracking.registry import ask_for, patience, register, show_registrations
from sweeps.tracking.sync import open_sweep, show_conclusions, show_untold
from sweeps.worker.trial import for_workers


def promote(planned: Planned, where: Where, watcher: Watcher | None = None) -> Sweep:
    """Train what was planned, or what is left of it, and hand the model over; the same again goes on.

    The long run is a trial in the sweep's study that no answer of the sweep sees. It goes on from the trial's
    state where its rate is the same up to there: under a constant rate, or before the decay of wsd; else it
    trains afresh, on the same batches in the same order.

    Args:
        planned: as `plan_promotion` gives it.
        where: as it was planned for.
        watcher: sees every change.

    Returns:
        The sweep as it is then.

    Raises:
        LedgerHeldError: another process drives the sweep.
        SweepError: a long run failed, or no trial can run; the text says why.
        KeyboardInterrupt: stopped by hand; nothing is lost.
    """
    watcher, wish = Quiet() if watcher is None else watcher, planned.wish
    if planned.finished:
        record = planned.long_runs[0].record
        assert record is not None, "it was trained"
        if wish.register is not None:
            register(planned.sweep, record, wish.register)
        sweep = planned.sweep
    else:
        sweep, record = _trained(planned, where, watcher)
    if wish.out is not None and not is_model_of(sweep, record, wish.out):
        sweep.export(wish.out, trial=record.number)
    return sweep


# -- inside ---------------------------------------------------------------------------------------


def _trained(planned: Planned, where: Where, watcher: Watcher) -> tuple[Sweep, TrialRecord]:
    """Train what is left; the sweep as it is then, and the promotion in it."""
    spec, folders, base, name = planned.sweep.spec, planned.sweep.folders, planned.base, planned.wish.register
    # What differs from the sweep's trials beside this stands in the settings that every assignment has.
    resources = spec.resources.model_copy(update={"workers": planned.ranks})
    own = spec.model_copy(update={"resources": resources})
    with ExitStack() as stack:
        stack.enter_context(folders.driver_lock())
        working = for_workers(own, base.revision)
        text = stack.enter_context(Tokenising(working, base, watcher))
        cluster = stack.enter_context(ExitStack())
        parallel = 1
        if on_ray := where.runner == "ray":
            with doing(watcher, ray_in_words(where.address)):
                parallel = cluster.enter_context(joined_cluster(own, where.address))
        input_digests = {"base": base.fingerprint, "text": text.digest()}
        depth, costs = base.facts.depth, trial_costs(spec, base)
        # Under the spec that the study has: a long run changes nothing of the sweep.
        kept = planned.sweep.ledger.spec
        driven = Ledger.driven(spec.study_url, kept, input_digests, depth=depth, costs=costs)
        ledger = stack.enter_context(driven)
        stack.enter_context(claimed(folders, ledger.study.study_uuid, watcher.note))
        tracker = _tracker(spec, planned.sweep, ledger.study.study_uuid)
        closing = Closing(tracker, watcher, command("sync", spec.name, runs=spec.root))
        stack.push(closing)
        sweep = Sweep(spec, folders, ledger)
        open_sweep(tracker, sweep, again=False)
        show_untold(tracker, sweep)
        gauges = None
        if on_ray:
            gauges = cluster.enter_context(gauges_of(sweep, tracker, parallel, long=True))
        onlookers = Onlookers(watcher, *([gauges] if gauges else []))
        agenda = Promotions(
            ledger,
            tracker,
            planned.long_runs,
            spec=own,
            parallel=parallel,
            on_change=onlookers.changed,
            on_end=Tidying(sweep).ended,  # of a long run as of a finalist: what follows an end belongs there
            request_stop=folders.request_stop,
            on_note=watcher.note,
        )
        carry_out(agenda, settled(working, planned.checkpointing), gauges)
        if agenda.broken:
            raise SweepError(f"no trial can run: {agenda.broken}; mend it, then run the same command again")
        if not agenda.finished:
            raise KeyboardInterrupt  # Tune returns when it is interrupted
        ended = [ledger.record(number) for number in agenda.numbers]
        _refuse_failed(ended)
        if name is not None:
            ask_for(folders, ended[0].number, ended[0].attempt, name)
            show_registrations(tracker, sweep, ended[:1])
            closing.seconds = patience(folders, ended[0])
        if ledger.finished:
            show_conclusions(tracker, sweep)  # where telling of the sweep has begun it anew
        cluster.close()  # while MLflow is told the rest
    return found(spec), ended[0]


def _tracker(spec: Spec, sweep: Sweep, study_uuid: str) -> Tracking:
    return open_tracker(
        spec.tracking.uri if spec.tracking else None,
        study=spec.name,
        folder=sweep.folders.sweep,
        artifacts=spec.root.absolute(),
        study_uuid=study_uuid,
    )


def _refuse_failed(ended: Sequence[TrialRecord]) -> None:
    failed = [record for record in ended if record.state is not State.COMPLETE]
    if failed:
        words = "; ".join(f"trial {r.number} ({r.role}): {r.reason or r.state.value}" for r in failed)
        raise SweepError(f"a long run has failed: {words}")
