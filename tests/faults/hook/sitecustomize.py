"""Faults inside the processes of a sweep, put there by Python's own start-up hook; nothing of the product knows.

The suite puts this folder on PYTHONPATH and names a folder in SWEEPS_FAULTS. `fault.json` in it says where and
what, and is read at the moment itself, so that a cluster that stays serves many faults:

    {"role": "driver", "point": "ledger", "nth": 7, "when": "before", "do": "kill"}

Points are counted in each process from its start: `ledger`, a transaction of the driver that wrote; `state`, a
training state on its way to disk (before, during, after); `curve`, a measurement put on disk; `step`, an
optimizer step. A fault happens once: whoever makes the file `fired` does it. What was counted stands in
`counts.json` when a process ends well.
"""

from __future__ import annotations

import atexit
import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACE = Path(os.environ.get("SWEEPS_FAULTS", os.devnull))
ROLES = {"sweeps": "driver", "tests.faults.nursery": "driver", "sweeps.tracking": "delivery"}

counts: Counter[str] = Counter()
latest: dict[str, str] = {}  # the last file of each point
here = threading.local()  # of a thread: what it wrote, what it renamed
patches: dict[str, Callable[[Any], None]] = {}


def role() -> str:
    """What this process is to a sweep."""
    given = sys.orig_argv
    if any(word.endswith("default_worker.py") for word in given):
        return "worker"
    module = given[given.index("-m") + 1] if "-m" in given[:-1] else ""
    return ROLES.get(module, "other")


def rank() -> int:
    """Of this process among those that train a model together; 0 where it is alone."""
    distributed = sys.modules.get("torch.distributed")
    return distributed.get_rank() if distributed is not None and distributed.is_initialized() else 0


def at(point: str, when: str = "before", target: str = "") -> None:
    """This process is at a point: do what the suite wants done there."""
    counts[f"{point} {when}"] += 1
    if target:
        latest[point] = target
    try:
        fault = json.loads((PLACE / "fault.json").read_text())
    except (OSError, ValueError):
        return
    wanted = fault["role"], fault["point"], fault.get("when", "before"), fault["nth"]
    if wanted != (ROLE, point, when, counts[f"{point} {when}"]) or fault.get("rank", rank()) != rank():
        return
    try:
        with (PLACE / "fired").open("x") as out:
            out.write(json.dumps({"pid": os.getpid(), "latest": latest}))
    except FileExistsError:
        return
    ACTIONS[fault["do"]](fault)


def kill(_fault: dict) -> None:
    """End as a power cut ends: nothing is flushed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_soon(fault: dict) -> None:
    """End a moment later, wherever that is."""
    timer = threading.Timer(fault["seconds"], kill, [fault])
    timer.daemon = True
    timer.start()


def cut_and_kill(fault: dict) -> None:
    """End with half of the file on disk."""
    with Path(latest["state"]).open("r+b") as out:
        out.truncate(int(out.seek(0, os.SEEK_END) * fault["share"]))
    kill(fault)


def terminate(_fault: dict) -> None:
    """Be told to go."""
    os.kill(os.getpid(), signal.SIGTERM)


def out_of_memory(_fault: dict) -> None:
    """As torch says that the device is full."""
    raise sys.modules["torch"].OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def stop(_fault: dict) -> None:
    """Stand still until somebody sends SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def hang(_fault: dict) -> None:
    """A lock that is never freed."""
    threading.Event().wait()


def wait(_fault: dict) -> None:
    """Let the suite do something outside, just now."""
    while not (PLACE / "go").exists():
        time.sleep(0.02)


def spoil(fault: dict) -> None:
    """Make the gradient no number."""
    for group in fault["optimizer"].param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.fill_(float("nan"))


def move_clock(fault: dict) -> None:
    """Have this process believe in another time, and perhaps not for long."""
    real = time.time
    time.time = lambda: real() + fault["seconds"]
    if "kill" in fault:
        kill_soon({"seconds": fault["kill"]})


ACTIONS: dict[str, Callable[[dict], None]] = {
    "kill": kill,
    "kill soon": kill_soon,
    "cut and kill": cut_and_kill,
    "stop": stop,
    "terminate": terminate,
    "out of memory": out_of_memory,
    "hang": hang,
    "wait": wait,
    "nan": spoil,
    "clock": move_clock,
}


# -- where points are ---------------------------------------------------------------------------------


def watch(event: str, details: tuple) -> None:
    """Files as they are opened and renamed, whoever does it."""
    if event not in ("open", "os.rename") or getattr(here, "busy", False):
        return
    here.busy = True
    try:
        place, flags = str(details[0]), details[2] if event == "open" else 0
        if event == "os.rename":
            if ".step-" in place:
                at("state", "during", place)
                here.renamed = str(details[1])
        elif getattr(here, "renamed", ""):
            target, here.renamed = here.renamed, ""
            at("state", "after", target)
        elif ".step-" in place and flags & os.O_CREAT:
            at("state", "before", place)
        elif place.endswith("curve.jsonl") and flags & os.O_APPEND:
            at("curve", "before", place)
    finally:
        here.busy = False


def for_storage(module: Any) -> None:
    """Count transactions that wrote; the renewals of a lease come by the clock and are left out."""
    dialect = module.DefaultDialect
    execute, commit, rollback = dialect.do_execute, dialect.do_commit, dialect.do_rollback

    @functools.wraps(execute)
    def do_execute(self: Any, cursor: Any, statement: str, *more: Any, **named: Any) -> Any:
        if statement.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE"):
            here.wrote = "sweeps_lease" not in statement or getattr(here, "wrote", False)
        return execute(self, cursor, statement, *more, **named)

    @functools.wraps(commit)
    def do_commit(self: Any, connection: Any) -> None:
        counted, here.wrote = getattr(here, "wrote", False), False
        if counted:
            at("ledger", "before")
        commit(self, connection)
        if counted:
            at("ledger", "after")

    @functools.wraps(rollback)
    def do_rollback(self: Any, connection: Any) -> None:
        here.wrote = False
        rollback(self, connection)

    dialect.do_execute, dialect.do_commit, dialect.do_rollback = do_execute, do_commit, do_rollback


def for_steps(module: Any) -> None:
    """Count optimizer steps."""
    hook = module.register_optimizer_step_pre_hook

    def step(optimizer: Any, *_: Any) -> None:
        ACTIONS["nan"] = lambda fault: spoil({**fault, "optimizer": optimizer})
        at("step", "before")

    hook(step)


def for_saving(module: Any) -> None:
    """Training states at every measurement, for trials that last milliseconds."""
    assert hasattr(module, "CHECKPOINT_SECONDS")
    module.CHECKPOINT_SECONDS = 0.0


def for_trials(module: Any) -> None:
    """Count measurements that are put on disk."""
    append = module.append_curve

    def appended(*given: Any) -> None:
        append(*given)
        at("curve", "after")

    module.append_curve = appended


def for_states(module: Any) -> None:
    """The next state waits for the one before: how many there are must not depend on how fast a disk is."""

    def busy(saver: Any) -> bool:
        saver.wait()
        return False

    assert isinstance(module.Saver.busy, property)
    module.Saver.busy = property(busy)


class Patching(importlib.abc.MetaPathFinder):
    """Changes modules right after they were imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Leave finding to the others, and come in at the end of the import."""
        if name not in patches:
            return None
        patch = patches.pop(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def begin(place: Path) -> None:
    """A forked process begins its life, in a world of its own."""
    global PLACE  # noqa: PLW0603 - a process is in one world
    PLACE = place
    counts.clear()
    latest.clear()


def keep_counts() -> None:
    """For whoever wants to know how many points there are."""
    (PLACE / f"counts-{ROLE}.json").write_text(json.dumps(counts))


ROLE = role()
if PLACE.is_dir() and ROLE in ("driver", "worker"):
    patches |= {
        "torch.optim.optimizer": for_steps,
        "sweeps.worker.saving": for_saving,
        "sweeps.worker.trial": for_trials,
        "tli.training.saver": for_states,
    }
    if ROLE == "driver":
        patches["sqlalchemy.engine.default"] = for_storage
    sys.meta_path.insert(0, Patching())
    sys.addaudithook(watch)
    atexit.register(keep_counts)
