"""Where the trials of a sweep run: in this process, or on a Ray cluster; and what is shown of them there."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from sweeps.driver.run_arguments import Runner
from sweeps.driver.schedule.agenda import Agenda
from sweeps.driver.watchers import Watcher, doing
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec
from sweeps.tracking import Tracking
from sweeps.wording import masked

if TYPE_CHECKING:
    from sweeps.driver.on_ray.gauges import Gauges


class Place:
    """Open while it is entered: then `parallel` trials run at once."""

    def __init__(self, spec: Spec, runner: Runner, address: str | None, watcher: Watcher) -> None:
        """Nothing is started yet.

        Args:
            spec: of the sweep.
            runner: in this process, or on Ray.
            address: of a Ray cluster; None starts one on this machine.
            watcher: sees what is started.
        """
        self._spec, self._on_ray, self._address, self._watcher = spec, runner == "ray", address, watcher
        self._gauges: Gauges | None = None
        self._open = ExitStack()
        self.parallel = 1

    def __enter__(self) -> Self:
        if self._on_ray:
            from sweeps.checks.placement import slots
            from sweeps.driver.on_ray.cluster_nodes import nodes
            from sweeps.driver.on_ray.tuner import start_cluster, stop_cluster

            self._open.callback(stop_cluster)
            with doing(self._watcher, self._in_words):
                start_cluster(self._spec, self._address)
                self.parallel = slots(self._spec, nodes())
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def show(self, sweep: Sweep, tracker: Tracking) -> Gauges | None:
        """Have Ray's agents show the sweep to Prometheus; None in this process, where none is asked."""
        if self._on_ray:
            from sweeps.driver.on_ray.gauges import Gauges
            from sweeps.results.standing import Board, aim_of, due_of

            board = Board(aim_of(sweep.spec), due=due_of(sweep.spec))
            pending = getattr(tracker, "pending", lambda: 0)
            gauges = Gauges(board, sweep.folders, self.parallel, pending)
            self._gauges = self._open.enter_context(gauges)  # left before the cluster
        return self._gauges

    def carry_out(self, agenda: Agenda, spec: Spec) -> None:
        """Run the trials; paths in `spec` are absolute."""
        if self._gauges is None:
            from sweeps.driver.inline import run_inline

            run_inline(agenda, spec)
        else:
            from sweeps.driver.on_ray.tuner import run_on_ray

            run_on_ray(agenda, spec, self._gauges.measured)

    @property
    def _in_words(self) -> str:
        here = self._address in (None, "local")
        return (
            "starting Ray on this machine"
            if here
            else f"joining the Ray cluster at {masked(str(self._address))}"
        )
