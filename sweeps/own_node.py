"""Whether the driver's own node is still in the cluster: without it Ray starts no worker, and waits."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray import tune

from sweeps.errors import SweepError

_LOOKED_EVERY = 2.0  # seconds


class OwnNode(tune.Callback):
    """Ends the run when Ray has declared the driver's node dead, some seconds after its raylet died.

    Tune takes the workers that died with it for lost and asks for new ones, which nobody will start. Other
    nodes may come back; this one does not while its driver lives.
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
