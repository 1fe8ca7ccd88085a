"""Tokens per second, share of the device's peak and memory of whole training steps, against the other ways."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.gpu.apart import peak_in_own_process
from tests.gpu.contenders import BARE, CONTENDERS, OURS, TRAINER, names, without_trainer
from tests.gpu.memory import peak_of, release
from tests.gpu.shapes import SIZES, Shape, attention_flops, cost_of, described, gib, memory_of
from tests.gpu.table import Row, judged, measured, skipped
from tli.errors import InputError
from tli.planning.injection import Injection
from tli.planning.plan import plan_for
from tli.training.device import out_of_memory

PEAK_FLOPS = 989e12  # of an H100 or H200 (SXM), bf16, dense
_ON_GPU = {shape.name for shape in SIZES["full"]}
_AGAINST_BARE, _AGAINST_TRAINER, _MFU = 0.97, 1.1, 0.45
Found = dict[str, tuple[float, float]]  # by contender: tokens per second, and peak in bytes


def rows(
    shape: Shape, device: torch.device, *, compiled: bool = False, enough: Callable[[], bool]
) -> Iterator[Row]:
    """Our loop first, then the others, then how they compare.

    Args:
        shape: what is trained.
        device: where.
        compiled: whether the layers are.
        enough: whether there is time for one more.
    """
    if without_trainer() is not None:
        yield skipped(f"{shape.name}: {TRAINER}", str(without_trainer()))
    over = {"compile": True} if compiled else {}
    found: Found = {}
    suffix = ", layers compiled" if compiled else ""
    for name, value in (_one_by_one if device.type == "cuda" else _in_turns)(shape, device, over, enough):
        what = f"{shape.name}: {name}{suffix}"
        if isinstance(value, str):
            yield skipped(what, value)
            continue
        found[name] = value
        yield measured(what, _said(shape, value), tokens_per_second=value[0], peak=value[1])
    yield from _compared(shape, device, found, suffix)


def _one_by_one(
    shape: Shape, device: torch.device, over: dict[str, Any], enough: Callable[[], bool]
) -> Iterator[tuple[str, tuple[float, float] | str]]:
    """On a GPU: each alone in its memory."""
    for name in names():
        if not enough():
            yield name, "there is no time left for it"
            continue
        made = None
        try:
            with peak_of(device) as peak:
                made = CONTENDERS[name](shape, device, **over)
                made.warm()
                seconds = made.run(shape.steps)
            value: tuple[float, float] | str = (shape.steps * shape.batch / seconds, peak.bytes)
        except InputError as error:
            value = str(error)
        except Exception as error:
            if not out_of_memory(error):
                raise
            value = "out of memory"
        del made
        release(device)
        yield name, value


def _in_turns(
    shape: Shape, device: torch.device, over: dict[str, Any], enough: Callable[[], bool]
) -> Iterator[tuple[str, tuple[float, float] | str]]:
    """On a CPU that others use, too: by turns, so that all meet the same disturbances; memory in own processes."""
    made = {name: CONTENDERS[name](shape, device, **over) for name in names()}
    for contender in made.values():
        contender.warm()
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(shape.rounds):
        order = list(made) if turn % 2 == 0 else list(made)[::-1]
        for name in order:
            if enough() or not seconds[name]:
                seconds[name].append(made[name].run(shape.steps))
    made.clear()
    for name, times in seconds.items():
        peak = peak_in_own_process(shape, name) if shape.rounds > 2 and enough() else 0.0
        yield name, (shape.steps * shape.batch / statistics.median(times), peak)


def _said(shape: Shape, value: tuple[float, float]) -> str:
    second = "tokens/s" if shape.name in _ON_GPU else "tokens a second of processor time"
    return f"{value[0]:,.0f} {second}" + (f", peak {gib(value[1])} GiB" if value[1] else "")


def _compared(shape: Shape, device: torch.device, found: Found, suffix: str) -> Iterator[Row]:
    """The loop's targets, which a GPU is held to; on a CPU the figures are for the log."""
    if OURS not in found:
        return
    row = judged if device.type == "cuda" else _unjudged
    ours = found[OURS]
    for other, share in ((BARE, _AGAINST_BARE), (TRAINER, _AGAINST_TRAINER)):
        if other not in found:
            continue
        ratio, memory = ours[0] / found[other][0], ours[1] / found[other][1] if found[other][1] else 0.0
        said = f"speed {ratio:.3f} (at least {share})" + (
            f", peak {memory:.3f} (at most 1)" if memory else ""
        )
        yield row(
            f"{shape.name}: {OURS} against {other}{suffix}", said, holds=ratio >= share and memory <= 1.0,
            speed=ratio, memory=memory,
        )  # fmt: skip
    yield from _against_plan(shape, device, ours, suffix)


def _against_plan(
    shape: Shape, device: torch.device, ours: tuple[float, float], suffix: str
) -> Iterator[Row]:
    """Share of the peak FLOPs, and memory beside the estimate.

    FLOPs per token are those of `tli plan`: 6 for each element of a matrix that a token is multiplied with, and
    12 x layers x width x length for attention over the full square (PaLM, appendix B). What is calculated twice
    counts once. `causal` counts half of the square, as a causal kernel does.
    """
    with tempfile.TemporaryDirectory() as folder:
        base = described(shape, Path(folder) / "base")
        plan = plan_for(Injection(method="none"), base.facts.depth)
        costs, estimate = cost_of(shape, base, plan), memory_of(shape, base, plan, device)
    if device.type == "cuda":
        share = ours[0] * costs.flops_per_token / PEAK_FLOPS
        causal = ours[0] * (costs.flops_per_token - attention_flops(shape) / 2) / PEAK_FLOPS
        bounded = bool(suffix) and shape.name == "1B"
        said = f"{share:.1%} of {PEAK_FLOPS / 1e12:.0f} TFLOP/s (causal {causal:.1%})"
        values = {"mfu": share, "causal": causal, "flops_per_token": costs.flops_per_token}
        what = f"{shape.name}: MFU{suffix}"
        if bounded:
            yield judged(what, f"{said}, at least {_MFU:.0%}", holds=share >= _MFU, **values)
        else:
            yield measured(what, said, **values)
    if ours[1]:
        ratio = ours[1] / estimate
        yield measured(
            f"{shape.name}: peak against the estimate{suffix}",
            f"{gib(ours[1])} GiB, estimated {gib(estimate)} GiB ({ratio:.2f})",
            peak=ours[1], estimate=estimate,
        )  # fmt: skip


def _unjudged(what: str, said: str, *, holds: bool, **values: Any) -> Row:
    return measured(what, said, holds=holds, **values)
