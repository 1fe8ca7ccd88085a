"""Runs a sweep from its spec to its answer: check, open the ledger, run trials, select, close."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeps.commands import command
from sweeps.driver.existing_study import nothing_left, study_problems, with_the_larger_budget
from sweeps.driver.report_page import ReportPage
from sweeps.driver.run_arguments import Runner, argument_problems, read
from sweeps.driver.schedule.agenda import Agenda
from sweeps.driver.schedule.warm_start import WarmStart
from sweeps.driver.tidying import Tidying
from sweeps.driver.tokenising import Tokenising
from sweeps.driver.watchers import CHECKING, Onlookers, Quiet, Watcher, doing
from sweeps.errors import SweepError
from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.ownership import claimed
from sweeps.results.ranking import behind
from sweeps.results.sentence import sentence, standings
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec
from sweeps.spec.source import Overrides, name_budget
from sweeps.tracking import Tracking, open_tracker
from sweeps.tracking.live import LiveProjection
from sweeps.tracking.sync import open_sweep, show_conclusions, show_untold
from sweeps.wording import masked
from sweeps.worker.trial import for_workers

if TYPE_CHECKING:
    from sweeps.driver.on_ray.gauges import Gauges

_TRACKING_SECONDS = 60.0  # for the rest of the outbox, at the end; what is left goes out at the next run
_STOPPED_SECONDS = 0.5  # the same after Ctrl-C and SIGTERM: `ray job stop` waits 3 s, then kills


def run(
    spec: Spec | str | os.PathLike[str],
    watcher: Watcher | None = None,
    *,
    overrides: Overrides = (),
    runs: str | os.PathLike[str] | None = None,
    runner: Runner = "ray",
    address: str | None = None,
    extend: bool = False,
) -> Sweep:
    """Run a sweep, or what is left of it, to the end; the same call again goes on where it was stopped.

    As the command `sweeps run`. A study that exists already is gone on with where its spec is the same, and
    refused where it is another.

    Parameters
    ----------
    spec : Spec, str or path-like
        A spec, a YAML file, or the name of a packaged one.
    watcher : Watcher, optional
        Sees every change. Where left out nothing is printed; notes go to the logger ``sweeps`` at INFO.
    overrides, runs : optional
        Settings over those of the file, and the folder of all results, as for `load_spec`; none beside a
        `Spec`. A budget among them extends the study's.
    runner : {"ray", "inline"}
        ``inline`` runs one trial at a time in this process.
    address : str, optional
        Of a Ray cluster; where left out, one is started on this machine.
    extend : bool, default False
        Allow a larger budget than the study has.

    Returns
    -------
    Sweep
        With its answer, its trials and its models.

    Raises
    ------
    InputError
        With every problem, before anything is reserved or written.
    LedgerHeldError
        Another process drives this sweep.
    SweepError
        No trial can run, or a store does not answer; the text says why.
    KeyboardInterrupt
        Stopped by hand; nothing is lost.

    Examples
    --------
    >>> import sweeps
    >>> sweep = sweeps.run("mine.yaml", runner="inline")
    >>> sweep.ledger.finished
    True
    """
    from sweeps.checks.checkpointing import settled
    from sweeps.checks.costs import trial_costs
    from sweeps.checks.preflight import check

    problems = argument_problems(watcher, runner, address, extend)
    spec = read(spec, overrides, runs, problems)
    watcher = Quiet() if watcher is None else watcher
    extend = extend or name_budget(overrides)
    at_once = 1 if runner == "inline" else None
    begins = WarmStart()
    with doing(watcher, CHECKING):
        checked = check(
            spec,
            cluster=address,
            at_once=at_once,
            study=lambda given: study_problems(given, extend=extend),
            warm_start=begins.look,
        )
    for note in (*checked.notes, *begins.notes):
        watcher.note(note)
    spec = with_the_larger_budget(spec, watcher)
    root = spec.root.absolute()
    folders = Folders(root, spec.name)
    if nothing_left(spec):
        runner = "inline"  # no cluster is started for that
    with ExitStack() as stack:
        stack.enter_context(folders.driver_lock())
        working = for_workers(spec, checked.base.revision)
        text = stack.enter_context(Tokenising(working, checked.base, watcher))
        cluster = stack.enter_context(ExitStack())
        parallel = 1
        if runner == "ray":
            with doing(watcher, ray_in_words(address)):
                parallel = cluster.enter_context(joined_cluster(spec, address))
        # Made while the cluster started; text that will not do ends it here.
        input_digests = {"base": checked.base.fingerprint, "text": text.digest()}
        watcher.progress("opening the study", "", None)  # until the first trial is shown
        ledger = stack.enter_context(
            Ledger.driven(
                spec.study_url,
                spec,
                input_digests,
                depth=checked.base.facts.depth,
                costs=trial_costs(spec, checked.base),
                warm_start=begins.taken,
            )
        )
        stack.enter_context(claimed(folders, ledger.study.study_uuid, watcher.note))
        folders.write_spec(spec.to_json())
        tracker = open_tracker(
            spec.tracking.uri if spec.tracking else None,
            study=spec.name,
            folder=folders.sweep,
            artifacts=root,
            study_uuid=ledger.study.study_uuid,
        )
        stack.push(Closing(tracker, watcher, command("sync", spec.name, runs=root)))
        sweep = Sweep(spec, folders, ledger)
        open_sweep(tracker, sweep, again=True)
        show_untold(tracker, sweep)
        live = LiveProjection(tracker, sweep, lambda: agenda.control_rates_over)
        stack.callback(live.close)
        report = ReportPage(sweep, tracker, watcher.note)
        gauges = cluster.enter_context(gauges_of(sweep, tracker, parallel)) if runner == "ray" else None
        onlookers = Onlookers(watcher, live, report, *([gauges] if gauges else []))
        agenda = Agenda(
            ledger,
            tracker,
            parallel=parallel,
            on_change=onlookers.changed,
            on_end=Tidying(sweep).ended,
            request_stop=folders.request_stop,
            on_note=watcher.note,
        )
        every = ledger.study.settled_checkpointing(checked.checkpointing)
        carry_out(agenda, settled(working, every), gauges)
        _conclude(agenda, ledger, sweep)
        show_conclusions(tracker, sweep)
        report.finish()
        cluster.close()  # while MLflow is told the rest
    return sweep


# -- inside ---------------------------------------------------------------------------------------


def _conclude(agenda: Agenda, ledger: Ledger, sweep: Sweep) -> None:
    """Write the answer into the study.

    Raises:
        SweepError: no trial can run.
        KeyboardInterrupt: something is left to run: Tune returns when it is interrupted.
    """
    if agenda.broken:
        raise SweepError(f"no trial can run: {agenda.broken}; mend it, then run the same command again")
    if not agenda.finished:
        raise KeyboardInterrupt
    ledger.record_completion(agenda.ended_by, sweep.verdict.margin.nats)
    records = sweep.records
    found = sweep.answer(records)
    ledger.note_answer(
        sentence(found, records), found.answer.trial, behind(found, records), standings(found, records)
    )


def ray_in_words(address: str | None) -> str:
    """What is done to have a cluster."""
    here = address in (None, "local")
    return "starting Ray on this machine" if here else f"joining the Ray cluster at {masked(str(address))}"


class joined_cluster:  # noqa: N801 - used as a context manager only
    """The Ray cluster of this run; gives how many trials run at once."""

    def __init__(self, spec: Spec, address: str | None) -> None:
        self._spec, self._address = spec, address

    def __enter__(self) -> int:
        from sweeps.checks.placement import slots
        from sweeps.driver.on_ray.cluster_nodes import nodes
        from sweeps.driver.on_ray.tuner import start_cluster

        start_cluster(self._spec, self._address)
        return slots(self._spec, nodes())

    def __exit__(self, *_: object) -> None:
        from sweeps.driver.on_ray.tuner import stop_cluster

        stop_cluster()


def gauges_of(sweep: Sweep, tracker: Tracking, slots: int, *, long: bool = False) -> Gauges:
    """What Prometheus is shown of a sweep on Ray; `long`: of it with its promotions, while one is trained."""
    from sweeps.driver.on_ray.gauges import Gauges
    from sweeps.results.standing import Board, aim_of, due_of

    board = Board(replace(aim_of(sweep.spec), long=long), due=due_of(sweep.spec))
    return Gauges(board, sweep.folders, slots, getattr(tracker, "pending", lambda: 0))


def carry_out(agenda: Agenda, spec: Spec, gauges: Gauges | None) -> None:
    """On Ray where there are gauges, which it alone shows; else in this process."""
    if gauges is None:
        from sweeps.driver.inline import run_inline

        run_inline(agenda, spec)
    else:
        from sweeps.driver.on_ray.tuner import run_on_ray

        run_on_ray(agenda, spec, gauges.measured)


class Closing:
    """The end of tracking: waits for what is on its way, but not when the sweep is being stopped."""

    def __init__(self, tracker: Tracking, watcher: Watcher, sync: str) -> None:
        self._tracker, self._watcher, self._sync = tracker, watcher, sync
        self.seconds = _TRACKING_SECONDS

    def __call__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for it, at most so many `seconds`."""
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        if not self._tracker.close(_STOPPED_SECONDS if stopped else self.seconds):
            again = f"the next run of this command delivers the rest, or `{self._sync}`"
            self._watcher.note(f"MLflow has not got everything yet; {again}")
