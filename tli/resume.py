"""Training state on disk: written aside, synced, renamed; the name holds the digest of the content.

The previous state is kept until the next one is good, and one that was cut short or altered is passed over.
A state is copied first and written after, which a thread may do (`tli.saver`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from tli.aside import remove_left, sync
from tli.tensor_bytes import bytes_of

if TYPE_CHECKING:
    from tli.train import Training

_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{16})\.safetensors")
_KEPT = 2
_TYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_TYPES |= {torch.uint8: "U8"}  # of the random numbers' states
# What a training has beside tensors.
_PROGRESS = (
    "step",
    "seconds",
    "measured",
    "initial_loss",
    "unreported",
)


@dataclass(frozen=True)
class State:
    """A training as it was at one step, on the CPU and sharing nothing with it."""

    step: int
    tensors: dict[str, torch.Tensor]
    progress: str  # JSON

    @property
    def size(self) -> int:
        """Bytes on disk, but for the header."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def copy_state(training: Training) -> State:
    """Copy all that a training goes on from."""
    tensors = {"rng": torch.get_rng_state()}
    if (device := _cuda(training)) is not None:
        tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
    for name, parameter in training.model.named_parameters():
        tensors[f"model.{name}"] = _copied(parameter.detach())
        for key, value in training.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = _copied(torch.as_tensor(value))
    progress = {name: getattr(training, name) for name in _PROGRESS}
    return State(training.step, tensors, json.dumps(progress))


def write_state(state: State, folder: Path) -> Path:
    """Write a state beside earlier ones, and drop all but the last two.

    Raises:
        OSError: it could not be written; the earlier ones are as they were.
    """
    remove_left(folder, ".step-*.tmp-*")
    aside = folder / f".step-{state.step:08d}.tmp-{os.getpid()}"
    digest = hashlib.sha256()
    try:
        with aside.open("wb") as out:
            for part in _parts(state):
                digest.update(part)
                out.write(part)
            out.flush()
            os.fsync(out.fileno())
        target = folder / f"step-{state.step:08d}-{digest.hexdigest()[:16]}.safetensors"
        aside.rename(target)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync(folder)
    for old in _states(folder)[_KEPT:]:
        old.unlink(missing_ok=True)
    return target


def save_state(training: Training, folder: Path) -> Path:
    """Write the state of a training as it is now.

    Raises:
        OSError: it could not be written; the earlier ones are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return write_state(copy_state(training), folder)


def load_latest(training: Training, folder: Path) -> bool:
    """Put the newest good state of a folder into a training of the same model and recipe.

    Returns:
        Whether there was one.
    """
    for path in _states(folder):
        match = _NAME.fullmatch(path.name)
        assert match is not None
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest[:16] != match[2]:
                continue
            _load(training, path)
        except (OSError, SafetensorError, KeyError):
            continue
        return True
    return False


def _states(folder: Path) -> list[Path]:
    """States of a folder, newest first."""
    return sorted((path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)), reverse=True)


def _parts(state: State) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, tensor by tensor: hashed and written without one more copy of all.

    By hand because the library's own writer holds the interpreter, and the training in it, until it is done.
    """
    names = sorted(state.tensors, key=lambda name: (-state.tensors[name].itemsize, name))
    entries: dict[str, object] = {"__metadata__": {"progress": state.progress}}
    end = 0
    for name in names:
        tensor = state.tensors[name]
        start, end = end, end + tensor.nbytes
        shape, kind = list(tensor.shape), _TYPES[tensor.dtype]
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield bytes_of(state.tensors[name])


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)


def _load(training: Training, path: Path) -> None:
    with safe_open(str(path), framework="pt") as state:
        names = set(state.keys())
        progress = json.loads(state.metadata()["progress"])
        wanted = {f"model.{name}" for name, _ in training.model.named_parameters()}
        if not (wanted <= names and progress.keys() == set(_PROGRESS)):
            raise KeyError(path.name)  # before anything is overwritten
        training.optimizer.state.clear()
        with torch.no_grad():
            for name, parameter in training.model.named_parameters():
                parameter.copy_(state.get_tensor(f"model.{name}"))
                keys = [
                    key for key in ("step", "exp_avg", "exp_avg_sq") if f"optimizer.{key}.{name}" in names
                ]
                for key in keys:
                    value = state.get_tensor(f"optimizer.{key}.{name}")
                    # AdamW keeps its step count on the CPU whatever the parameter's device is.
                    training.optimizer.state[parameter][key] = value if key == "step" else value.to(parameter)
        torch.set_rng_state(state.get_tensor("rng"))
        if (device := _cuda(training)) is not None and "rng.cuda" in names:
            torch.cuda.set_rng_state(state.get_tensor("rng.cuda"), device)
    for name, value in progress.items():
        setattr(training, name, value)
    training.unreported = [(step, loss) for step, loss in training.unreported]


def _cuda(training: Training) -> torch.device | None:
    """The CUDA device that a model draws on, which has a generator of its own."""
    device = next(training.model.parameters()).device
    return device if device.type == "cuda" else None
