"""Our loop under several settings, to choose defaults by: pieces of the loss, micro batches, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from tests.gpu.contenders import Ours
from tests.gpu.memory import peak_of, release
from tests.gpu.shapes import Shape, gib
from tests.gpu.table import Row, measured, skipped
from tli.errors import InputError
from tli.training import losses
from tli.training.device import out_of_memory


def rows(shape: Shape, device: torch.device, *, compiled: bool, enough: Callable[[], bool]) -> Iterator[Row]:
    """Tokens per second and peak memory of each; `enough` says whether there is time for one more."""
    whole = {"small": 2**62}
    ways: dict[str, tuple[Shape, dict[str, Any], dict[str, int]]] = {
        "all logits at once": (shape, {}, whole),
        "pieces half as large": (shape, {}, {"most": losses.LOGITS_AT_ONCE[device.type] // 2}),
        "pieces twice as large": (shape, {}, {"most": losses.LOGITS_AT_ONCE[device.type] * 2}),
        "every second layer kept": (shape, {"activation_checkpointing": 2}, {}),
        "no layer kept": (shape, {"activation_checkpointing": 1}, {}),
        "half a micro batch": (_in_passes(shape, shape.passes * 2), {}, {}),
    }
    if shape.passes % 2 == 0:
        ways["micro batches of twice the size"] = (_in_passes(shape, shape.passes // 2), {}, {})
    for name, (used, recipe, limits) in ways.items():
        if not enough():
            yield skipped(name, "there is no time left for it")
            continue
        over = {**recipe, "compile": True} if compiled else recipe
        yield _measured(name, used, device, over, limits)
        release(device)


def _in_passes(shape: Shape, passes: int) -> Shape:
    """The same batch in another number of passes, of a sequence at least."""
    micro = max(shape.sequence, shape.batch // passes)
    return replace(shape, micro=micro, passes=shape.batch // micro)


def _measured(
    name: str, shape: Shape, device: torch.device, recipe: dict[str, Any], limits: dict[str, int]
) -> Row:
    small, most = losses.SMALL, losses.LOGITS_AT_ONCE
    losses.SMALL = limits.get("small", small)
    losses.LOGITS_AT_ONCE = {**most, device.type: limits.get("most", most[device.type])}
    try:
        with peak_of(device) as peak:
            made = Ours(shape, device, **recipe)
            made.warm()
            speed = shape.steps * shape.batch / made.run(shape.steps)
    except InputError as error:
        return skipped(name, str(error))
    except Exception as error:
        if not out_of_memory(error):
            raise
        return skipped(name, "out of memory")
    finally:
        losses.SMALL, losses.LOGITS_AT_ONCE = small, most
    return measured(
        name, f"{speed:,.0f} tokens/s, peak {gib(peak.bytes)} GiB", tokens_per_second=speed, peak=peak.bytes
    )
