"""Our loop under several settings, to choose defaults by: pieces of the loss, micro batches, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tests.gpu.contenders import Ours
from tests.gpu.memory import peak_of, release
from tests.gpu.shapes import Shape, gib
from tests.gpu.table import Row, measured, skipped
from tli.errors import InputError
from tli.training import losses
from tli.training.device import out_of_memory


@dataclass(frozen=True)
class _Way:
    """A setting. `small` and `most` are the limits of the loss in pieces; `kernel` names the attention's."""

    shape: Shape
    recipe: Mapping[str, Any] = field(default_factory=dict)
    small: int = losses.SMALL
    most: int | None = None
    kernel: str | None = None


def rows(shape: Shape, device: torch.device, *, compiled: bool, enough: Callable[[], bool]) -> Iterator[Row]:
    """Tokens per second and peak memory of each; `enough` says whether there is time for one more.

    Layers are compiled where the shapes are those that were compiled before, and not for the others.
    """
    at_once = losses.LOGITS_AT_ONCE[device.type]
    over = {"compile": True} if compiled else {}
    ways = {
        "pieces half as large": _Way(shape, over, most=at_once // 2),
        "pieces twice as large": _Way(shape, over, most=at_once * 2),
        "all logits at once": _Way(shape, over, small=2**62),
        "attention by cuDNN": _Way(shape, over, kernel="CUDNN_ATTENTION"),
        "every second layer kept": _Way(shape, {"activation_checkpointing": 2}),
        "no layer kept": _Way(shape, {"activation_checkpointing": 1}),
        "half a micro batch": _Way(_in_passes(shape, shape.passes * 2)),
    }
    if shape.passes % 2 == 0:
        ways["micro batches of twice the size"] = _Way(_in_passes(shape, shape.passes // 2))
    for name, way in ways.items():
        what = f"{name}, compiled" if way.recipe.get("compile") else name
        if way.kernel is not None and device.type != "cuda":
            continue
        if not enough():
            yield skipped(what, "there is no time left for it")
            continue
        yield _measured(what, way, device)
        release(device)


def _in_passes(shape: Shape, passes: int) -> Shape:
    """The same batch in another number of passes, of a sequence at least."""
    micro = max(shape.sequence, shape.batch // passes)
    return replace(shape, micro=micro, passes=shape.batch // micro)


def _measured(name: str, way: _Way, device: torch.device) -> Row:
    shape, small, most = way.shape, losses.SMALL, losses.LOGITS_AT_ONCE
    losses.SMALL = way.small
    losses.LOGITS_AT_ONCE = {**most, device.type: way.most or most[device.type]}
    try:
        with _attention(way.kernel), peak_of(device) as peak:
            made = Ours(shape, device, **way.recipe)
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


@contextmanager
def _attention(kernel: str | None) -> Iterator[None]:
    """With one kernel of attention before all others, which layers that are compiled anew take up."""
    if kernel is None:
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    others = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
    torch.compiler.reset()
    with sdpa_kernel([getattr(SDPBackend, kernel), *others], set_priority=True):
        yield
    torch.compiler.reset()
