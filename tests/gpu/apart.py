"""Work in processes of their own: for the memory of one contender, and for two trials that share a device.

`python -m tests.gpu.apart peak SIZE NUMBER CONTENDER` prints the bytes that a contender takes on the CPU at most.
`python -m tests.gpu.apart share SIZE NUMBER SECONDS DEVICE` trains in half of the device's memory and prints its
tokens per second. Both print one JSON line last.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from tests.gpu.shapes import SIZES, Shape

_ROOT = Path(__file__).parents[2]


def _place(shape: Shape) -> tuple[str, str]:
    """The size that a shape is of, and its number in it."""
    for size, shapes in SIZES.items():
        if shape in shapes:
            return size, str(shapes.index(shape))
    raise AssertionError(shape.name)


def peak_in_own_process(shape: Shape, contender: str) -> float:
    """Bytes that a contender takes beyond a process that has only imported everything."""
    command = [sys.executable, "-m", "tests.gpu.apart", "peak", *_place(shape), contender]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["bytes"])


def side_by_side(shape: Shape, device: torch.device, seconds: float, count: int = 2) -> list[float]:
    """Tokens per second of so many trainings that share a device.

    Raises:
        RuntimeError: one of them failed; with the last line of what it said.
    """
    command = [sys.executable, "-m", "tests.gpu.apart", "share", *_place(shape), str(seconds), device.type]
    running = [
        subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]  # fmt: skip
    try:
        for process in running:  # each has trained its first steps
            assert process.stdout is not None
            if not any(line.strip() == "ready" for line in iter(process.stdout.readline, "")):
                _, said = process.communicate()
                raise RuntimeError((said.strip().splitlines() or ["it said nothing"])[-1])
        for process in running:
            assert process.stdin is not None
            process.stdin.write("begin\n")
            process.stdin.flush()
        answers = [process.communicate() for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process, (_, said) in zip(running, answers, strict=True):
        if process.returncode:
            raise RuntimeError((said.strip().splitlines() or ["it said nothing"])[-1])
    return [float(json.loads(out.splitlines()[-1])["tokens_per_second"]) for out, _ in answers]


def _peak(shape: Shape, contender: str) -> None:
    from tests.gpu.contenders import CONTENDERS
    from tests.gpu.memory import of_this_process, peak_of
    from tests.gpu.shapes import model_of

    device = torch.device("cpu")
    CONTENDERS[contender](SIZES["tiny"][0], device).run(1)  # all is imported, and set up
    model_of(SIZES["tiny"][0], device)
    before = of_this_process()
    with peak_of(device) as peak:
        CONTENDERS[contender](shape, device).run(2)
    print(json.dumps({"bytes": peak.bytes - before}))


def _share(shape: Shape, seconds: float, device: torch.device) -> None:
    from tests.gpu.contenders import Ours

    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(0.5)
    made = Ours(shape, device)
    made.warm()
    print("ready", flush=True)
    sys.stdin.readline()
    began, steps, spent = time.monotonic(), 0, 0.0
    while steps == 0 or time.monotonic() - began < seconds:
        spent += made.run(shape.steps)
        steps += shape.steps
    print(json.dumps({"tokens_per_second": steps * shape.batch / spent}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    work, size, number, *rest = sys.argv[1:]
    chosen = SIZES[size][int(number)]
    if work == "peak":
        _peak(chosen, rest[0])
    else:
        _share(chosen, float(rest[0]), torch.device(rest[1]))
