"""Runs a sweep from its spec to its answer: check, open the ledger, run trials, select, close."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, Self

from sweeps.driver.schedule.agenda import Agenda
from sweeps.driver.schedule.spending import going_on, raised
from sweeps.errors import Problem, SweepError
from sweeps.folders import Folders
from sweeps.ledger import Ledger, look, refuse_foreign, spec_conflicts, stored_spec
from sweeps.ownership import claimed
from sweeps.records import Role, TrialRecord
from sweeps.results.selection import control_of, finalists
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec
from sweeps.tracking import Tracking, open_tracker
from sweeps.tracking.sync import open_sweep, show_conclusions, show_untold
from sweeps.wording import formatted, masked
from sweeps.worker.trial import for_workers

if TYPE_CHECKING:
    from tli.data.tokenise import Progress
    from tli.models.base import Base

_COMPARED_WITH = (Role.CONTROL, Role.BASELINE)  # whose models are kept as the finalists' are
_TRACKING_SECONDS = 60.0  # for the rest of the outbox, at the end; what is left goes out at the next run
_STOPPED_SECONDS = 0.5  # the same after Ctrl-C and SIGTERM: `ray job stop` waits 3 s, then kills


class Watcher(Protocol):
    """Shows a sweep while it runs: the live table, plain lines, or nothing."""

    def update(self, records: Sequence[TrialRecord], phase: str) -> None:
        """Something changed."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def progress(self, what: str, amount: str, share: float | None) -> None:
        """Work before the first trial goes on: how much is done, and which share of it if that is known."""


def run(
    spec: Spec, watcher: Watcher, *, runner: str = "ray", address: str | None = None, extend: bool = False
) -> Sweep:
    """Run a sweep, or what is left of it, to the end.

    Args:
        spec: what to run; its study decides whether this is a beginning or a resume.
        watcher: told of every change.
        runner: `ray`, or `inline` for one trial at a time in this process.
        address: of a Ray cluster; None starts one on this machine.
        extend: allow a larger budget than the study has.

    Raises:
        InputError: whatever is wrong, before anything is reserved or written.
        LedgerHeldError: another process drives this sweep.
        KeyboardInterrupt: stopped by hand; the same command goes on.
    """
    from sweeps.checks.preflight import check

    at_once = 1 if runner == "inline" else None
    checked = check(
        spec, cluster=address, at_once=at_once, study=lambda given: study_problems(given, extend=extend)
    )
    for note in checked.notes:
        watcher.note(note)
    spec = _with_the_larger_budget(spec, watcher)
    root = spec.root.absolute()
    folders = Folders(root, spec.name)
    if _nothing_left(spec):
        runner = "inline"  # no cluster is started for that
    with ExitStack() as stack:
        stack.enter_context(folders.driver_lock())
        working = for_workers(spec, checked.base.revision)
        text = stack.enter_context(_Tokenising(working, checked.base, watcher))
        cluster = stack.enter_context(ExitStack())
        parallel = cluster.enter_context(_cluster(spec, address)) if runner == "ray" else 1
        # Made while the cluster started; text that will not do ends it here.
        input_digests = {"base": checked.base.fingerprint, "text": text.digest()}
        ledger = stack.enter_context(
            Ledger.driven(spec.study_url, spec, input_digests, depth=checked.base.facts.depth)
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
        stack.push(_Closing(tracker, watcher, spec.name))
        sweep = Sweep(spec, folders, ledger)
        open_sweep(tracker, sweep, again=True)
        show_untold(tracker, sweep)
        agenda = Agenda(
            ledger,
            tracker,
            parallel=parallel,
            on_change=watcher.update,
            on_end=_Tidying(sweep).ended,
            request_stop=folders.request_stop,
        )
        _carry_out(agenda, runner, working)
        if agenda.broken:
            raise SweepError(f"no trial can run: {agenda.broken}; mend it, then run the same command again")
        if not agenda.finished:
            raise KeyboardInterrupt  # Tune returns when it is interrupted
        ledger.record_completion(agenda.ended_by)
        show_conclusions(tracker, sweep)
        cluster.close()  # while MLflow is told the rest
    return sweep


# -- inside ---------------------------------------------------------------------------------------


def study_problems(spec: Spec, *, extend: bool = True) -> list[Problem]:
    """Why a study that exists already cannot go on with this spec; nothing is made by looking.

    Args:
        spec: what is to be run.
        extend: whether a larger budget than the study's is wanted on purpose.
    """
    stored = _stored(spec)
    if stored is None:
        return []
    problems = spec_conflicts(stored, spec)
    have, want = stored.budget.to_json(), spec.budget.to_json()
    for name in () if extend else raised(stored.budget, spec.budget):
        got, ours = formatted(want[name]), f"{formatted(have[name])}, the study's own"
        problems.append(Problem(f"budget.{name}", got, ours, f"--extend, or --set budget.{name}={got}"))
    return problems


def _with_the_larger_budget(spec: Spec, watcher: Watcher) -> Spec:
    """The study's budget, where it is larger than the spec's: what was asked for is not taken back."""
    stored = _stored(spec)
    if stored is None:
        return spec
    budget, notes = going_on(stored.budget, spec.budget)
    for note in notes:
        watcher.note(note)
    return spec.model_copy(update={"budget": budget})


def _nothing_left(spec: Spec) -> bool:
    stored = _stored(spec)
    same = stored is not None and stored.budget == spec.budget
    return same and Ledger.read(spec.study_url, spec.name).finished


def _stored(spec: Spec) -> Spec | None:
    storage = look(spec.study_url)
    if storage is None:
        return None
    refuse_foreign(storage, spec.name)
    return stored_spec(storage, spec.name)


class _Tokenising:
    """The token files, made in a thread while the cluster starts; not finished where the sweep is stopped."""

    def __init__(self, spec: Spec, base: Base, watcher: Watcher) -> None:
        """Begin: spec with absolute paths."""
        self._spec, self._base, self._watcher = spec, base, watcher
        self._stopped = False
        self._thread = ThreadPoolExecutor(1)
        self._made = self._thread.submit(self._make)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.shutdown()

    def digest(self) -> str:
        """What tells the text from another, once it is made."""
        return self._made.result()

    def _make(self) -> str:
        """Make the token files, if they are not there, and see that they hold a batch and a held-out window.

        Here and not in a worker, so that text that will not do ends the command before it is in the ledger.
        """
        from tli.data.batches import open_tokens, tokens_ready

        spec, data = self._spec, self._spec.data.to_tli()
        cache = Folders(spec.root, spec.name).tokens
        if not tokens_ready(data, self._base, cache):
            self._watcher.note(f"tokenising {masked(data.source)}, once")
        tokens = open_tokens(data, self._base, cache, on_progress=self._show)
        tokens.heldout_windows(sequence_length=data.sequence_length, eval_tokens=data.eval_tokens)
        batch = spec.trial.recipe.batch_tokens
        tokens.batches(sequence_length=data.sequence_length, batch_tokens=batch, seed=spec.trial.seed)
        return tokens.digest

    def _show(self, now: Progress) -> None:
        if self._stopped:
            raise _StoppedError
        self._watcher.progress("tokenising", f"{now.tokens:,} tokens", now.share)


class _StoppedError(Exception):
    """Ends the making of token files that are not waited for any more."""


class _cluster:  # noqa: N801 - used as a context manager only
    """The Ray cluster of this run; gives how many trials run at once."""

    def __init__(self, spec: Spec, address: str | None) -> None:
        self._spec, self._address = spec, address

    def __enter__(self) -> int:
        from sweeps.checks.placement import slots
        from sweeps.driver.on_ray.tuner import nodes, start_cluster

        start_cluster(self._spec, self._address)
        return slots(self._spec, nodes())

    def __exit__(self, *_: object) -> None:
        from sweeps.driver.on_ray.tuner import stop_cluster

        stop_cluster()


def _carry_out(agenda: Agenda, runner: str, spec: Spec) -> None:
    if runner == "inline":
        from sweeps.driver.inline import run_inline

        run_inline(agenda, spec)
    else:
        from sweeps.driver.on_ray.tuner import run_on_ray

        run_on_ray(agenda, spec)


class _Tidying:
    """Frees what ended trials no longer need: training states, and models that cannot win any more.

    Nothing of running ones: their worker may have written the model of a winner that has yet to be told.
    """

    def __init__(self, sweep: Sweep) -> None:
        """Free what is there to be freed."""
        self._folders, self._wanted = sweep.folders, sweep.spec.finalists
        self._depth = sweep.ledger.depth
        self._best: list[TrialRecord] = []
        self._free([record for record in sweep.records if record.ours and record.state.finished])

    def ended(self, record: TrialRecord) -> None:
        """One more has ended: itself or one that it surpasses is no finalist any more, and never will be."""
        self._free([record])

    def _free(self, ended: Sequence[TrialRecord]) -> None:
        known = [*self._best, *ended]
        original = control_of(known)
        best = finalists(known, self._wanted.top, self._wanted.per, depth=self._depth)
        self._best = best + ([original] if original else [])
        kept = {r.number for r in self._best} | {r.number for r in known if r.role in _COMPARED_WITH}
        for record in ended:
            self._folders.drop_checkpoints(record.number)
        for record in known:
            self._folders.drop_finals(record.number, record.attempt if record.number in kept else None)


class _Closing:
    """The end of tracking: waits for what is on its way, but not when the sweep is being stopped."""

    def __init__(self, tracker: Tracking, watcher: Watcher, name: str) -> None:
        self._tracker, self._watcher, self._name = tracker, watcher, name

    def __call__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        if not self._tracker.close(_STOPPED_SECONDS if stopped else _TRACKING_SECONDS):
            again = f"the next run of this command delivers the rest, or `sweeps sync {self._name}`"
            self._watcher.note(f"MLflow has not got everything yet; {again}")
