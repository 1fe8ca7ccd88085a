"""Training state on disk: written aside, synced, renamed; the name holds the digest of the content.

The previous state is kept until the next one is good, and one that was cut short or altered is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tli.aside import remove_left, sync

if TYPE_CHECKING:
    from tli.train import Training

_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{16})\.safetensors")
_KEPT = 2


def save_state(training: Training, folder: Path) -> Path:
    """Write the state of a training beside earlier ones, and drop all but the last two."""
    tensors = {"rng": torch.get_rng_state()}
    if (device := _cuda(training)) is not None:
        tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
    for name, parameter in training.model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        for key, value in training.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    content = save(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        # One entry: safetensors writes several in an order that changes from call to call.
        metadata={"progress": json.dumps({"step": training.step, "seconds": training.seconds})},
    )
    digest = hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    remove_left(folder, ".step-*.tmp-*")
    target = folder / f"step-{training.step:08d}-{digest}.safetensors"
    aside = folder / f".{target.name}.tmp-{os.getpid()}"
    with aside.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    aside.rename(target)
    sync(folder)
    for old in _states(folder)[_KEPT:]:
        old.unlink(missing_ok=True)
    return target


def load_latest(training: Training, folder: Path) -> bool:
    """Put the newest good state of a folder into a training of the same model and recipe.

    Returns:
        Whether there was one.
    """
    for path in _states(folder):
        match = _NAME.fullmatch(path.name)
        assert match is not None
        if hashlib.sha256(path.read_bytes()).hexdigest()[:16] != match[2]:
            continue
        try:
            _load(training, path)
        except (SafetensorError, KeyError):
            continue
        return True
    return False


def _states(folder: Path) -> list[Path]:
    """States of a folder, newest first."""
    return sorted((path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)), reverse=True)


def _load(training: Training, path: Path) -> None:
    with safe_open(str(path), framework="pt") as state:
        names = set(state.keys())
        if not {f"model.{name}" for name, _ in training.model.named_parameters()} <= names:
            raise KeyError(path.name)  # before anything is overwritten
        progress = json.loads(state.metadata()["progress"])
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
    training.step, training.seconds = progress["step"], progress["seconds"]


def _cuda(training: Training) -> torch.device | None:
    """The CUDA device that a model draws on, which has a generator of its own."""
    device = next(training.model.parameters()).device
    return device if device.type == "cuda" else None
