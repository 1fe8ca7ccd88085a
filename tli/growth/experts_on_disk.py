"""Upcycles a dense checkpoint to a mixture of experts on disk; what is copied is not loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tli.architectures.mixtures import DENSE
from tli.checkpoint.header import FLOATS, TensorInfo
from tli.checkpoint.tensors import bytes_of, read_tensor, rounded, stored_numbers, tensor_of, widened
from tli.checkpoint.writer import Computed, Content, Output, Pieces, Zeros
from tli.errors import Problem, Problems
from tli.initializers.upcycle import Upcycling
from tli.planning.experts import Experts

if TYPE_CHECKING:
    from torch import Tensor

_PIECE = 2**20  # bytes of a matrix that are in memory at once


def moe_outputs(
    outputs: Sequence[Output], config: Mapping[str, Any], experts: Experts, *, layers: str, seed: int
) -> list[Output]:
    """The tensors of the mixture on disk, from those of the dense model that `config` describes.

    `layers` is what the names of tensors in layers begin with. Experts that are copies stay ranges of bytes
    of the source. Raises FamilyError, PlanError, and CheckpointError for types that torch has no arithmetic
    for and for feed-forward parts that are not what the architecture says.
    """
    upcycling = Upcycling.of(config, experts, seed)
    problems = Problems("feed-forward parts")
    made: list[Output] = []
    maker = _Maker(upcycling)
    for output in outputs:
        position, _, name = output.name.removeprefix(f"{layers}.").partition(".")
        inside = output.name.startswith(f"{layers}.")
        if not inside or not name.startswith("mlp."):
            made.append(output)
        elif wrong := _wrong_with(output, name, config["hidden_size"], upcycling.inner):
            problems.add(wrong)
        else:
            made += maker.replaced(output, int(position), f"{layers}.{position}", DENSE[name])
    problems.require()
    return made


def _wrong_with(output: Output, name: str, hidden: int, inner: int) -> Problem | None:
    """Why a tensor of a feed-forward part cannot become one of experts."""
    if name not in DENSE:
        return Problem(output.name, "a tensor that experts have no place for", f"only {', '.join(DENSE)}")
    shape = (hidden, inner) if DENSE[name] == "down" else (inner, hidden)
    if output.shape != shape:
        return Problem(output.name, f"shape {list(output.shape)}", f"{list(shape)}, as config.json says")
    if output.dtype not in FLOATS:
        expected = f"one of {', '.join(FLOATS)}, as routers and experts are calculated in it"
        return Problem(output.name, output.dtype, expected, "the model in one of them")
    return None


class _Maker:
    """Makes the tensors of experts. Remembers the last dense matrix and expert: more of the same follows."""

    def __init__(self, upcycling: Upcycling) -> None:
        self.upcycling = upcycling
        self._dense = lru_cache(maxsize=1)(_tensor)
        self._whole = lru_cache(maxsize=1)(self._made)

    def replaced(self, output: Output, position: int, layer: str, kind: str) -> Iterator[Output]:
        """What stands in the place of one dense matrix; in that of the first, what is new too."""
        mixture, granularity = self.upcycling.mixture, self.upcycling.experts.granularity
        experts = self.upcycling.count * granularity
        rows, columns = output.shape
        if kind == "gate":
            router = Computed(lambda: self._router(output, position))
            yield Output(f"{layer}.{mixture.router}", output.dtype, (experts, columns), router)
            for name, size in mixture.shared_tensors(columns).items():
                yield Output(f"{layer}.{name}", output.dtype, size, Zeros())
        width = self.upcycling.inner // granularity
        shape = (rows, width) if kind == "down" else (width, columns)
        for number in range(experts):
            name = f"{layer}.{mixture.expert(number, kind)}"
            content = self._content(output, position, kind, number)
            yield Output(name, output.dtype, shape, content)

    def _content(self, output: Output, position: int, kind: str, number: int) -> Content:
        upcycling, source = self.upcycling, output.content
        expert, part = divmod(number, upcycling.experts.granularity)
        # Zeros have no deviation: what is drawn in their place, or added to them, is zero too.
        if isinstance(source, Zeros) or (upcycling.copies and upcycling.experts.granularity == 1):
            return source
        if upcycling.copies and kind != "down" and isinstance(source, TensorInfo):
            size = source.nbytes // upcycling.experts.granularity
            shape = (source.shape[0] // upcycling.experts.granularity, *source.shape[1:])
            start = source.start + part * size
            return replace(source, shape=shape, start=start, end=start + size)
        if upcycling.copies and kind == "down" and isinstance(source, TensorInfo):
            return Pieces(lambda: _columns(source, part, upcycling.experts.granularity))
        return Computed(
            lambda: bytes_of(upcycling.part(kind, part, self._whole(output, position, kind, expert)))
        )

    def _made(self, output: Output, position: int, kind: str, expert: int) -> Tensor:
        return self.upcycling.matrix(position, kind, expert, self._dense(output))

    def _router(self, output: Output, position: int) -> memoryview:
        router = self.upcycling.router(position, output.shape[1])
        return rounded(router, output.dtype).reshape(-1).view("u1").data


def _columns(info: TensorInfo, part: int, granularity: int) -> Iterator[memoryview]:
    """One of `granularity` parts of a matrix along its columns, times their number, some rows at a time."""
    import numpy as np

    rows, columns = info.shape
    width, row = columns // granularity, info.nbytes // rows
    for data in info.pieces(max(_PIECE // row, 1) * row):
        stored = stored_numbers(data, info.dtype).reshape(-1, columns)
        values = widened(np.ascontiguousarray(stored[:, part * width : (part + 1) * width]).reshape(-1))
        yield rounded(values * granularity, info.dtype).view("u1").data


def _tensor(output: Output) -> Tensor:
    if isinstance(output.content, TensorInfo):
        return read_tensor(output.content)
    assert isinstance(output.content, Computed | Pieces)
    return tensor_of(bytearray().join(output.content.pieces()), output.dtype, output.shape)
