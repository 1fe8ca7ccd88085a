"""The loss of a large vocabulary, with and without all logits at once: time and peak memory of forward and backward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch

from tests.gpu.contenders import settle
from tests.gpu.memory import peak_of
from tests.gpu.shapes import Shape, batches_of, gib, model_of
from tests.gpu.table import Row, judged, measured
from tli.training import losses

_TIMES = {"cuda": 3}  # and once on a CPU
T = TypeVar("T")


def rows(shape: Shape, device: torch.device) -> Iterator[Row]:
    """Of one layer of a shape, whose head is then most of it, and of one pass."""
    alone = replace(shape, config={**shape.config, "num_hidden_layers": 1})
    model = model_of(alone, device)
    ids = torch.from_numpy(batches_of(alone)[0][: shape.micro // shape.sequence]).to(device)
    precision = str(shape.recipe.get("precision", "fp32"))
    vocabulary = shape.config["vocab_size"]

    def plain() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten()).backward()

    def pieces(part: int) -> Callable[[], object]:
        return lambda: with_limits(part * vocabulary, lambda: losses.add_gradients(model, ids, precision))

    def recomputed() -> None:
        with_limits(
            ids.numel() // 4 * vocabulary,
            lambda: losses.token_losses(model, ids, precision).mean().backward(),
        )

    ways: dict[str, Callable[[], object]] = {"all logits at once": plain}
    ways |= {f"pieces of {shape.micro // n:,} tokens": pieces(shape.micro // n) for n in (8, 4, 2, 1)}
    ways["calculated again by pieces, for shards"] = recomputed
    found: dict[str, tuple[float, float]] = {}
    for name, way in ways.items():
        found[name] = _timed(way, model, device)
        seconds, peak = found[name]
        yield measured(name, f"{1000 * seconds:.1f} ms, peak {gib(peak)} GiB", seconds=seconds, peak=peak)
    first, best = found["all logits at once"], found[f"pieces of {shape.micro // 2:,} tokens"]
    if device.type == "cuda":
        yield judged(
            "pieces against all at once", f"time {best[0] / first[0]:.2f}, memory {best[1] / first[1]:.2f}",
            holds=best[0] <= 1.1 * first[0] and best[1] < first[1],
        )  # fmt: skip


def _timed(way: Callable[[], object], model: torch.nn.Module, device: torch.device) -> tuple[float, float]:
    """Seconds of one forward and backward pass, and the peak in bytes on a GPU."""
    times = _TIMES.get(device.type, 1)
    way()
    model.zero_grad(set_to_none=True)
    with peak_of(device) as peak:
        settle(device)
        started = time.perf_counter()
        for _ in range(times):
            way()
            model.zero_grad(set_to_none=True)
        settle(device)
        seconds = (time.perf_counter() - started) / times
    return seconds, peak.bytes


def with_limits(logits: int, work: Callable[[], T]) -> T:
    """Work in pieces of so many logits."""
    small, most = losses.SMALL, losses.LOGITS_AT_ONCE
    losses.SMALL, losses.LOGITS_AT_ONCE = 0, dict.fromkeys(most, logits)
    try:
        return work()
    finally:
        losses.SMALL, losses.LOGITS_AT_ONCE = small, most
