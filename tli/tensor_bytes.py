"""Tensors from the bytes on disk, and back; of the types in `tli.header.FLOATS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tli.header import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor
    from torch import dtype as Type  # noqa: N812 - a type, and no name of a variable here


def read_tensor(info: TensorInfo) -> Tensor:
    """A tensor that is on disk."""
    return tensor_of(info.read(), info.dtype, info.shape)


def tensor_of(data: bytes | bytearray | memoryview, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of its bytes, little-endian and row-major; it shares their memory."""
    import torch

    if not data:
        return torch.empty(shape, dtype=type_of(dtype))
    return torch.frombuffer(data, dtype=type_of(dtype)).reshape(shape)


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU; shares its memory where it is contiguous."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def type_of(dtype: str) -> Type:
    """The torch type that safetensors calls `dtype`."""
    import torch

    return {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}[dtype]
