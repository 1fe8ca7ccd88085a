"""Takes up a sharded training state, at whatever number of ranks it was written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from tli.json_files import read_json
from tli.sharded.processes import Group
from tli.sharded.state_folders import MANIFEST, MOMENTS, STATE, digest_of, exchanged, states_of
from tli.training.state import read_progress

if TYPE_CHECKING:
    from tli.training.loop import Training

_FILE = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_LIMIT = 100_000_000  # bytes of a manifest


def load_latest_sharded(training: Training, folder: Path, group: Group, owner: str = "") -> bool:
    """Put the newest good state of a folder into a training of the same model and recipe; every rank does.

    The state may be of another number of ranks. Random numbers go on where this rank was one of those; a new
    one starts from its own seed.

    Args:
        training: untouched where there is none.
        folder: of states, this training's and others'.
        group: of the ranks.
        owner: whose states are looked at.

    Returns:
        Whether there was one.
    """
    found = [path.name for path in states_of(folder, owner)] if group.ranks.rank == 0 else []
    for name in exchanged(group, found)[0]:
        path = folder / name
        manifest = _checked(training, path, group, owner)
        # Whether a state is taken up is one decision of all ranks.
        if not all(exchanged(group, manifest is not None)):
            continue
        assert manifest is not None
        _load(training, path, manifest, group)
        return True
    return False


def _checked(training: Training, path: Path, group: Group, owner: str) -> dict[str, Any] | None:
    """The manifest of a state that fits this training and is whole; None where it is not, as this rank sees
    it.

    Each rank reads and hashes its share of the files.
    """
    match = STATE.fullmatch(path.name)
    assert match is not None
    try:
        if path.is_symlink():
            return None
        manifest = read_json(path / MANIFEST, _LIMIT)
        files = manifest["files"]
        if manifest["owner"] != owner or not all(_FILE.fullmatch(name) for name in files):
            return None
        progress = read_progress(manifest["progress"])
        names = sorted(files)
        if progress["step"] != int(match[1]) or {f.name for f in path.glob("*.safetensors")} != set(names):
            return None
        ranks = group.ranks
        if any(digest_of(path / name) != files[name] for name in names[ranks.rank :: ranks.size]):
            return None
        return manifest if _fits(training, path, manifest) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _tensors(reader: HuggingFaceStorageReader) -> dict[str, TensorStorageMetadata]:
    """The tensors of a state by name, whichever files their rows are in."""
    found = reader.read_metadata().state_dict_metadata
    return {name: held for name, held in found.items() if isinstance(held, TensorStorageMetadata)}


def _fits(training: Training, path: Path, manifest: dict[str, Any]) -> bool:
    """Whether a state has the tensors of this training's model, and no moment of another shape."""
    held = _tensors(HuggingFaceStorageReader(str(path)))
    for name, parameter in training.model.named_parameters():
        moments = (
            [f"optimizer.{key}.{name}" for key in MOMENTS] if name in manifest["optimizer_steps"] else []
        )
        for key in [f"model.{name}", *moments]:
            tensor = held.get(key)
            if tensor is None or tuple(tensor.size) != tuple(parameter.shape):
                return False
            if tensor.properties.dtype != parameter.dtype:
                return False
    models = {f"model.{name}" for name, _ in training.model.named_parameters()}
    return {key for key in held if key.startswith("model.")} == models


def _load(training: Training, path: Path, manifest: dict[str, Any], group: Group) -> None:
    reader = HuggingFaceStorageReader(str(path))
    rank, held = group.ranks.rank, _tensors(reader)
    state: dict[str, Tensor] = {}
    training.optimizer.state.clear()
    for name, parameter in training.model.named_parameters():
        state[f"model.{name}"] = parameter.detach()
        if name in manifest["optimizer_steps"]:
            moments = {key: torch.zeros_like(parameter.detach()) for key in MOMENTS}
            state |= {f"optimizer.{key}.{name}": moment for key, moment in moments.items()}
            count = torch.tensor(float(manifest["optimizer_steps"][name]))
            training.optimizer.state[parameter] = {"step": count, **moments}
    generators = {
        name: torch.empty(held[name].size, dtype=torch.uint8)
        for name in (f"rng.{rank}", f"rng.cuda.{rank}")
        if name in held
    }
    load({**state, **generators}, storage_reader=reader, process_group=group.writers)
    if (generator := generators.get(f"rng.{rank}")) is not None:
        torch.set_rng_state(generator)
    if group.device.type == "cuda" and (generator := generators.get(f"rng.cuda.{rank}")) is not None:
        torch.cuda.set_rng_state(generator, group.device)
    for name, value in read_progress(manifest["progress"]).items():
        setattr(training, name, value)
