"""Tensors from the bytes on disk, and back; of the types in `tli.checkpoint.header.FLOATS`.

As torch tensors, whole; or as numpy arrays, part by part, which takes neither torch nor as much memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tli.checkpoint.header import TensorInfo
from tli.errors import CheckpointError, Problem

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch import dtype as Type  # noqa: N812 - a type, and no name of a variable here

PART = 2**16  # elements that arithmetic is done on at once: what it needs of them stays in a core's cache
BLOCK = 16  # elements that `tli.initializers.normal` draws together: no part is smaller, unless the tensor is
_STORED = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
_NOT_A_NUMBER = 0xFFFF  # in bfloat16, as torch writes it


def parts(count: int) -> Iterator[tuple[int, int]]:
    """Where the parts of a tensor of `count` elements begin and end: the same whatever is done with them."""
    last = max((count - BLOCK) // PART, 0) * PART
    for start in range(0, last, PART):
        yield start, start + PART
    if count:
        yield last, count


def read_parts(info: TensorInfo) -> Iterator[np.ndarray]:
    """The numbers of a tensor on disk, row-major, in float32 (float64 where they are that), part by part.

    Each array is new. Raises CheckpointError when the file is cut short.
    """
    import numpy as np

    with info.file.open("rb", buffering=0) as file:
        file.seek(info.start)
        for start, end in parts(info.count):
            stored = np.empty(end - start, _STORED[info.dtype])
            left = stored.view("u1").data
            while left:
                count = file.readinto(left)
                if not count:
                    where = f"{info.file}: {info.name}"
                    raise CheckpointError(Problem(where, "an early end of the file", "all of it"))
                left = left[count:]
            yield widened(stored)


def stored_numbers(data: bytes, dtype: str) -> np.ndarray:
    """Bytes as the numbers that they are, flat; bfloat16 as 16-bit integers."""
    import numpy as np

    return np.frombuffer(data, _STORED[dtype])


def widened(stored: np.ndarray) -> np.ndarray:
    """Stored numbers (16-bit integers are the bits of bfloat16) in float32, or as they are in float64."""
    import numpy as np

    if stored.dtype == np.uint16:
        bits = stored.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return stored.astype(np.float32) if stored.dtype == np.float16 else stored


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as they are stored: rounded to the nearest of `dtype`, of two equally near to the even one.

    Those of 16 bits by way of float32, as torch rounds. What is too large becomes infinite.
    """
    import numpy as np

    if dtype in ("F16", "BF16") and values.dtype == np.float64:
        values = rounded(values, "F32")
    if dtype != "BF16":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return values.astype(_STORED[dtype], copy=False)
    bits = values.view(np.uint32)
    upper = bits >> 16
    upper &= 1
    upper += 0x7FFF
    upper += bits
    upper >>= 16
    stored = upper.astype(np.uint16)
    missing = np.isnan(values)
    if missing.any():
        stored[missing] = _NOT_A_NUMBER
    return stored


def finite(info: TensorInfo) -> bool:
    """Whether a tensor on disk has neither infinities nor what is not a number."""
    import numpy as np

    return all(bool(np.isfinite(part).all()) for part in read_parts(info))


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
