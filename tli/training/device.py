"""Device faults: out of memory told from other errors, memory released, a lost device detected."""

from __future__ import annotations

import errno
import gc

# What torch's allocators and libraries say where they raise nothing but RuntimeError.
_SAID = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "_ALLOC_FAILED",
)


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
