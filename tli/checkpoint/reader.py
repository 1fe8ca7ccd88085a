"""Reads a model folder from its safetensors headers: all tensors by name, without loading one.

The index of a sharded model is input from outside, as the headers are (`tli.checkpoint.header`): its shards
must lie beside it, and it and they must agree on where every tensor is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tli.checkpoint.header import Shard, TensorInfo, read_header
from tli.errors import CheckpointError, Problem, Problems
from tli.json_files import read_json, reason_of
from tli.terminal import formatted

__all__ = ["INDEX", "SINGLE", "Checkpoint", "Shard", "TensorInfo", "read_header", "read_index"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LIMIT = 50_000_000  # bytes of an index; the largest models have some ten
# Beside a file of such a name, transformers loads all of a folder as one distributed checkpoint.
_DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a model folder, by name."""

    folder: Path
    shards: tuple[Shard, ...]
    tensors: Mapping[str, TensorInfo]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Reads and checks all headers of `folder`. Raises CheckpointError with every problem, by file.

        Reads what transformers would: one file before an index, and nothing else that lies beside.
        """
        distributed = next(filter(_DISTRIBUTED.match, sorted(_names(folder))), None)
        if distributed is not None:
            got = "a distributed checkpoint, which would be loaded instead"
            raise CheckpointError(Problem(str(folder / distributed), got, f"{SINGLE} or {INDEX} alone"))
        if (folder / SINGLE).exists() or not (folder / INDEX).exists():
            if not (folder / SINGLE).exists():
                raise CheckpointError(_no_weights(folder))
            shard = read_header(folder / SINGLE)
            return cls(folder, (shard,), {tensor.name: tensor for tensor in shard.tensors})
        weight_map = read_index(folder / INDEX)
        shards: list[Shard] = []
        problems = Problems(str(folder))
        for name in sorted(set(weight_map.values())):
            try:
                shards.append(read_header(folder / name))
            except CheckpointError as error:
                for problem in error.problems:
                    problems.add(problem)
        problems.require()
        _compare(folder / INDEX, weight_map, shards)
        tensors = {tensor.name: tensor for shard in shards for tensor in shard.tensors}
        return cls(folder, tuple(shards), tensors)

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def read_index(path: Path) -> dict[str, str]:
    """The `weight_map` of an index: tensor name to the plain name of a file beside it.

    Raises CheckpointError.
    """
    where = str(path)
    try:
        index = read_json(path, _LIMIT)
    except (OSError, ValueError) as error:
        reason = f"no index ({reason_of(error)})"
        raise CheckpointError(Problem(where, reason, "JSON with a weight_map")) from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(Problem(where, "no weight_map", "one that names the file of every tensor"))
    problems = Problems(where)
    for name in dict.fromkeys(formatted(name) for name in weight_map.values() if not _plain(name)):
        problems.add(Problem(where, f"{name} as a file", "a safetensors file beside it"))
    problems.require()
    return weight_map


def _plain(name: Any) -> bool:
    beside = isinstance(name, str) and not set(name) & {"/", "\\", ":"} and name.isprintable()
    return beside and name.endswith(".safetensors")


def _compare(index: Path, weight_map: Mapping[str, str], shards: list[Shard]) -> None:
    """The index against the shards: every tensor once, and where it is said to be."""
    problems = Problems(str(index))
    found: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            place = f"{shard.file}: {formatted(tensor.name)}"
            if tensor.name in found:
                problems.add(Problem(place, f"a tensor that is in {found[tensor.name]} too", "it once"))
            elif weight_map.get(tensor.name) != shard.file.name:
                problems.add(Problem(place, "a tensor that the index does not put there", f"it in {index}"))
            found[tensor.name] = shard.file.name
    for name, file in weight_map.items():
        if name not in found:
            got = f"{formatted(name)} in {file}, which lacks it"
            problems.add(Problem(str(index), got, "a tensor that is there"))
    problems.require()


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _no_weights(folder: Path) -> Problem:
    names = sorted(_names(folder))
    pickles = [name for name in names if name.endswith(_PICKLES) and not name.startswith("training_args")]
    if "adapter_model.safetensors" in names:
        return Problem(str(folder), "an adapter", "a whole model", "merging it into its base and saving that")
    if pickles:
        remedy = "save_pretrained of the model, on a machine that may run its pickles"
        return Problem(str(folder / pickles[0]), "weights as a pickle", "safetensors", remedy)
    others = [name for name in names if name.endswith((".safetensors", ".gguf"))]
    got = f"only {', '.join(others)}" if others else "no weights"
    return Problem(str(folder), got, f"{SINGLE} or {INDEX}", "a folder that save_pretrained wrote")
