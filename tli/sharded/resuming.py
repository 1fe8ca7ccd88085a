"""Takes up a training state of any number of ranks, or of one process, by any number of ranks or by one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from tli.json_files import read_json
from tli.sharded.processes import Group
from tli.sharded.rows import local_of, own_rows, sharded
from tli.sharded.state_folders import MANIFEST, digest_of, exchanged
from tli.training.moments import make_moments, moment_tensors, moment_types, trained
from tli.training.ranks import ALONE
from tli.training.state import checked_file, load_file, read_progress
from tli.training.state_names import by_ranks, states_of, step_and_digest

if TYPE_CHECKING:
    from tli.training.loop import Training

_FILE = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_LIMIT = 100_000_000  # bytes of a manifest


def load_latest_sharded(training: Training, folder: Path, group: Group | None, owner: str = "") -> bool:
    """Put the newest good state of a folder into a training of the same model and recipe; every rank does.

    The state may be of another number of ranks, or of one process. Random numbers go on where this rank was
    one of those; a new one starts from its own seed.

    Args:
        training: untouched where there is none.
        folder: of states, this training's and others'.
        group: of the ranks; None for one process that has the whole model.
        owner: whose states are looked at.

    Returns:
        Whether there was one.
    """
    ranks = ALONE if group is None else group.ranks
    found = [path.name for path in states_of(folder, owner)] if ranks.rank == 0 else []
    for name in exchanged(group, found)[0]:
        path = folder / name
        if by_ranks(path):
            if _taken_up(training, path, group, owner):
                return True
        elif group is None:
            if load_file(training, path, owner):
                return True
        elif _file_taken_up(training, path, group, owner):
            return True
    return False


def _taken_up(training: Training, path: Path, group: Group | None, owner: str) -> bool:
    manifest = _checked(training, path, group, owner)
    # Whether a state is taken up is one decision of all ranks.
    if not all(exchanged(group, manifest is not None)):
        return False
    assert manifest is not None
    _load(training, path, manifest, group)
    return True


def _checked(training: Training, path: Path, group: Group | None, owner: str) -> dict[str, Any] | None:
    """The manifest of a state that fits this training and is whole; None where it is not, as this rank sees
    it.

    Each rank reads and hashes its share of the files.
    """
    try:
        if path.is_symlink():
            return None
        manifest = read_json(path / MANIFEST, _LIMIT)
        files = manifest["files"]
        if manifest["owner"] != owner or not all(_FILE.fullmatch(name) for name in files):
            return None
        progress = read_progress(manifest["progress"])
        names, step = sorted(files), step_and_digest(path)[0]
        if progress["step"] != step or {f.name for f in path.glob("*.safetensors")} != set(names):
            return None
        ranks = ALONE if group is None else group.ranks
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
    """Whether a state has the tensors that this training moves, and no moment of another shape."""
    held = _tensors(HuggingFaceStorageReader(str(path)))
    for name, parameter in trained(training):
        wanted = {f"model.{name}": (parameter.dtype, tuple(parameter.shape))}
        if name in manifest["optimizer_steps"]:
            wanted |= moment_types(training, name, parameter)
        for key, kind in wanted.items():
            tensor = held.get(key)
            if tensor is None or (tensor.properties.dtype, tuple(tensor.size)) != kind:
                return False
    models = {f"model.{name}" for name, _ in trained(training)}
    return {key for key in held if key.startswith("model.")} == models


def _load(training: Training, path: Path, manifest: dict[str, Any], group: Group | None) -> None:
    reader = HuggingFaceStorageReader(str(path))
    rank, held = 0 if group is None else group.ranks.rank, _tensors(reader)
    state: dict[str, Tensor] = {}
    training.optimizer.state.clear()
    for name, parameter in trained(training):
        state[f"model.{name}"] = parameter.detach()
        if name in manifest["optimizer_steps"]:
            make_moments(training, parameter, torch.tensor(float(manifest["optimizer_steps"][name])))
            kinds = moment_types(training, name, parameter)
            for key, local in moment_tensors(training, name, parameter).items():
                state[key] = local if group is None else sharded(local, kinds[key][1], group)
    generators = {
        name: torch.empty(held[name].size, dtype=torch.uint8)
        for name in (f"rng.{rank}", f"rng.cuda.{rank}")
        if name in held
    }
    among = {"no_dist": True} if group is None else {"process_group": group.writers}
    load({**state, **generators}, storage_reader=reader, **among)
    _go_on(training, read_progress(manifest["progress"]), generators, rank)


def _file_taken_up(training: Training, path: Path, group: Group, owner: str) -> bool:
    """The same for a state of one process: each rank reads its rows."""
    # One rank reads all of it for its digest; every one looks whether it fits.
    progress = checked_file(training, path, owner, hashed=group.ranks.rank == 0)
    if not all(exchanged(group, progress is not None)):
        return False
    assert progress is not None
    training.optimizer.state.clear()
    with safe_open(str(path), framework="pt") as state, torch.no_grad():
        names = set(state.keys())

        def fill(local: Tensor, count: int, name: str) -> None:
            low, high = own_rows(count, group.ranks)
            if low < high:
                local.copy_(state.get_slice(name)[low:high])

        for name, parameter in trained(training):
            fill(local_of(parameter.detach()), len(parameter), f"model.{name}")
            if f"optimizer.step.{name}" not in names:
                continue
            make_moments(training, parameter, state.get_tensor(f"optimizer.step.{name}"))
            for key, local in moment_tensors(training, name, parameter).items():
                fill(local, len(parameter), key)
        own = ("rng", "rng.cuda") if group.ranks.rank == 0 else ()
        generators = {f"{name}.0": state.get_tensor(name) for name in own if name in names}
    _go_on(training, progress, generators, group.ranks.rank)
    return True


def _go_on(training: Training, progress: dict[str, Any], generators: dict[str, Tensor], rank: int) -> None:
    """Set what a training has beside its tensors."""
    if (generator := generators.get(f"rng.{rank}")) is not None:
        torch.set_rng_state(generator)
    device = next(training.model.parameters()).device
    if device.type == "cuda" and (generator := generators.get(f"rng.cuda.{rank}")) is not None:
        torch.cuda.set_rng_state(generator, device)
    for name, value in progress.items():
        setattr(training, name, value)
