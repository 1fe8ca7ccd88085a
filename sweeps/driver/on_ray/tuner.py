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
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import ray
from ray import _raylet, tune
from ray.tune.execution import class_cache

from sweeps.addresses import secret_name
from sweeps.checks import machine
from sweeps.checks.placement import Node, fitting, slots, this_machine
from sweeps.driver.on_ray.killing import kill_worker
from sweeps.driver.on_ray.peers import Peers, assignment_from
from sweeps.driver.on_ray.stall_monitor import StallMonitor
from sweeps.driver.on_ray.temp_dirs import keep_rays_token, ray_folder
from sweeps.environment import FOR_RAY, without_secrets
from sweeps.errors import Problem, SpecError, SweepError
from sweeps.folders import Folders
from sweeps.records import METRIC, Cause
from sweeps.spec import Spec
from sweeps.text import counted
from sweeps.wording import masked
from sweeps.worker.execution import Execution, Worker
from sweeps.worker.preemption import PreemptionFlag
from sweeps.worker.watchdog import Bounds, hung

# What the driver alone needs it imports where it is used: every worker imports this module.
if TYPE_CHECKING:
    from sweeps.driver.schedule.agenda import Agenda

_LOOKED_EVERY = 2.0  # seconds between two looks at the driver's own node


class SlotTrainable(tune.Trainable):  # type: ignore[misc] # Ray is untyped
    """A worker's slot in Tune's words. The process stays; `reset_config` is the next trial."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial; this process is there for trials alone."""
        self._place = (ray.get_runtime_context().get_node_id(), os.getpid())
        self._preemption = PreemptionFlag()
        spec = _read(config["spec"])
        self._peers = Peers(spec) if spec.resources.workers > 1 else None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self._execution.close()
        if self._preemption.raised or self._execution.ruined:
            ray.actor.exit_actor()  # it was told to go, or lost its device: the trial is another worker's
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        assignment = assignment_from(config["assignment"])
        spec = _read(config["spec"])
        worker = Worker(self._preemption, Bounds(least=spec.retries.silence), self._peers)
        self._execution = Execution(spec, assignment, worker)

    def step(self) -> dict[str, Any]:
        """Train to the next measurement."""
        reply = self._execution.advance()
        outcome = reply.outcome
        if outcome is not None and outcome.cause is Cause.LOST:
            # Another rank died. As this process goes too, its driver finds the trial lost, and starts anew.
            ray.actor.exit_actor()
        return {  # flat: Tune shows a scheduler the last result with nested dictionaries flattened
            "worker": self._place,
            "points": [point.to_json() for point in reply.points],
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
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Tune's workers have an environment of their own, so that none of these would ever be used.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    if address in (None, "local"):
        _start_here(spec)
    else:
        _join(str(address))
    wanted, found = spec.resources, nodes()
    if not fitting(found, wanted.cpus, wanted.gpus, wanted.workers):
        have = ", ".join(f"{counted(node.cpus, 'CPU')} and {counted(node.gpus, 'GPU')}" for node in found)
        asked = f"{counted(wanted.cpus, 'CPU')} and {counted(wanted.gpus, 'GPU')} for "
        asked += "one trial" if wanted.workers == 1 else f"each of {wanted.workers} ranks"
        most = "one node has" if wanted.workers == 1 else "the nodes together hold"
        ray.shutdown()
        raise SpecError(Problem("resources", asked, f"no more than {most} ({have})", "smaller trials"))


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


def nodes() -> list[Node]:
    """The nodes of the cluster that are alive, with what Ray was told that they have."""
    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [Node(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in alive]


def run_on_ray(agenda: Agenda, spec: Spec, measured: Callable[[float], None]) -> None:
    """Carry the agenda out on the cluster that `start_cluster` joined; paths in `spec` are absolute.

    `measured` is called with the time of each measurement, once it is in the study.
    """
    from sweeps.driver.on_ray.searcher import AgendaScheduler, AgendaSearcher

    # Twice what a worker's own watchdog allows, which knows more: it dumps the stacks.
    watch = StallMonitor(2 * spec.retries.silence, kill_worker)
    folders = Folders(spec.root, spec.name)
    searcher = AgendaSearcher(
        agenda,
        {"spec": json.dumps(spec.to_json())},
        watch,
        hung=lambda running: hung(folders, running),
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
                callbacks=[OwnNode(), Listening(watch)],
            ),
        )
        watch.start()
        try:
            tuner.fit()
        finally:
            watch.stop()


class Listening(tune.Callback):  # type: ignore[misc] # Ray is untyped
    """Tells the watch each time that Tune comes round to the workers' reports."""

    def __init__(self, watch: StallMonitor) -> None:
        """Tell it nothing yet."""
        self._watch = watch

    def __getstate__(self) -> dict[str, Any]:
        """Nothing goes into Tune's snapshots: the ledger is the memory."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002 - Tune's names
        """Tell it."""
        self._watch.listens()


class OwnNode(tune.Callback):  # type: ignore[misc] # Ray is untyped
    """Ends the run when Ray has declared the driver's node dead, some seconds after its raylet died.

    Tune takes the workers that died with it for lost and asks for new ones, which no machine will start.
    Other nodes may come back; this one does not while its driver lives.
    """

    def __init__(self) -> None:
        """Look at the node that this process is on."""
        self._node = ray.get_runtime_context().get_node_id()
        self._looked = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002 - Tune's names
        """Look, when it is time.

        Raises:
            SweepError: it is dead.
        """
        if time.monotonic() - self._looked < _LOOKED_EVERY:
            return
        self._looked = time.monotonic()
        if any(node["NodeID"] == self._node and not node["Alive"] for node in ray.nodes()):
            raise SweepError(
                "Ray's raylet on this machine died (killed, or out of memory); nothing is lost:"
                " the same command again goes on"
            )
