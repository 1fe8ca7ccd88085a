"""Training states on disk: written atomically, named by the digest of their content.

The previous state is kept until the next one is good, and one that was cut short or altered is passed over.
A state bears its owner, a text that says what was trained, and is taken up for that owner alone: what else
lies in the folder is another training's, however well it would fit. A state is copied first and written
after, which a thread may do (`tli.training.saver`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from tli.checkpoint.atomic import remove_stale
from tli.checkpoint.header import read_header
from tli.checkpoint.tensors import bytes_of
from tli.errors import CheckpointError
from tli.files import open_regular, sync
from tli.training.moments import make_moments, moment_tensors, moment_types, trained
from tli.training.state_names import by_ranks, drop_older, name_of, states_of, step_and_digest

if TYPE_CHECKING:
    from tli.training.loop import Training

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
    owner: str = ""

    @property
    def size(self) -> int:
        """Bytes on disk, but for the header."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def copy_state(training: Training, owner: str = "") -> State:
    """Copy all that a training goes on from; `owner` tells it from every other training."""
    tensors = {"rng": torch.get_rng_state()}
    if (device := _cuda(training)) is not None:
        tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
    for name, parameter in trained(training):
        tensors[f"model.{name}"] = _copied(parameter.detach())
        if kept := training.optimizer.state.get(parameter):
            tensors[f"optimizer.step.{name}"] = _copied(torch.as_tensor(kept["step"]))
        for key, tensor in moment_tensors(training, name, parameter).items():
            tensors[key] = _copied(tensor)
    return State(training.step, tensors, written_progress(training), owner)


def write_state(state: State, folder: Path) -> Path:
    """Write a state beside earlier ones, and drop all but the last two of its owner's.

    Raises:
        OSError: it could not be written; the earlier ones are as they were.
    """
    remove_stale(folder, ".step-*.tmp-*")
    aside = folder / f".step-{state.step:08d}.tmp-{os.getpid()}"
    digest = hashlib.sha256()
    try:
        aside.unlink(missing_ok=True)
        with os.fdopen(open_regular(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as out:
            for part in _parts(state):
                digest.update(part)
                out.write(part)
            out.flush()
            os.fsync(out.fileno())
        name = name_of(state.step, state.owner, digest.hexdigest())
        target = folder / f"{name}.safetensors"
        aside.rename(target)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync(folder)
    drop_older(target, state.owner)
    return target


def save_state(training: Training, folder: Path, owner: str = "") -> Path:
    """Write the state of a training as it is now.

    Raises:
        OSError: it could not be written; the earlier ones are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return write_state(copy_state(training, owner), folder)


def load_latest(training: Training, folder: Path, owner: str = "") -> bool:
    """Put the newest good state of a folder into a training of the same model and recipe.

    States that several processes wrote are passed over (`tli.sharded.resuming` takes up both).

    Args:
        training: untouched where there is none.
        folder: of states, this training's and others'.
        owner: whose states are looked at.

    Returns:
        Whether there was one.
    """
    return any(load_file(training, path, owner) for path in states_of(folder, owner) if not by_ranks(path))


def load_file(training: Training, path: Path, owner: str) -> bool:
    """Put one state into a training; whether it was good. Untouched where it was not."""
    progress = checked_file(training, path, owner)
    if progress is None:
        return False
    try:
        _load(training, path, progress)
    except (OSError, SafetensorError, ValueError):
        return False
    return True


def checked_file(training: Training, path: Path, owner: str, *, hashed: bool = True) -> dict[str, Any] | None:
    """The progress that a state of one process holds; None where it is damaged, or another training's.

    Args:
        training: that it is to be put into.
        path: of the state.
        owner: whose it is to be.
        hashed: whether its content is read and compared with its digest; one of several ranks does.
    """
    step, named = step_and_digest(path)
    try:
        progress = _checked(training, path, owner)
        if progress["step"] != step:
            return None
        if not hashed:
            return progress
        # Hashed once its size is known to be a state's.
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, CheckpointError, ValueError, RecursionError):
        return None
    return progress if digest[:16] == named else None


def _parts(state: State) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, tensor by tensor: hashed and written without one more copy of all.

    By hand because the library's own writer holds the interpreter, and the training in it, until it is done.
    """
    names = sorted(state.tensors, key=lambda name: (-state.tensors[name].itemsize, name))
    entries: dict[str, object] = {"__metadata__": {"progress": state.progress, "owner": state.owner}}
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


def _checked(training: Training, path: Path, owner: str) -> dict[str, Any]:
    """The progress that a state holds, once all of it is known to fit; nothing is overwritten before.

    Raises:
        CheckpointError, OSError, ValueError, RecursionError: it does not.
    """
    shard = read_header(path)
    if shard.metadata.get("owner") != owner:
        raise ValueError("another training's")
    wanted = _shapes(training)
    found = {tensor.name: (tensor.dtype, tensor.shape) for tensor in shard.tensors}
    parameters = {f"model.{name}" for name, _ in trained(training)}
    for name, parameter in trained(training):
        if f"optimizer.step.{name}" in found:
            parameters |= moment_types(training, name, parameter).keys()
    if not parameters <= found.keys() or any(found[name] not in wanted.get(name, ()) for name in found):
        raise ValueError("tensors of another model")
    return read_progress(shard.metadata.get("progress", "null"))


def written_progress(training: Training) -> str:
    """What a training has beside tensors, as JSON."""
    return json.dumps({name: getattr(training, name) for name in _PROGRESS})


def read_progress(text: str) -> dict[str, Any]:
    """The same as attributes of a training. Raises ValueError and RecursionError for what is none."""
    progress = json.loads(text)
    if not _is_progress(progress):
        raise ValueError("no progress of a training")
    return {**progress, "unreported": [(step, loss) for step, loss in progress["unreported"]]}


def _shapes(training: Training) -> Mapping[str, set[tuple[str, tuple[int, ...]]]]:
    """The types and shapes that each tensor of this training's states may have."""
    shapes = {"rng": {("U8", tuple(torch.get_rng_state().shape))}}
    if (device := _cuda(training)) is not None:
        shapes["rng.cuda"] = {("U8", tuple(torch.cuda.get_rng_state(device).shape))}
    for name, parameter in training.model.named_parameters():
        kind, shape = _TYPES[parameter.dtype], tuple(parameter.shape)
        # An earlier version also wrote what was frozen, all of it in float32.
        shapes[f"model.{name}"] = (
            {(kind, shape)} if parameter.requires_grad else {(kind, shape), ("F32", shape)}
        )
        if parameter.requires_grad:
            shapes[f"optimizer.step.{name}"] = {("F32", ()), ("F64", ())}
            shapes |= {
                key: {(_TYPES[kind], shape)}
                for key, (kind, shape) in moment_types(training, name, parameter).items()
            }
    return shapes


def _is_progress(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != set(_PROGRESS):
        return False
    measured, initial, unreported = value["measured"], value["initial_loss"], value["unreported"]
    return (
        _is_step(value["step"])
        and _is_number(value["seconds"])
        and 0 <= value["seconds"] < math.inf
        and (measured is None or _is_step(measured))
        and (initial is None or _is_number(initial))
        and isinstance(unreported, list)
        and all(
            isinstance(pair, list) and len(pair) == 2 and _is_step(pair[0]) and _is_number(pair[1])
            for pair in unreported
        )
    )


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**8


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _load(training: Training, path: Path, progress: Mapping[str, Any]) -> None:
    with safe_open(str(path), framework="pt") as state:
        names = set(state.keys())
        if "rng" not in names:
            raise ValueError("no random numbers' state")
        generator = state.get_tensor("rng")
        try:
            torch.Generator().set_state(generator)  # before anything is overwritten
        except RuntimeError as error:
            raise ValueError("no state of a generator") from error
        training.optimizer.state.clear()
        with torch.no_grad():
            for name, parameter in trained(training):
                parameter.copy_(state.get_tensor(f"model.{name}"))
                if f"optimizer.step.{name}" not in names:
                    continue
                make_moments(training, parameter, state.get_tensor(f"optimizer.step.{name}"))
                for key, tensor in moment_tensors(training, name, parameter).items():
                    tensor.copy_(state.get_tensor(key))
        torch.set_rng_state(generator)
        if (device := _cuda(training)) is not None and "rng.cuda" in names:
            torch.cuda.set_rng_state(state.get_tensor("rng.cuda"), device)
    for name, value in progress.items():
        setattr(training, name, value)


def _cuda(training: Training) -> torch.device | None:
    """The CUDA device that a model draws on, which has a generator of its own."""
    device = next(training.model.parameters()).device
    return device if device.type == "cuda" else None
