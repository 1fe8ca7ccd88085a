"""Records tables of real curves for `bench_search`: a whole grid, every trial to its end, nothing stopped.

`python -m tests.bench.record base --text FOLDER --out DIR` trains the second base, a GPT-NeoX of 1.2 million
parameters, on the text files of a folder (WikiText-2's `valid.txt` and `test.txt`).
`python -m tests.bench.record tokens GRID --out DIR` makes the token files of a grid.
`python -m tests.bench.record GRID --out DIR` runs what is missing of a grid; the same command again goes on.
`python -m tests.bench.record pack GRID --out DIR` writes `tests/bench/recorded/GRID.json.xz`.

Cells run in processes of one thread each, on a GPU where `--device cuda` says so. Trials are those of a sweep:
grown by `tli.growth.in_memory`, trained by `tli.training.loop`, with the batches of their seed.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
BLOCKS = 16  # of the test text
_KS = (1, 2, 4, 8)
_INITS: tuple[tuple[str, float | None], ...] = (
    ("copy", None), ("identity", None), ("damped", 0.1), ("damped", 0.5), ("damped", 0.9), ("mean", None),
    ("random", None), ("predicted", None),
)  # fmt: skip
_RATES = (1e-4, 3e-4, 6e-4, 1e-3, 1.7e-3, 3e-3, 1e-2)


@dataclass(frozen=True)
class Grid:
    """What is recorded under one name.

    Attributes:
        steps: of a trial, of 2,048 tokens each.
        every: steps between two measurements.
        inits: first weights, with their scales.
        rates: learning rates.
        seeds: of every cell.
        base: the name of the built-in one; None for the second one, which `base` has made.
    """

    steps: int
    every: int
    inits: tuple[tuple[str, float | None], ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...] = (0, 1)
    base: str | None = "builtin:tiny-llama"

    def cells(self) -> list[dict[str, Any]]:
        """What to run: seed by seed, the middle rates first, so that half of a table is of use, too.

        At the end of a seed come controls with the tokens that each K's FLOPs would pay for.
        """
        found = []
        middle_first = sorted(self.rates, key=lambda rate: abs(math.log(rate / 1e-3)))
        for seed in self.seeds:
            for rate in middle_first:
                found.append(_cell(rate, seed))
                found += [
                    _cell(rate, seed, k=k, init=init, scale=scale) for init, scale in self.inits for k in _KS
                ]
            found += [_cell(rate, seed, matched=k) for k in _KS for rate in middle_first[:3]]
        return found


_FEW = (("copy", None), ("identity", None), ("damped", 0.5))
GRIDS = {
    "builtin": Grid(24, 2, _INITS, _RATES),
    "wikitext": Grid(32, 2, _INITS, _RATES, base=None),
    "builtin-long": Grid(96, 8, _FEW, _RATES[1:-1]),
    "wikitext-long": Grid(128, 8, _FEW, _RATES[1:-1], base=None),
}
_LENGTH, _BATCH, _HELDOUT, _TEST = 128, 2048, 8192, 16_384


def _cell(
    rate: float, seed: int, *, k: int | None = None, init: str | None = None, scale: float | None = None,
    matched: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    method = "none" if k is None else "tli"
    names = {"method": method, "k": k, "init": init, "scale": scale, "matched": matched}
    return {**names, "learning_rate": rate, "seed": seed}


def key(cell: dict[str, Any]) -> str:
    """What tells a cell of a grid from the others."""
    return json.dumps({name: cell[name] for name in _cell(0.0, 0)}, sort_keys=True)


class Recorder:
    """What a process keeps between cells: base, tokens, windows."""

    def __init__(self, grid: Grid, folder: Path, device: str) -> None:
        """Load them, with one thread."""
        import torch

        from tli.data.batches import Tokens
        from tli.models.base import find
        from tli.models.loading import load_model

        torch.set_num_threads(1)
        self.grid, self.base = grid, find(grid.base or str(folder / "base"))
        self.model = load_model(self.base, device)
        self.tokens = Tokens(_token_folder(grid, folder))
        self.heldout = self.tokens.heldout_windows(sequence_length=_LENGTH, eval_tokens=_HELDOUT)
        self.test = self.tokens.test_windows(sequence_length=_LENGTH, test_tokens=_TEST)
        self._initial: dict[str, float] = {}  # losses before training, by what was grown under which seed

    def run(self, cell: dict[str, Any]) -> dict[str, Any]:
        """A cell with its curve: held-out losses from step 0 on, test losses by block after the last step."""
        import numpy as np

        from tli.errors import DivergedError
        from tli.growth.cost import cost
        from tli.growth.in_memory import grow, injected_parameters
        from tli.planning.injection import Injection
        from tli.planning.plan import plan_for
        from tli.training.evaluate import evaluate
        from tli.training.loop import Training
        from tli.training.recipe import Recipe

        started, depth = time.time(), self.base.facts.depth
        injection = Injection(method="tli", k=cell["k"], init=cell["init"], scale=cell["scale"])
        plan = plan_for(injection if cell["k"] else Injection(method="none"), depth)
        flops = self._flops(cost, plan)
        steps = self.grid.steps
        if cell["matched"]:
            deeper = self._flops(cost, plan_for(Injection(method="tli", k=cell["matched"]), depth))
            steps = round(steps * deeper / flops)
        recipe = Recipe(learning_rate=cell["learning_rate"], tokens=steps * _BATCH)
        model = grow(self.model, plan, seed=cell["seed"])
        batches = self.tokens.batches(sequence_length=_LENGTH, seed=cell["seed"])
        injected = injected_parameters(model, plan)
        grown = key({**cell, "learning_rate": None})
        training = Training(
            model, recipe, batches, self.heldout, injected=injected, seed=cell["seed"],
            initial_loss=self._initial.get(grown),
        )  # fmt: skip
        curve: list[float | None] = []
        test: list[float] = []
        try:
            measured = [*range(0, steps, steps if cell["matched"] else self.grid.every), steps]
            for progress in training.run(measured):
                curve.append(round(progress.eval_loss, 6))
                self._initial.setdefault(grown, progress.eval_loss)
            test = [round(evaluate(model, part).loss, 6) for part in np.array_split(self.test, BLOCKS)]
        except DivergedError:
            curve.append(None)
        found = {"validation": curve, "test": test, "flops_per_token": flops, "steps": steps}
        return {**cell, **found, "seconds": round(time.time() - started, 2)}

    def _flops(self, cost: Any, plan: Any) -> float:
        return float(cost(self.base, plan, sequence_length=_LENGTH).flops_per_token)


def record(name: str, folder: Path, *, device: str, workers: int, only: int | None = None) -> Path:
    """Run what is missing of a grid, and append it to `folder/NAME.jsonl` as it ends."""
    grid, path = GRIDS[name], folder / f"{name}.jsonl"
    known = {key(cell) for cell in [*recorded_cells(path), *packed_cells(name)]}
    missing = [cell for cell in grid.cells() if key(cell) not in known][:only]
    print(f"{name}: {len(known)} cells are there, {len(missing)} to run", flush=True)
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, context, initializer=_start, initargs=(grid, folder, device)) as pool,
        path.open("a") as out,
    ):
        runs = [pool.submit(_run, cell) for cell in missing]
        for done, run in enumerate(as_completed(runs), start=1):
            out.write("\n" + json.dumps(run.result()))
            out.flush()
            if done % 50 == 0 or done == len(runs):
                print(f"{done} of {len(runs)} in {time.monotonic() - started:.0f} s", flush=True)
    return path


def recorded_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a file, but for a line that was cut short by a kill."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def packed_cells(name: str) -> list[dict[str, Any]]:
    """The cells of a table that was packed before, whole or not."""
    path = RECORDED / f"{name}.json.xz"
    return json.loads(lzma.decompress(path.read_bytes()))["cells"] if path.exists() else []


def pack(name: str, folder: Path, hardware: str) -> Path:
    """Write what there is of a grid, compressed."""
    grid, found = GRIDS[name], [*packed_cells(name), *recorded_cells(folder / f"{name}.jsonl")]
    known = {key(cell): cell for cell in found}
    cells = [known[key(cell)] for cell in grid.cells() if key(cell) in known]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    control = next(cell for cell in cells if cell["method"] == "none")
    table = {
        "name": name,
        "command": f"python -m tests.bench.record {name} --out DIR",
        "commit": commit.stdout.strip(),
        "hardware": hardware,
        "base": grid.base or "GPT-NeoX of `python -m tests.bench.record base`",
        "text": "builtin:stdlib" if grid.base else "WikiText-2, valid and test",
        "tokens": grid.steps * _BATCH,
        "batch_tokens": _BATCH,
        "steps": grid.steps,
        "whole": len(cells) == len(grid.cells()),
        "measured": [*range(0, grid.steps, grid.every), grid.steps],
        "control_flops_per_token": control["flops_per_token"],
        "cells": cells,
    }
    RECORDED.mkdir(exist_ok=True)
    target = RECORDED / f"{name}.json.xz"
    target.write_bytes(lzma.compress(json.dumps(table, separators=(",", ":")).encode(), preset=9))
    return target


def make_tokens(name: str, folder: Path) -> Path:
    """The token files of a grid, in a folder of their own."""
    from tli.data.batches import open_tokens
    from tli.data.settings import DataSettings
    from tli.models.base import find

    grid = GRIDS[name]
    source = "builtin:stdlib" if grid.base else str(folder / "articles.jsonl")
    settings = DataSettings(source=source, heldout_fraction=0.15)
    made = open_tokens(settings, find(grid.base or str(folder / "base")), folder / "cache")
    target = _token_folder(grid, folder)
    if not target.exists():
        made.folder.rename(target)
    return target


def _token_folder(grid: Grid, folder: Path) -> Path:
    return folder / ("tokens-builtin" if grid.base else "tokens-wikitext")


_of_this_process: list[Recorder] = []


def _start(grid: Grid, folder: Path, device: str) -> None:
    _of_this_process.append(Recorder(grid, folder, device))


def _run(cell: dict[str, Any]) -> dict[str, Any]:
    return _of_this_process[0].run(cell)


def articles(text: str) -> Iterator[str]:
    """The articles of a WikiText file: each begins with a line ` = Title = `."""
    held: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith(" = ") and not line.startswith(" = =") and held:
            yield "".join(held)
            held = []
        held.append(line)
    yield "".join(held)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the first argument names."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.record", description=__doc__)
    parser.add_argument(
        "what", nargs="+", help=f"base, tokens GRID, pack GRID, or a GRID: {', '.join(GRIDS)}"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of what is made")
    parser.add_argument("--text", type=Path, help="of base: folder with .txt files")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="so many cells")
    parser.add_argument("--steps", type=int, default=1500, help="of base: optimizer steps of 2,048 tokens")
    parser.add_argument("--hardware", default="", help="of pack: what ran it")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.what[0] == "base":
        from tests.bench.second_base import train_base

        print(train_base(given.out, given.text, steps=given.steps, device=given.device))
    elif given.what[0] == "tokens":
        print(make_tokens(given.what[1], given.out))
    elif given.what[0] == "pack":
        print(pack(given.what[1], given.out, given.hardware))
    else:
        for name in given.what:
            record(name, given.out, device=given.device, workers=given.workers, only=given.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
