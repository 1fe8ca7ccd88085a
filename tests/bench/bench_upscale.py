"""`tli upscale` against `cp` and mergekit, timed: `python -m tests.bench.bench_upscale FOLDER [--shape 1b]`.

Makes a checkpoint of the shape of Llama-3.2-1B (2.5 GB in one file) or Llama-3.1-8B (16 GB in four) under FOLDER
from random numbers, then runs in turn, `--repeats` times:

  cp            `cp -r` of what `tli upscale` writes with the first of `--weights`; and the same with `sync` of every
                file behind it
  tli WEIGHTS   `tli upscale SRC DST --k 4 --init identity`, or with other first weights (`--weights mean noise`), or
                with experts, which ends with everything on the disk
  tli, unsynced the same with fsync, and what makes it short, taken out: like with like against a bare `cp`
  mergekit      the same layers by passthrough and filters of scale 0, with `--mergekit PYTHON`

and prints a table for LOG.md: medians, ratios, peak memory (VmHWM of the process). What each job reads is read once
before it (`--cache warm`), or dropped from the page cache (`--cache cold`: a model that does not fit into memory
twice is neither warm nor cold otherwise). Needs free space for the model and two results.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tli.checkpoint.writer import Computed, Output, write_shards
from tli.models.base import _BUILTINS

ROOT = Path(__file__).parents[2]
POOL = 64 * 2**20  # bytes of random numbers that all tensors are cut from
SETTLE = 2.0  # seconds between a run and the next, for the disk to finish what it was told

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden": 64, "inner": 128, "layers": 4, "heads": 4, "kv": 2, "vocabulary": 512, "tied": True},
    "1b": {"hidden": 2048, "inner": 8192, "layers": 16, "heads": 32, "kv": 8, "vocabulary": 128256, "tied": True},
    "8b": {"hidden": 4096, "inner": 14336, "layers": 32, "heads": 32, "kv": 8, "vocabulary": 128256, "tied": False},
}  # fmt: skip
WEIGHTS = {
    **{init: f"--k 4 --init {init}" for init in ("identity", "copy", "damped", "mean", "slerp", "random")},
    **{init: f"--k 4 --init {init}" for init in ("aligned", "predicted")},
    "noise": "--k 4 --init copy --noise 0.1",
    "experts": "--method moe --experts 8",
}
SHARD = {"tiny": None, "1b": None, "8b": 5 * 10**9}
NO_SYNC = (
    "import os, sys\n"
    "os.fsync = lambda descriptor: None\n"
    "os.posix_fadvise = lambda *told: None\n"
    "from tli.cli.commands import main\n"
    "sys.exit(main(sys.argv[1:]))"
)


def main() -> int:
    """Make the checkpoint, run the rounds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where to write; several times the model is needed")
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cache", choices=("warm", "cold"), default="warm")
    parser.add_argument(
        "--weights", nargs="+", choices=WEIGHTS, default=["identity"], help="of the new layers"
    )
    parser.add_argument("--mergekit", type=Path, help="python of an environment with mergekit")
    options = parser.parse_args()
    source = options.folder / f"llama-{options.shape}"
    if not source.exists():
        make(source, options.shape)
    bench = Bench(source, options.folder, options.cache, options.mergekit, options.weights)
    shutil.rmtree(bench.written, ignore_errors=True)
    bench.upscale(bench.written, options.weights[0])  # what `cp` copies
    for number in range(options.repeats):
        for job in bench.jobs():
            job()
        print(f"round {number + 1}: {bench.last()}", file=sys.stderr, flush=True)
    shutil.rmtree(bench.written)
    shutil.rmtree(bench.folder / "result", ignore_errors=True)
    print(bench.table())
    return 0


def make(folder: Path, shape: str) -> None:
    """A Llama of random finite bfloat16 numbers, with the built-in model's tokenizer."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sizes = SHAPES[shape]
    pool = bytearray(random.Random(0).randbytes(POOL))
    pool[1::2] = pool[1::2].translate(bytes(value & 0xBF for value in range(256)))  # exponents below infinity

    def cut(number: int, nbytes: int) -> Callable[[], bytes]:
        start = 2 * (number * 7919 % (POOL // 2))
        return lambda: bytes((pool[start:] + pool * (nbytes // POOL + 1))[:nbytes])

    outputs = []
    for number, (name, dims) in enumerate(tensors(sizes)):
        output = Output(name, "BF16", dims, Computed(bytes))
        outputs.append(Output(name, "BF16", dims, Computed(cut(number, output.nbytes))))
    write_shards(partial, outputs, limit=SHARD[shape], metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["inner"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv"],
        "vocab_size": sizes["vocabulary"],
        "tie_word_embeddings": sizes["tied"],
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    }
    (partial / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    for file in (_BUILTINS / "tiny-llama").glob("*token*.json"):
        shutil.copy(file, partial)
    partial.rename(folder)


def tensors(sizes: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Llama's tensors."""
    hidden, inner = sizes["hidden"], sizes["inner"]
    narrow = hidden // sizes["heads"] * sizes["kv"]
    yield "model.embed_tokens.weight", (sizes["vocabulary"], hidden)
    for number in range(sizes["layers"]):
        layer = f"model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.self_attn.q_proj.weight", (hidden, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (narrow, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (narrow, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not sizes["tied"]:
        yield "lm_head.weight", (sizes["vocabulary"], hidden)


@dataclass
class Bench:
    """The jobs on one checkpoint and what they took."""

    source: Path
    folder: Path
    cache: str
    mergekit: Path | None
    weights: list[str]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)  # the most of all rounds, in bytes

    @property
    def written(self) -> Path:
        """The result that `cp` copies."""
        return self.folder / "written"

    def jobs(self) -> list[Callable[[], None]]:
        """One round."""
        jobs: list[Callable[[], None]] = [self.cp, *(partial(self.tli, weights) for weights in self.weights)]
        if "identity" in self.weights:
            jobs.append(self.tli_unsynced)
        return [*jobs, self.merge] if self.mergekit else jobs

    def upscale(self, target: Path, weights: str, *, synced: bool = True) -> tuple[float, int]:
        """Runs `tli upscale`; returns seconds and peak bytes."""
        program = [sys.executable, *(["-m", "tli"] if synced else ["-c", NO_SYNC])]
        return timed([*program, "upscale", self.source, target, *WEIGHTS[weights].split()])

    def cp(self) -> None:
        """The copy, and the copy on the disk."""
        target = self._ready(self.written)
        seconds, peak = timed(["cp", "-r", self.written, target])
        more, _ = timed(["sync", *sorted(target.iterdir()), target])
        self._note("cp", seconds, peak)
        self._note("cp and sync", seconds + more, peak)

    def tli(self, weights: str) -> None:
        """The product as it is."""
        self._note(f"tli {weights}", *self.upscale(self._ready(self.source), weights))

    def tli_unsynced(self) -> None:
        """Without waiting for the disk."""
        self._note("tli, unsynced", *self.upscale(self._ready(self.source), "identity", synced=False))

    def merge(self) -> None:
        """mergekit's way to the same weights."""
        assert self.mergekit is not None
        target = self._ready(self.source)
        recipe = self.folder / "recipe.json"  # JSON is YAML
        recipe.write_text(json.dumps(passthrough(self.source)), encoding="utf-8")
        self._note("mergekit", *timed([self.mergekit.parent / "mergekit-yaml", recipe, target]))

    def _ready(self, read: Path) -> Path:
        """The place for a result, empty, with the disk at rest and the page cache as asked for."""
        target = self.folder / "result"
        shutil.rmtree(target, ignore_errors=True)
        os.sync()
        time.sleep(SETTLE)
        for folder in (self.source, self.written):
            for file in folder.iterdir():
                prepare(file, warm=self.cache == "warm" and folder == read)
        return target

    def _note(self, job: str, seconds: float, peak: int) -> None:
        self.seconds.setdefault(job, []).append(seconds)
        self.memory[job] = max(peak, self.memory.get(job, 0))

    def last(self) -> str:
        """The latest round."""
        return ", ".join(f"{job} {seconds[-1]:.2f} s" for job, seconds in self.seconds.items())

    def table(self) -> str:
        """Medians and ratios, as Markdown."""
        medians = {job: statistics.median(seconds) for job, seconds in self.seconds.items()}
        rounds = len(self.seconds["cp"])
        lines = [
            f"{self.source.name}, {size(self.source) / 1e9:.2f} GB, cache {self.cache}, {rounds} rounds",
            "| job | median, s | all, s | to cp | in each round | to cp and sync | peak, MB |",
            "|---|---|---|---|---|---|---|",
        ]
        for job, median in medians.items():
            every = " ".join(f"{seconds:.2f}" for seconds in self.seconds[job])
            pairs = zip(self.seconds[job], self.seconds["cp"], strict=True)
            each = " ".join(f"{seconds / copied:.2f}" for seconds, copied in pairs)
            ratios = (f"{median / medians[other]:.2f}" for other in ("cp", "cp and sync"))
            row = (
                job,
                f"{median:.2f}",
                every,
                next(ratios),
                each,
                next(ratios),
                f"{self.memory[job] / 1e6:.0f}",
            )
            lines.append(f"| {' | '.join(row)} |")
        return "\n".join(lines)


def passthrough(source: Path) -> dict[str, Any]:
    """mergekit's recipe of `--k 4 --init identity`."""
    depth = json.loads((source / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    zero = [{"filter": name, "value": 0.0} for name in ("o_proj", "down_proj")]
    slices = []
    for start in range(0, depth, 4):
        end = min(start + 4, depth)
        slices.append({"sources": [{"model": str(source), "layer_range": [start, end]}]})
        new = {"model": str(source), "layer_range": [end - 1, end]}
        slices.append({"sources": [{**new, "parameters": {"scale": [*zero, {"value": 1.0}]}}]})
    return {"slices": slices, "merge_method": "passthrough", "dtype": "bfloat16"}


def timed(command: list[Any]) -> tuple[float, int]:
    """Wall seconds of a program and its VmHWM in bytes, asked for every few milliseconds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([str(part) for part in command], env=environment, stdout=said, stderr=said)
        peak = 0
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(0.005)
        seconds = time.perf_counter() - started
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command[0]} failed:\n{said.read().decode()[-2000:]}")
    return seconds, peak


def high_water(pid: int) -> int:
    """The most memory that a process had resident, in bytes; 0 when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def prepare(file: Path, *, warm: bool) -> None:
    """Reads a file into the page cache, or drops it from there."""
    with file.open("rb") as opened:
        if warm:
            while opened.read(2**22):
                pass
        else:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def size(folder: Path) -> int:
    """Bytes of its weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


if __name__ == "__main__":
    sys.exit(main())
