"""What is done each time that Tune comes round to its workers: the watch hears of it, the driver's own node
is looked at, and what waits for resources is said.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.util import placement_group_table

from sweeps.checks.placement import fitting
from sweeps.driver.on_ray.cluster_nodes import free_nodes, nodes
from sweeps.driver.on_ray.stall_monitor import StallMonitor
from sweeps.errors import SweepError
from sweeps.spec.resources import ResourceSettings
from sweeps.text import counted

if TYPE_CHECKING:
    from sweeps.driver.on_ray.searcher import AgendaSearcher

_LOOKED_EVERY = 2.0  # seconds between two looks at the driver's own node
_STARTS_SECONDS = 5.0  # in which a trial may be on its way to a worker


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


class Waiting(tune.Callback):  # type: ignore[misc] # Ray is untyped
    """Says in the ledger what a trial that was handed out waits for: its bundles are not free yet."""

    def __init__(self, searcher: AgendaSearcher, wanted: ResourceSettings) -> None:
        """Nothing waits yet; `wanted` is what each trial takes."""
        self._searcher, self._wanted = searcher, wanted
        self._since: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._looked = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing goes into Tune's snapshots: the ledger is the memory."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002 - Tune's names
        """Look, when it is time."""
        now = time.monotonic()
        if now - self._looked < _LOOKED_EVERY:
            return
        self._looked = now
        pending = {trial.trial_id for trial in trials if trial.status == Trial.PENDING}
        self._since = {name: self._since.get(name, now) for name in pending}
        waiting = {name for name, since in self._since.items() if now - since > _STARTS_SECONDS}
        why = _lacking(self._wanted) if waiting and _group_waits() else None
        for name in {*waiting, *self._said}:
            said = why if name in waiting else None
            if said != self._said.get(name):
                self._searcher.waits(name, said)
                self._said[name] = said or ""
        self._said = {name: said for name, said in self._said.items() if said}


def _group_waits() -> bool:
    """Whether some placement group of the cluster has no place yet."""
    return any(group["state"] == "PENDING" for group in placement_group_table().values())


def _lacking(wanted: ResourceSettings) -> str | None:
    """What a trial waits for; None where its bundles are free, and Ray is about to place them."""
    free = fitting(free_nodes(), wanted.cpus, wanted.gpus)
    if free >= wanted.workers:
        return None
    each = " and ".join(
        counted(amount, word) for amount, word in ((wanted.cpus, "CPU"), (wanted.gpus, "GPU")) if amount
    )
    said = f"resources: {counted(wanted.workers, 'bundle')} of {each} asked, {free} free"
    whole = fitting(nodes(), wanted.cpus, wanted.gpus)
    return said if whole >= wanted.workers else f"{said}; all nodes together hold {whole}"
