"""A place for one fault: a tiny sweep in a folder of its own, the command that runs it, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.faults.nursery import Child, Nursery

HOOK = Path(__file__).parent / "hook"
ROOT = HOOK.parents[2]
SECONDS = 120.0  # for a command of a sweep whose trials take milliseconds
SPEC = """
name: tiny
base: {{model: {home}/model}}
data: {{source: {home}/text.txt, heldout_fraction: 0.2, sequence_length: 16, eval_tokens: 64, test_tokens: 64}}
trial:
  injection: {{method: tli, k: 2, init: identity}}
  recipe: {{learning_rate: 1e-3, tokens: {tokens}, batch_tokens: 64, warmup: 0.0}}
search:
  injection.k: {{choice: [1, 2, 4]}}
  injection.init: {{choice: [copy, identity, random]}}
  recipe.learning_rate: {{log: [1e-4, 1e-2]}}
sampler: {{name: {sampler}}}
budget: {{trials: {trials}}}
stopping: {{rule: {rule}, grace: 0.25, keep: 0.5}}
finalists: {{top: 1, seeds: 1}}
resources: {{cpus: 1, parallel: {parallel}, workers: {workers}}}
retries: {{silence: {silence}, halve_micro_batch: {halve}}}
storage: {{study: "{study}", artifacts: runs}}
tracking: {tracking}
"""


@dataclass(frozen=True)
class Shape:
    """What tells one fault-free run from another."""

    trials: int = 4
    tokens: int = 384
    sampler: str = "tpe"
    rule: str = "asha"
    parallel: int = 1
    silence: int = 60
    workers: int = 1
    halve: str = "true"


Process = subprocess.Popen[bytes] | Child
APART = Shape(sampler="random", rule="none", parallel=2)  # no trial's settings depend on another's end


@dataclass
class World:
    """One sweep that something is done to. Commands run as a user types them, from its folder."""

    home: Path  # base and text, shared
    folder: Path
    shape: Shape
    study: str = "sqlite"
    tracking: str = "{uri: sqlite}"
    runner: tuple[str, ...] = ("--runner", "inline")
    environment: dict[str, str] = field(default_factory=dict)
    store: Path | None = None  # MLflow's database, where a server has it
    nursery: Nursery | None = None
    started: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.faults.mkdir(parents=True)
        (self.folder / "tiny.yaml").write_text(
            SPEC.format(home=self.home, study=self.study, tracking=self.tracking, **vars(self.shape))
        )

    @property
    def faults(self) -> Path:
        """Where the hook looks; every process of this world has it in its environment."""
        return self.folder / "faults"

    @property
    def url(self) -> str:
        """The study's, from anywhere."""
        return f"sqlite:///{self.folder}/runs/study.db" if self.study == "sqlite" else self.study

    @property
    def mlflow(self) -> Path:
        """MLflow's database."""
        return self.store or self.runs / "mlflow.db"

    @property
    def runs(self) -> Path:
        """The artifacts folder."""
        return self.folder / "runs"

    def start(self, *words: str, name: str = "out") -> Process:
        """Start `python -m sweeps ...`; its words go to a file of that name."""
        given = {**environment(), "SWEEPS_FAULTS": str(self.faults), **self.environment}
        log = self.folder / f"{name}.log"
        if self.nursery is not None:
            process: Process = self.nursery.start(words, self.folder, given, log)
        else:
            with log.open("ab") as out:
                process = subprocess.Popen(
                    [sys.executable, "-m", "sweeps", *words],
                    cwd=self.folder,
                    env=given,
                    stdout=out,
                    stderr=out,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
        self.started.append(process)
        return process

    def begin(self, name: str = "out") -> Process:
        """Start the sweep's command."""
        return self.start("run", "tiny.yaml", *self.runner, name=name)

    def run(self, name: str = "out") -> int:
        """The sweep's command, to its end; its exit code."""
        return ended(self.begin(name))

    def said(self, name: str = "out") -> str:
        """What a command has printed."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def plan(self, point: str, nth: int, do: str, *, role: str = "driver", **more: Any) -> None:
        """Have something done at the n-th time that a process is at a point; see the hook."""
        (self.faults / "fired").unlink(missing_ok=True)
        fault = {"role": role, "point": point, "nth": nth, "do": do, **more}
        aside = self.faults / "fault.json.new"
        aside.write_text(json.dumps(fault))
        aside.rename(self.faults / "fault.json")

    @property
    def fired(self) -> dict[str, Any] | None:
        """Where the fault happened, once it has."""
        try:
            return dict(json.loads((self.faults / "fired").read_text()))
        except (OSError, ValueError):
            return None

    def wait_for_fault(self, process: Process) -> dict[str, Any]:
        """Wait until the fault has happened in a sweep that runs."""
        deadline = time.monotonic() + SECONDS
        while (fired := self.fired) is None:
            assert process.poll() is None, f"ended with {process.returncode} before its fault: {self.said()}"
            assert time.monotonic() < deadline, "the fault's moment did not come"
            time.sleep(0.02)
        return fired

    def go(self) -> None:
        """Let a process go on that waits for the suite."""
        (self.faults / "go").touch()

    def counts(self, role: str = "driver") -> dict[str, int]:
        """How often the last process of a role that ended well was at each point."""
        return dict(json.loads((self.faults / f"counts-{role}.json").read_text()))

    def processes(self) -> list[int]:
        """Everything alive that this world's commands started."""
        mark = f"SWEEPS_FAULTS={self.faults}".encode()
        found = [process.pid for process in self.started if process.poll() is None]
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return sorted(set(found))

    def clear(self) -> None:
        """End what is left, so that one seed's failure is not the next one's."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def environment() -> dict[str, str]:
    """Of every process: one thread, the hook, nothing that leads to somebody's cluster."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HOOK}{os.pathsep}{ROOT}"}
    given.pop("RAY_ADDRESS", None)
    return given


def ended(process: Process, seconds: float = SECONDS) -> int:
    """Wait for a process; its exit code."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"nothing came of {process.args!r} within {seconds:g} s") from None


def _empty_mlflow(database: Path) -> None:
    make = "import sys; from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Store; Store(*sys.argv[1:])"
    words = [sys.executable, "-c", make, f"sqlite:///{database}", str(database.parent / "mlartifacts")]
    subprocess.run(words, check=True, capture_output=True)


class Closable(Protocol):
    """A server that stays for many seeds."""

    def close(self) -> None:
        """End it."""


Closing = TypeVar("Closing", bound=Closable)


class Arena:
    """Gives each seed of each kind its world, and knows how the same sweep ends without a fault."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.made = 0
        self._mlflow = root / "mlflow.db"  # as its migrations leave it, which take longer than a sweep
        self.shared = contextlib.ExitStack()
        self._shared: dict[str, Any] = {}
        self.nursery = Nursery(root / "nursery", environment())
        self.shared.callback(self.nursery.close)
        self.reference = lru_cache(maxsize=None)(self._reference)
        from tests.conftest import save_tiny_model
        from tli.models.loading import quieten

        quieten(threads=1)
        save_tiny_model(self.home / "model", "llama")
        text = "".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200))
        (self.home / "text.txt").write_text(text)
        _empty_mlflow(self._mlflow)

    def world(self, shape: Shape | None = None, **given: Any) -> World:
        """A new sweep."""
        self.made += 1
        made = World(
            self.home, self.root / f"w{self.made:04d}", shape or Shape(), nursery=self.nursery, **given
        )
        if self._mlflow.exists() and made.store is None:
            made.runs.mkdir()
            shutil.copy(self._mlflow, made.mlflow)
        return made

    @contextlib.contextmanager
    def cleared(self, shape: Shape | None = None, **given: Any) -> Iterator[World]:
        """A new sweep; what is left of its processes is ended afterwards."""
        world = self.world(shape, **given)
        try:
            yield world
        finally:
            world.clear()

    def _reference(self, shape: Shape) -> World:
        """The same sweep without a fault, run in one process: what every other must equal."""
        world = self.world(shape)
        assert world.run() == 0, world.said()
        return world

    def once(self, name: str, make: Callable[[], Closing]) -> Closing:
        """What several seeds share: made by the first that asks for it."""
        if name not in self._shared:
            self._shared[name] = made = make()
            self.shared.callback(made.close)
        return self._shared[name]

    def close(self) -> None:
        """End what several seeds share."""
        self.shared.close()
