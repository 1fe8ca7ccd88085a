"""A base of which every rank holds its rows: read once from safetensors, kept for all models grown of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors import safe_open
from torch import Tensor

from tli.architectures.family import Family
from tli.architectures.lookup import family_of
from tli.errors import Problem, Problems
from tli.growth.stored import parts_in_files
from tli.models.base import Base
from tli.sharded.processes import Group
from tli.sharded.rows import Rows, own_part, own_rows, shape_problem
from tli.sharded.state_folders import exchanged
from tli.sharded.wrapping import without_weights
from tli.training.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Parts = Mapping[str, Tensor]


@dataclass(frozen=True)
class ShardedBase:
    """This rank's rows of a base's weights; warm, for one model after the other.

    Attributes:
        shell: the model without memory for its weights, its buffers computed or read.
        rows: by the names of its parameters, tied ones once; in float32, or in bfloat16 where that was asked
            for and loses no bit.
        group: of the ranks.
        bytes_read: from the files, by this rank.
    """

    shell: PreTrainedModel
    rows: Mapping[str, Rows]
    group: Group
    bytes_read: int

    @property
    def family(self) -> Family:
        """The facts of its architecture."""
        return family_of(self.shell.config.model_type, "model_type")

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(list(self.shell.get_submodule(self.family.layers).children()))


def read_base(base: Base, group: Group, *, halved: bool = False) -> ShardedBase:
    """Read this rank's rows of a base that was found and checked; every rank does.

    Args:
        base: on a disk that every rank sees.
        group: of the ranks.
        halved: whether weights of which all values are bfloat16 numbers, on every rank, are kept so.

    Raises:
        CheckpointError: files whose tensors are not those of the model or parts of them, row by row; one
            process
            may load it still.
    """
    shell = without_weights(lambda: _built(base))
    problems = Problems(str(base.folder))
    rows: dict[str, Rows] = {}
    with _Files(base) as files:
        for name, parameter in shell.named_parameters():
            if (got := shape_problem(name, parameter)) is not None:
                problems.add(_unreadable(base, got))
            elif (found := files.parts(shell, name, parameter.detach())) is None:
                problems.add(_unreadable(base, f"no {name}"))
            else:
                local = files.own_rows(parameter, found, group.ranks)
                local = _in_bfloat16(local) if halved else local
                rows[name] = Rows(local.to(group.device), tuple(parameter.shape))
        problems.require()
        if halved:
            rows = _alike(rows, group)
        for name, buffer in shell.named_buffers():
            if (found := files.parts(shell, name, buffer)) is not None:
                files.read_whole(buffer, found)
    return ShardedBase(shell.train(mode=False), rows, group, files.bytes_read)


def _in_bfloat16(local: Tensor) -> Tensor:
    """The same numbers in half the bytes, where none loses a bit by that."""
    half = local.to(torch.bfloat16)
    return half if torch.equal(half.float(), local.float()) else local


def _alike(rows: Mapping[str, Rows], group: Group) -> dict[str, Rows]:
    """The rows with each weight of one type on all ranks: in bfloat16 where it is so on every one."""
    half = [name for name, each in rows.items() if each.local.dtype == torch.bfloat16]
    everywhere = set(half).intersection(*exchanged(group, half))
    return {name: each if name in everywhere else Rows(each.wide, each.shape) for name, each in rows.items()}


def _built(base: Base) -> PreTrainedModel:
    """The model of a folder as `tli.models.loading` would load it, but for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(str(base.folder), trust_remote_code=False, local_files_only=True)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, trust_remote_code=False
    )
    if model.can_generate() and (base.folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(base.folder), local_files_only=True)
    model.name_or_path = str(base.folder)
    return model


class _Files:
    """The open files of a base, and how many bytes were read from them."""

    def __init__(self, base: Base) -> None:
        self._tensors = base.checkpoint.tensors
        self._stack = ExitStack()
        self._open: dict[str, Any] = {}
        self.bytes_read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def parts(self, shell: PreTrainedModel, name: str, tensor: Tensor) -> Parts | None:
        """Views of a tensor by their names in these files; None where they lack one."""
        found = parts_in_files(shell, {name: tensor})
        prefix = f"{shell.base_model_prefix}."
        # Some files name the weights of the body alone, without the head's module around it.
        for removed, added in (("", ""), (prefix, ""), ("", prefix)):
            named = {added + part.removeprefix(removed): view for part, view in found.items()}
            if all(tuple(self._shape(part)) == tuple(view.shape) for part, view in named.items()):
                return named
        return None

    def own_rows(self, whole: Tensor, parts: Parts, ranks: Ranks) -> Tensor:
        """This rank's rows of a tensor that is on the meta device, in its type."""
        low, high = own_rows(whole.shape[0], ranks)
        row = whole[0].numel()
        local = torch.empty((high - low, *whole.shape[1:]), dtype=whole.dtype)
        for name, view in parts.items():
            if not self._read_into(local, name, view, low * row):
                full = torch.empty(whole.shape, dtype=whole.dtype)
                self.read_whole(full, parts)
                return own_part(full, ranks).clone()
        return local

    def read_whole(self, whole: Tensor, parts: Parts) -> None:
        """All of a tensor, from all its parts."""
        for name, view in parts.items():
            target = torch.as_strided(whole, view.shape, view.stride(), view.storage_offset())
            target.copy_(self._slice(name, ...))

    def _read_into(self, local: Tensor, name: str, view: Tensor, begin: int) -> bool:
        """Read what of a part lies in rows that begin at an element; False where some lies across an end."""
        end = begin + local.numel()
        if view.numel() == 0 or local.numel() == 0:
            return True
        inner = (
            sum((size - 1) * step for size, step in zip(view.shape[1:], view.stride()[1:], strict=True)) + 1
        )
        starts = [view.storage_offset() + row * view.stride()[0] for row in range(view.shape[0])]
        inside = [row for row, start in enumerate(starts) if begin <= start and start + inner <= end]
        outside = sum(start >= end or start + inner <= begin for start in starts)
        if len(inside) + outside < len(starts):
            return False
        if inside:
            first, last = inside[0], inside[-1] + 1
            place = starts[first] - begin
            target = torch.as_strided(local, (last - first, *view.shape[1:]), view.stride(), place)
            target.copy_(self._slice(name, slice(first, last)))
        return True

    def _shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape if name in self._tensors else (-1,)

    def _slice(self, name: str, which: Any) -> Tensor:
        path = str(self._tensors[name].file)
        if path not in self._open:
            self._open[path] = self._stack.enter_context(safe_open(path, framework="pt"))
        file = self._open[path]
        read: Tensor = file.get_tensor(name) if which is ... else file.get_slice(name)[which]
        self.bytes_read += read.nbytes
        return read


def _unreadable(base: Base, got: str) -> Problem:
    expected = "files with every weight of the model, to be read by rows"
    return Problem(str(base.folder), got, expected, "a single rank")
