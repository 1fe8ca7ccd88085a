"""The device: its precision, out of memory told from other errors, memory released, a lost one detected."""

from __future__ import annotations

import contextlib
import errno
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# What torch's allocators and libraries say where they raise nothing but RuntimeError.
_SAID = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "_ALLOC_FAILED",
)


def set_numerics(device: torch.device) -> dict[str, str]:
    """Set how float32 is multiplied on a device, for the whole process, and say so.

    On a GPU that has it, TF32: factors rounded to 10 bits of mantissa, sums in float32, at eight times the
    speed. On the CPU nothing is rounded. Held-out losses are measured so, whatever a training's precision is.

    Returns:
        By what it is about, for the records of a training.
    """
    import torch

    products = "fp32"
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        products = "tf32"
    return {"weights": "fp32", "evaluation": "fp32", "fp32 products": products}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the machine had no memory left for what was asked."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def device_answers() -> bool:
    """Whether this process can still use its GPU, where it uses one.

    After a failed assertion or a wrong address in a kernel every later call fails, until the process ends.
    """
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch's
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def release() -> None:
    """Give memory that nothing refers to back to the device, for the next model in this process."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch's
        torch.cuda.empty_cache()


def gpu_readings() -> dict[str, float]:
    """Memory in use of each GPU that this process sees, and where NVML can be asked how busy it is; by name.

    The names are those of MLflow's system metrics. Safe to ask from another thread while a step is trained.
    """
    import torch

    found: dict[str, float] = {}
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch's; the training begins it
        return found
    for index in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(index)
        found[f"gpu_{index}_memory_usage_megabytes"] = (whole - free) / 1e6
        found[f"gpu_{index}_memory_usage_percentage"] = 100 * (whole - free) / whole
        with contextlib.suppress(ModuleNotFoundError, RuntimeError):  # no NVML, or not on this device
            found[f"gpu_{index}_utilization_percentage"] = float(torch.cuda.utilization(index))
            found[f"gpu_{index}_power_usage_watts"] = torch.cuda.power_draw(index) / 1000
    return found
