"""A real SIGKILL at every boundary of a real upscaling: either nothing stands at the destination, or all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Tiny = Callable[[str], Path]
Save = Callable[..., Path]

# Runs the upscaling in a fork again and again, killed at its n-th step on the file system: before the step, or right
# after it. After each, the destination is looked at, the same is run again to its end, and the place is looked at.
PROGRAM = '''
import builtins, io, json, os, signal, sys, threading
from pathlib import Path
from tli.models.base import find
from tli.planning.plan import plan
from tli.growth.on_disk import upscale_folder

source, place, after = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "after"
out = place / "out"
STEPS = ("rename", "mkdir", "rmdir", "unlink", "ftruncate", "pwrite", "fsync", "copy_file_range", "sendfile", "chmod")

def grown():
    upscale_folder(find(source), out, plan(4, 2, init=sys.argv[4]))

def killed_at(number):
    """Has this process killed at its `number`-th step."""
    count, lock = [0], threading.Lock()
    def step(call):
        def stepped(*given, **named):
            with lock:
                count[0] += 1
                mine = count[0]
            if mine == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*given, **named)
            finally:
                if mine == number and after:
                    os.kill(os.getpid(), signal.SIGKILL)
        return stepped
    for name in STEPS:
        setattr(os, name, step(getattr(os, name)))
    opened = io.open
    def open_(file, mode="r", *given, **named):
        return (step(opened) if set(mode) & set("wax+") else opened)(file, mode, *given, **named)
    io.open = builtins.open = open_

def forked(number):
    """How a run in a process of its own ended; 0 is no kill."""
    pid = os.fork()
    if pid == 0:
        if number:
            killed_at(number)
        grown()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}

def removed(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

grown()
whole = contents(out)
removed(out)
nothing = complete = number = 0
while True:
    number += 1
    ended = forked(number)
    if out.exists():
        assert contents(out) == whole, f"half of it after a kill at step {number}"
        complete += 1
        removed(out)
    else:
        nothing += 1
    if ended == 0:
        break
    assert ended == -signal.SIGKILL, ended
    assert forked(0) == 0, f"the same command does not go on after a kill at step {number}"
    assert contents(out) == whole
    assert [path.name for path in place.iterdir()] == ["out"], f"left after a kill at step {number}"
    removed(out)
print(json.dumps({"steps": number - 1, "nothing": nothing, "complete": complete}))
'''


@pytest.mark.parametrize(
    ("init", "when"),
    [
        ("identity", "before"),
        pytest.param("identity", "after", marks=pytest.mark.slow),
        pytest.param("mean", "before", marks=pytest.mark.slow),
        pytest.param("mean", "after", marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_step_leaves_nothing_or_all_of_it(
    save_model: Save, tmp_path: Path, init: str, when: str
) -> None:
    base = save_model(tmp_path / "base", shard="60KB")
    assert len(list(base.glob("*.safetensors"))) > 2
    place = tmp_path / "place"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(base), str(place), when, init],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["steps"] > 30
    assert told["nothing"] > 25
    assert told["complete"] >= 1
