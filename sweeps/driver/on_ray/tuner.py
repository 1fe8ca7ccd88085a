"""Runs the agenda over Ray Tune: warm worker processes that stay, one trial after another in each."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import ray
from ray import _raylet, tune
from ray.tune.execution import class_cache

from sweeps.addresses import secret_name
from sweeps.checks import machine
from sweeps.checks.placement import placement_problem, slots, this_machine
from sweeps.driver.on_ray.cluster_nodes import nodes
from sweeps.driver.on_ray.killing import kill_worker
from sweeps.driver.on_ray.peers import Peers, assignment_from
from sweeps.driver.on_ray.stall_monitor import StallMonitor
from sweeps.driver.on_ray.temp_dirs import keep_rays_token, ray_folder
from sweeps.environment import FOR_RAY, without_secrets
from sweeps.errors import Problem, SpecError, SweepError
from sweeps.folders import Folders
from sweeps.records import METRIC, Cause, Outcome, State
from sweeps.spec import Spec
from sweeps.wording import masked
from sweeps.worker.endings import leave_ending, left_ending
from sweeps.worker.execution import Execution, Worker
from sweeps.worker.preemption import PreemptionFlag
from sweeps.worker.watchdog import Bounds, hung

# What the driver alone needs it imports where it is used: every worker imports this module.
if TYPE_CHECKING:
    from sweeps.driver.schedule.agenda import Agenda


class SlotTrainable(tune.Trainable):  # type: ignore[misc] # Ray is untyped
    """A worker's slot in Tune's words. The process stays; `reset_config` is the next trial."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial; this process is there for trials alone."""
        self._place = (ray.get_runtime_context().get_node_id(), os.getpid())
        self._preemption = PreemptionFlag()
        self._assignment = assignment_from(config["assignment"])
        spec = _read(config["spec"])
        self._folders = Folders(spec.root, spec.name)
        self._peers = Peers(spec, self._leave) if spec.resources.workers > 1 else None
        self._take(spec)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self._execution.close()
        self._assignment = assignment_from(new_config["assignment"])
        if self._preemption.raised:  # between two trials: the next one is another worker's
            self._leave(Outcome(State.FAIL, "its worker was told to go before it began", Cause.PREEMPTED))
        if self._takes_no_other:
            ray.actor.exit_actor()
        self._take(_read(new_config["spec"]))
        return True

    def _take(self, spec: Spec) -> None:
        worker = Worker(self._preemption, Bounds(least=spec.retries.silence), self._peers)
        self._execution = Execution(spec, self._assignment, worker)

    def _leave(self, outcome: Outcome) -> bool:
        return leave_ending(self._folders, self._assignment, outcome)

    def _goes_with(self, outcome: Outcome) -> bool:
        """Whether this process ends with its trial: its driver finds it gone, and on disk why.

        What the disk did not take, the driver is sent, and the process ends before the next trial.
        """
        return outcome.state is State.FAIL and self._takes_no_other and self._leave(outcome)

    @property
    def _takes_no_other(self) -> bool:
        """Whether this process was told to go, lost its device, or is left of its group."""
        return self._preemption.raised or self._execution.ruined

    def step(self) -> dict[str, Any]:
        """Train to the next measurement."""
        reply = self._execution.advance()
        outcome = reply.outcome
        if outcome is not None and self._goes_with(outcome):
            ray.actor.exit_actor()
        return {  # flat: Tune shows a scheduler the last result with nested dictionaries flattened
            "worker": self._place,
            "points": [point.to_json() for point in reply.points],
            "notes": list(reply.notes),
            "state": outcome.state.value if outcome else "",
            "reason": (outcome.reason or "") if outcome else "",
            "cause": (outcome.cause or "") if outcome else "",
            "fatal": outcome.fatal if outcome else False,
            METRIC: reply.points[-1].eval_loss if reply.points else float("nan"),
            tune.result.DONE: outcome is not None,
        }

    def cleanup(self) -> None:
        """Let go of the model, and of the other ranks."""
        self._execution.close()
        if self._peers is not None:
            self._peers.end()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: trials keep their own training state."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: trials keep their own training state."""


@lru_cache(maxsize=1)
def _read(spec: str) -> Spec:
    return Spec.from_json(json.loads(spec))


def start_cluster(spec: Spec, address: str | None) -> None:
    """Join the cluster at an address, or start one on this machine.

    Raises:
        SpecError: no cluster can be joined at the address, or none of its nodes can hold one trial.
        SweepError: Ray did not start on this machine.
    """
    # Ray has no other switch for these than the environment, and it must be set before the start.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # a worker that is gone is told of in a line
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Tune's workers have an environment of their own, so that none of these would ever be used.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    if address in (None, "local"):
        _start_here(spec)
    else:
        _join(str(address))
    if (problem := placement_problem(spec, nodes())) is not None:
        ray.shutdown()
        raise SpecError(problem)


def _start_here(spec: Spec) -> None:
    # Its head ends with us; a signal to the whole process group may end it first, and Ray waits for it then.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
    ranks = spec.resources.workers * slots(spec, [this_machine()])
    cpus = max(1, min(spec.resources.cpus * ranks, machine.cores()))
    folder = ray_folder()
    keep_rays_token()  # Ray makes it at its first start, for all to read
    try:
        with without_secrets(*FOR_RAY):  # the driver alone talks to the stores; workers need none of theirs
            _init(address="local", num_cpus=cpus, include_dashboard=False, _temp_dir=str(folder))
        keep_rays_token()
    except Exception as error:  # noqa: BLE001 - that is what Ray raises on a machine too busy to start it
        raise SweepError(f"Ray did not start on this machine: {_reason(error)}") from None


def _join(address: str) -> None:
    from sweeps.driver.on_ray.head_node import head_problem

    problem = None if address == "auto" or "://" in address else head_problem(address)
    if problem is not None:
        raise SpecError(problem)
    try:
        _init(address=address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        got = f"{address!r} ({_reason(error)})"
        remedy = "ray start --head" if address == "auto" else f"sweeps doctor --address {address}"
        raise SpecError(Problem("--address", got, "the address of a Ray cluster that runs", remedy)) from None


def _init(**given: Any) -> None:
    _hide_secrets()
    before = signal.getsignal(signal.SIGTERM)
    verbose = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
    level = logging.INFO if verbose else logging.ERROR
    try:
        ray.init(**given, logging_level=level, log_to_driver=verbose, configure_logging=True)
    except SystemExit:  # Ray's own handler of SIGTERM was in place when it came
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _hide_secrets() -> None:
    """Keep what Ray would write into its logs, or show to all who look at the cluster, free of secrets."""
    # Tune would hand these to its workers by a runtime environment, which Ray logs; the nodes have their own.
    class_cache.ENV_VARS_TO_PROPAGATE = {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if not secret_name(name)
    }
    # The words of a driver are kept in the cluster as its entrypoint, and process lists have them anyway.
    words = [masked(word) for word in sys.orig_argv]
    if words != sys.orig_argv:
        _raylet.setproctitle(shlex.join(words))  # type: ignore[attr-defined] # compiled


def _reason(error: Exception) -> str:
    return masked(str(error).strip().partition("\n")[0])


def stop_cluster() -> None:
    """Leave the cluster; one that was started here ends."""
    ray.shutdown()


def run_on_ray(agenda: Agenda, spec: Spec, measured: Callable[[float], None]) -> None:
    """Carry the agenda out on the cluster that `start_cluster` joined; paths in `spec` are absolute.

    `measured` is called with the time of each measurement, once it is in the study.
    """
    from sweeps.driver.on_ray.callbacks import Listening, OwnNode, Waiting
    from sweeps.driver.on_ray.searcher import AgendaScheduler, AgendaSearcher

    # Twice what a worker's own watchdog allows, which knows more: it dumps the stacks.
    watch = StallMonitor(2 * spec.retries.silence, kill_worker)
    folders = Folders(spec.root, spec.name)
    searcher = AgendaSearcher(
        agenda,
        {"spec": json.dumps(spec.to_json())},
        watch,
        hung=lambda running: hung(folders, running),
        left=lambda running: left_ending(folders, running),
        measured=measured,
    )
    # Ranks on one node where that has room for all, else on several.
    rank = {"CPU": spec.resources.cpus, "GPU": spec.resources.gpus}
    resources = tune.PlacementGroupFactory([rank] * spec.resources.workers, strategy="PACK")
    at_once = slots(spec, nodes())
    # As many workers may start at once as there are slots; the agenda never hands out more than that.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once)
    # Tune insists on a folder for snapshots, which are never read.
    with tempfile.TemporaryDirectory(prefix="sweeps-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(SlotTrainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=AgendaScheduler(searcher, at_once),
                num_samples=-1,
                reuse_actors=True,
                metric=METRIC,
                mode="min",
            ),
            run_config=tune.RunConfig(
                name=spec.name,
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[OwnNode(), Listening(watch), Waiting(searcher, spec.resources)],
            ),
        )
        watch.start()
        try:
            tuner.fit()
        finally:
            watch.stop()
