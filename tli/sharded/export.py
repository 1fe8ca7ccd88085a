"""Writes a model that lies on several ranks as a folder for plain transformers, one tensor at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from tli.checkpoint.header import BITS
from tli.checkpoint.reader import INDEX, SINGLE
from tli.checkpoint.tensors import bytes_of
from tli.checkpoint.writer import Output, Zeros, header, index_of, shard_name, split
from tli.errors import CheckpointError, Problem
from tli.growth.stored import parts_in_files
from tli.sharded.processes import Group
from tli.training.export import model_folder, save_as_float32

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARD = 50_000_000_000  # bytes of one file, as transformers has it
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
_TYPES |= {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}


def write_sharded_model(
    model: PreTrainedModel,
    target: Path,
    *,
    beside: Path,
    lineage: Mapping[str, Any],
    group: Group,
    limit: int = SHARD,
) -> None:
    """Write a model under FSDP as `tli.training.export.write_model` writes one; every rank takes part.

    Rank 0 writes; one whole tensor is in memory at a time.

    Args:
        model: saved with its own config, in float32.
        target: the folder; must not exist.
        beside: the checked folder of the model that it grew from.
        lineage: what made the model.
        group: of the ranks.
        limit: bytes of a file at most, but for one larger tensor; more make several files and an index.

    Raises:
        CheckpointError: the target exists or cannot be written.
        OSError: the disk is full. What rank 0 raises ends the others with a CheckpointError.
    """
    held = _held(model)
    gathered = _gathered(model, held)
    fault: Exception | None = None
    if group.ranks.rank == 0:
        try:
            with model_folder(target, beside=beside, lineage=lineage) as folder:
                model.save_pretrained(folder, state_dict={})  # all but the weights
                if any(_halved(tensor) for tensor in held.values()):
                    save_as_float32(model, folder)
                _write(folder, gathered, _outputs(model, held), limit)
        except Exception as error:  # noqa: BLE001 - raised below, when the others do not wait any more
            fault = error
    for _ in gathered:  # the other ranks; and rank 0 after a fault, or they would wait for it
        pass
    said = [None if fault is None else str(fault)]
    distributed.broadcast_object_list(said, src=0, group=group.writers)
    if fault is not None:
        raise fault
    if said[0] is not None:
        raise CheckpointError(
            Problem(str(target), f"a fault of rank 0: {said[0]}", "a model that is written")
        )


@dataclass(frozen=True)
class _Whole:
    """A whole tensor as the module tree has it, with its parts by their names in files."""

    parts: Mapping[str, Tensor]


def _held(model: PreTrainedModel) -> dict[str, Tensor]:
    """What is saved of a model, by the names of its module tree: tied weights once."""
    ignored = list(model._keys_to_ignore_on_save or ())
    saved = set(model.state_dict())
    named = [*model.named_parameters(), *model.named_buffers()]
    return {
        name: tensor.detach()
        for name, tensor in named
        if name in saved and not any(re.search(pattern, name) for pattern in ignored)
    }


def _outputs(model: PreTrainedModel, held: Mapping[str, Tensor]) -> list[Output]:
    """Names, types and shapes of the tensors in files, in the order in which they are gathered."""
    outputs = []
    for name, tensor in held.items():
        kind = torch.float32 if _halved(tensor) else tensor.dtype
        empty = torch.empty(tensor.shape, dtype=kind, device="meta")
        for part, view in parts_in_files(model, {name: empty}).items():
            outputs.append(Output(part, _TYPES[view.dtype], tuple(view.shape), Zeros()))
    return outputs


def _gathered(model: PreTrainedModel, held: Mapping[str, Tensor]) -> Iterator[_Whole]:
    """Each tensor whole; called on by every rank as often."""
    for name, tensor in held.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if _halved(tensor):
            whole = whole.float()
        yield _Whole(parts_in_files(model, {name: whole}))


def _halved(tensor: Tensor) -> bool:
    """Whether a weight is kept in bfloat16 and stands for numbers in float32: it was not trained."""
    return isinstance(tensor, DTensor) and tensor.dtype == torch.bfloat16


def _write(folder: Path, gathered: Iterator[_Whole], outputs: Sequence[Output], limit: int) -> None:
    shards = split(outputs, limit if sum(output.nbytes for output in outputs) > limit else None)
    single = len(shards) == 1
    names = [SINGLE] if single else [shard_name(i, len(shards)) for i in range(1, len(shards) + 1)]
    places: dict[str, tuple[int, int]] = {}  # file and offset
    with ExitStack() as stack:
        for name, shard in zip(names, shards, strict=True):
            file = stack.enter_context((folder / name).open("wb"))
            ordered = sorted(shard, key=lambda output: -BITS[output.dtype])
            beginning = header(ordered, {"format": "pt"})
            file.write(beginning)
            file.flush()
            offset = len(beginning)
            for output in ordered:
                places[output.name] = (file.fileno(), offset)
                offset += output.nbytes
        for whole in gathered:
            for part, view in whole.parts.items():
                _write_at(*places[part], bytes_of(view.cpu()))
    if not single:
        (folder / INDEX).write_text(index_of(names, shards), encoding="utf-8")


def _write_at(descriptor: int, offset: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
