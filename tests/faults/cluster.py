"""Processes of Ray end, freeze and hang: workers, a node, the head."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.processes import descendants
from tests.faults.kills import KILLED
from tests.faults.oracle import endings, opened, survived
from tests.faults.world import APART, Arena, Shape, World, ended, environment

MINUTES = 300.0  # seconds for a sweep whose workers load torch anew
ONE = replace(APART, parallel=1)


def _survives(arena: Arena, dice: random.Random, point: str, last: int, do: str, **more: Any) -> None:
    """Have it done to a worker; the sweep goes on by itself."""
    when = more.pop("when", "before")
    with on_nodes(arena) as world:
        world.plan(point, dice.randint(1, last), do, role="worker", when=when, **more)
        assert ended(world.begin(), MINUTES) == 0, world.said()
        assert world.fired is not None, "the fault's moment did not come"
        survived(world, arena.reference(APART))


# A worker has at least three trials of six steps, seven measurements and as many states; the ones that the
# suite counts to must come in every run.
_STEPS, _MEASURED, _STATES = 12, 8, 6


def worker_killed(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGKILL before any step."""
    _survives(arena, dice, "step", _STEPS, "kill")


def worker_killed_around_a_state(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGKILL before, within or after the writing of a training state."""
    when = ("before", "during", "after")[seed % 3]
    do = {"do": "cut and kill", "share": dice.random()} if when == "during" else {"do": "kill"}
    _survives(arena, dice, "state", _STATES, when=when, **do)


def worker_killed_after_report(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGKILL with a measurement on disk that the driver has not heard of."""
    _survives(arena, dice, "curve", _MEASURED, "kill", when="after")


def worker_hangs(arena: Arena, dice: random.Random, seed: int) -> None:
    """A lock that is never freed: stacks are written, the worker ends, the trial goes on elsewhere."""
    shape = replace(APART, silence=5)
    with on_nodes(arena, shape) as world:
        world.plan("step", dice.randint(3, _STEPS), "hang", role="worker")
        assert ended(world.begin(), MINUTES) == 0, world.said()
        assert world.fired is not None, "the fault's moment did not come"
        with opened(world) as study:  # by its own watchdog, or on a slow machine by the driver
            assert any(trial.system_attrs.get("sweeps:retries", {}).get("hung") for trial in study.trials)
        stacks = [path.read_text() for path in world.runs.rglob("hung-*.txt")]
        assert all("sitecustomize" in text for text in stacks if text), stacks
        survived(world, arena.reference(shape))


def worker_frozen(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGSTOP: the driver kills it; or SIGCONT comes first, and nobody has noticed."""
    shape = replace(APART, silence=5)
    with on_nodes(arena, shape) as world:
        world.plan("step", dice.randint(7, _STEPS), "stop", role="worker")
        process = world.begin()
        fired = world.wait_for_fault(process)
        if seed % 2:
            time.sleep(dice.uniform(0, 4))
            with contextlib.suppress(ProcessLookupError):
                os.kill(fired["pid"], signal.SIGCONT)
        assert ended(process, MINUTES) == 0, world.said()
        survived(world, arena.reference(shape))


# -- nodes ------------------------------------------------------------------------------------------------


class Nodes:
    """A head without CPUs and two nodes of one, each with a raylet of its own; one sweep after another uses them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._world = folder / "world"
        self._cluster: Any = None

    def serve(self, world: World) -> tuple[str, ...]:
        """Have faults in this world; the options by which its sweep runs here."""
        self._world.unlink(missing_ok=True)
        self._world.symlink_to(world.faults)
        with self._environment():
            if self._cluster is None:
                self._cluster = _head()
            while len(self._cluster.worker_nodes) < 2:
                self._cluster.add_node(num_cpus=1)
        self._cluster.wait_for_nodes()
        return "--runner", "ray", "--address", str(self._cluster.address)

    def kill_raylet(self, dice: random.Random) -> None:
        """One node loses its raylet, and with it all its workers."""
        node = dice.choice(list(self._cluster.worker_nodes))
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """Everything goes at once."""
        self._cluster.shutdown()
        self._cluster = None

    def close(self) -> None:
        """End it."""
        if self._cluster is not None:
            self.kill_head()

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        """Nodes give their own environment to their workers."""
        before = dict(os.environ)
        os.environ.update({**environment(), "SWEEPS_FAULTS": str(self._world)})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _head() -> Any:
    from ray.cluster_utils import Cluster

    return Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})


def _nodes(arena: Arena) -> Nodes:
    return arena.once("nodes", lambda: Nodes(arena.root / "nodes"))


@contextlib.contextmanager
def on_nodes(arena: Arena, shape: Shape = APART) -> Iterator[World]:
    """A new sweep that runs on the standing cluster."""
    with arena.cleared(shape) as world:
        world.runner = _nodes(arena).serve(world)
        yield world


def raylet_killed(arena: Arena, dice: random.Random, seed: int) -> None:
    """A node is lost at any measurement: its trial goes on at another."""
    with on_nodes(arena) as world:
        world.plan("curve", dice.randint(1, _MEASURED), "wait", role="worker", when="after")
        process = world.begin()
        world.wait_for_fault(process)
        _nodes(arena).kill_raylet(dice)
        world.go()
        assert ended(process, MINUTES) == 0, world.said()
        survived(world, arena.reference(APART))


def head_killed(arena: Arena, dice: random.Random, seed: int) -> None:
    """The head and all nodes are lost: the command ends, and goes on with a fresh cluster."""
    with on_nodes(arena) as world:
        world.plan("curve", dice.randint(1, _MEASURED), "wait", role="worker", when="after")
        process = world.begin()
        world.wait_for_fault(process)
        _nodes(arena).kill_head()
        world.go()
        try:
            code = process.wait(MINUTES)
        finally:
            process.kill()
        assert code not in (0, KILLED), f"{code}: {world.said()}"
        world.runner = _nodes(arena).serve(world)
        assert ended(world.begin(), MINUTES) == 0, world.said()
        assert all(ending.state != "RUNNING" for ending in endings(world).values())
        survived(world, arena.reference(APART))


# -- the cluster that a command starts itself -----------------------------------------------------------------

_OF_RAY = ("raylet/raylet", "gcs/gcs_server", "ray::DashboardAgent", "")  # the last: whichever it is


def own_cluster_killed(arena: Arena, dice: random.Random, seed: int) -> None:
    """SIGKILL of one process of a sweep that runs on Ray: the command goes on, or ends and says why."""
    with arena.cleared(APART, runner=()) as world:
        world.plan("curve", dice.randint(1, _MEASURED), "wait", role="worker", when="after")
        process = world.begin()
        world.wait_for_fault(process)
        wanted = _OF_RAY[seed % len(_OF_RAY)]
        killed, pid = dice.choice(_below(process.pid, wanted))
        os.kill(pid, signal.SIGKILL)
        world.go()
        code = ended(process, MINUTES)
        if code != 0:
            # Without its GCS it is Ray that ends the driver, in its own words.
            its_own = code == KILLED or "Failed to connect to GCS" in world.said()
            assert its_own or "same command again" in world.said(), f"{killed}, {code}: {world.said()}"
            assert ended(world.begin(), MINUTES) == 0, world.said()
        survived(world, arena.reference(APART))


def _below(root: int, wanted: str) -> list[tuple[str, int]]:
    """The command lines and ids of a process and those below it, of a kind that takes its time to start."""
    deadline = time.monotonic() + MINUTES
    while True:
        found = [(_command(pid), pid) for pid in descendants(root)]
        if there := sorted((name, pid) for name, pid in found if name and wanted in name):
            return there
        assert time.monotonic() < deadline, f"no process {wanted!r} among {found}"
        time.sleep(0.1)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
