"""A trial over several processes, its ranks: what each keeps, and how they agree on what comes next.

All ranks run the same trial in step (`sweeps.worker.trial.run_trial`); rank 0 is the worker that its driver
knows, and writes the curve. A request to stop or to go reaches one of them; it becomes an agreement before
the next piece of work, so that none waits for a rank that has left. What fails on one rank alone ends the
processes of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweeps.errors import PreemptedError, StopRequestedError
from sweeps.folders import Folders
from sweeps.records import Assignment, Cause, Outcome, State
from sweeps.spec import Spec
from sweeps.worker.causes import UnusableError, outcome_of
from sweeps.worker.preemption import PreemptionFlag
from sweeps.worker.saving import SCORING, WRITING, OnWork, Saving, StateWriter, synced
from sweeps.worker.trial import WorkerContext, run_trial

if TYPE_CHECKING:
    from tli.planning.plan import Plan
    from tli.sharded.processes import Group
    from tli.training.loop import Training
    from tli.training.recipe import Recipe

# What gloo and NCCL say of a rank that is gone, and torch of a group that was left.
_BROKEN = ("gloo", "NCCL", "onnection", "process group", "Process group", "peer", "timed out", "Timed out")
_AGREED = (Cause.DIVERGED, Cause.PREEMPTED)  # causes that all ranks end by together


class Verdict(IntEnum):
    """What ranks do next; of several wishes the largest counts."""

    GO = 0
    SAVE = 1
    LEAVE = 2  # after a state
    STOP = 3


class RankContext(WorkerContext):
    """What one rank keeps between trials: its rows of the base, and the token files."""

    def __init__(self, spec: Spec, group: Group) -> None:
        """Read this rank's rows of the base; all ranks do.

        Raises:
            InputError: the base or the data cannot be used.
        """
        self.group = group
        self.leads = group.ranks.rank == 0
        super().__init__(spec)

    def _load(self) -> None:
        from tli.sharded.base import read_base

        self.rows = read_base(self.base, self.group, halved=self.spec.in_bf16)

    def grow(self, plan: Plan, seed: int, recipe: Recipe, layers: Sequence[int] = ()) -> Any:
        """The rows of a trial's model; what it does not train are the base's own."""
        from tli.growth.in_memory import injected_parameters, layer_parameters
        from tli.sharded.growth import grow_sharded
        from tli.training.optimizer import untrained

        def frozen(model: Any) -> frozenset[str]:
            new = layer_parameters(model, layers) if layers else injected_parameters(model, plan)
            return untrained(model, recipe, new)

        return grow_sharded(self.rows, plan, seed=seed, precision=recipe.precision, frozen=frozen)

    alone = False

    def any_rank(self, wish: bool) -> bool:  # noqa: FBT001 - a vote
        """Whether any rank wants something; all ask."""
        return agreed(Verdict.SAVE if wish else Verdict.GO) is not Verdict.GO

    def measured_model(self) -> Any:
        """The base under FSDP, in float32."""
        from tli.planning.plan import plan
        from tli.sharded.growth import every_weight, grow_sharded

        return grow_sharded(self.rows, plan(self.depth, method="none"), frozen=every_weight)

    def load_state(self, training: Training, folder: Path, owner: str) -> bool:
        """Put the newest good state into a training; whether there was one."""
        from tli.sharded.resuming import load_latest_sharded

        return load_latest_sharded(training, folder, self.group, owner)

    def writer(self, folder: Path, owner: str, curve: Path) -> StateWriter:
        """What writes the states of a training into a folder; every rank has one."""
        from tli.sharded.states import ShardedSaver

        return ShardedSaver(folder, lambda: synced(curve), self.group, owner)

    def saving(self, training: Training, writer: StateWriter, on_work: OnWork) -> RankSaving:
        """What saves the states of a training."""
        return RankSaving(training, writer, on_work, self.leads)

    def write(self, model: Any, target: Path, lineage: dict[str, Any]) -> None:
        """Write a trained model as a folder."""
        from tli.sharded.export import write_sharded_model

        write_sharded_model(model, target, beside=self.base.folder, lineage=lineage, group=self.group)


class RankSaving(Saving):
    """The same for a rank: whether to save, to go or to stop is agreed on before each piece of work."""

    def __init__(self, training: Training, saver: Any, on_work: OnWork, leads: bool) -> None:  # noqa: FBT001
        """Rank 0, which `leads`, says when it is time for a state."""
        super().__init__(training, saver, self._asked)
        self._tell, self._leads, self._wish = on_work, leads, Verdict.GO
        self._over = False

    def _asked(self, work: str) -> None:
        """Keep what is asked of this rank for the next agreement: none may leave the others alone."""
        try:
            self._tell(work)
        except PreemptedError:
            self._wish = max(self._wish, Verdict.LEAVE)
        except StopRequestedError:
            self._wish = max(self._wish, Verdict.STOP)

    def between(self, work: str) -> None:
        """Before each step and each measurement.

        Raises:
            PreemptedError, StopRequestedError: on all ranks alike.
        """
        self.on_work(work)
        due = self._leads and self._due
        verdict = agreed(max(self._wish, Verdict.SAVE if due else Verdict.GO))
        if verdict in (Verdict.SAVE, Verdict.LEAVE):
            self._save()
            self.on_work(work)
        self._leave_or_stop(verdict)

    def _leave_or_stop(self, verdict: Verdict) -> None:
        if verdict is Verdict.LEAVE:
            self._over = True
            self.saver.wait()
            raise PreemptedError("one of its ranks was told to go")
        if verdict is Verdict.STOP:
            self._over = True
            raise StopRequestedError("its driver wants no more of it")

    def before_pass(self) -> None:
        """Before each pass of a task, which all ranks make together.

        Raises:
            PreemptedError, StopRequestedError: on all ranks alike.
        """
        self.on_work(SCORING)
        self._leave_or_stop(agreed(self._wish))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Rank 0 is closed between two measurements: the others wait for it, and are released."""
        if kind is GeneratorExit and self._leads and not (self._over or self.finished):
            with suppress(RuntimeError):  # of a rank that is gone
                agreed(Verdict.STOP)
        super().__exit__(kind, *rest)


def agreed(wish: Verdict) -> Verdict:
    """The largest wish of all ranks."""
    from tli.sharded.processes import largest

    return Verdict(largest(int(wish)))


class Team(Protocol):
    """The other ranks, as rank 0 knows them."""

    group: Group

    def begin(self, spec: str, assignment: Assignment) -> None:
        """Have them begin a trial."""

    def fault(self, seconds: float) -> Ending | None:
        """How the first of them ended that did not end with the others; waits for it a while."""

    def end(self) -> None:
        """End their processes."""


@dataclass(frozen=True)
class Ending:
    """How a rank ended its trial; `broken`: perhaps because another one had."""

    outcome: Outcome
    broken: bool = False

    @property
    def together(self) -> bool:
        """Whether all ranks end so, and their group goes on."""
        return self.outcome.state is not State.FAIL or self.outcome.cause in _AGREED


def is_broken(error: BaseException) -> bool:
    """Whether an error may be that of a group of which another rank has gone."""
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _BROKEN)


@lru_cache(maxsize=1)
def cached_rank_context(spec_json: str, group: Group) -> RankContext:
    """What this rank keeps, made by its first trial."""
    return RankContext(Spec.from_json(json.loads(spec_json)), group)


def run_peer(spec_json: str, assignment: Assignment, group: Group, preemption: PreemptionFlag) -> Ending:
    """Run this rank's part of a trial to its end, in a process that is there for trials alone.

    Where a rank fails alone the others wait for it, until rank 0 ends its process.
    """
    spec = Spec.from_json(json.loads(spec_json))
    folders = Folders(spec.root, spec.name)
    preemption.deferred = True

    def on_work(work: str) -> None:
        if preemption.raised and work != WRITING:
            raise PreemptedError("this rank was told to go")

    try:
        try:
            context = cached_rank_context(spec_json, group)
        except Exception as error:
            raise UnusableError(str(error)) from error
        for _ in run_trial(context, assignment, folders, on_work):
            pass
    except Exception as error:  # noqa: BLE001 - it is rank 0 that says how a trial ended
        return Ending(outcome_of(error, assignment, folders), is_broken(error.__cause__ or error))
    finally:
        preemption.deferred = False
    return Ending(Outcome(State.COMPLETE))


def joint_ending(own: Ending, fault: Callable[[float], Ending | None], seconds: float) -> Outcome:
    """Why a trial ended that failed on rank 0: by a fault of its own, or of a rank that failed before."""
    if own.broken and own.outcome.cause is Cause.ERROR:
        other = fault(seconds)
        if other is not None and not other.broken:
            return other.outcome
    return own.outcome
