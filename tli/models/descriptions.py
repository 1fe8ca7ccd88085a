"""Packaged descriptions of known models: the config.json and the shapes of all tensors, without weights.

A folder of `descriptions/` for each model. `config.json` is the model's own. `tensors.json` has its id on the
hub, the commit that was described, the type of its elements and each tensor's shape; `{16}` in a name stands
for the numbers from 0 to 15, as layers are alike. Sizes and costs come from these alone; what needs a weight
does not.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tli.argument_types import FLAG, MODEL_NAME, STRING, require_types
from tli.checkpoint.header import BITS, TensorInfo
from tli.checkpoint.reader import INDEX, SINGLE, Checkpoint
from tli.json_files import read_json
from tli.models.base import Base, find
from tli.models.references import CONFIG
from tli.places import expanded

_FOLDER = Path(__file__).parent / "descriptions"
_TENSORS = "tensors.json"
_REPEATED = re.compile(r"\{(\d+)\}")


@dataclass(frozen=True)
class Description(Base):
    """A model of which configuration and shapes are known, and no weight; `revision` was described."""

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Names, types and shapes of its tensors; their bytes are in no file."""
        content = _content(self.folder)
        nowhere = self.folder / SINGLE
        bits, tensors, start = BITS[content["dtype"]], {}, 0
        for name, shape in _every(content["tensors"]):
            end = start + math.prod(shape) * bits // 8
            tensors[name] = TensorInfo(name, content["dtype"], tuple(shape), nowhere, start, end)
            start = end
        return Checkpoint(self.folder, (), tensors)


def packaged() -> tuple[str, ...]:
    """Ids on the hub of all models that are described, by the names of their descriptions."""
    return tuple(_by_id())


def described(model: str) -> Description | None:
    """The description of a model by its id on the hub, or by its own name, `llama-3.2-1b`; or None."""
    folder = _by_id().get(model) or next((each for each in _by_id().values() if each.name == model), None)
    return None if folder is None else Description(model, folder, _content(folder)["revision"])


def find_or_described(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    allow_remote_code: bool = False,
    where: str = "model",
) -> Base:
    """What `find` gives, without a download for a model that is described.

    For what needs sizes and no weights. A folder, or weights that were downloaded before, come first.

    Raises:
        InputError: what `find` refuses.
    """
    require_types(
        **{where: (model, MODEL_NAME)},
        revision=(revision, STRING.optional),
        allow_remote_code=(allow_remote_code, FLAG),
    )
    name = os.fspath(model)
    known = _by_id().get(name)
    if known is None or expanded(name, where).exists() or _downloaded(name, revision):
        return find(model, revision=revision, allow_remote_code=allow_remote_code, where=where)
    return Description(name, known, _content(known)["revision"])


def _downloaded(model: str, revision: str | None) -> bool:
    """Whether weights of a model of the hub are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    names = (SINGLE, INDEX)
    return any(isinstance(try_to_load_from_cache(model, name, revision=revision), str) for name in names)


@cache
def _by_id() -> Mapping[str, Path]:
    folders = sorted(path.parent for path in _FOLDER.glob(f"*/{CONFIG}"))
    return {_content(folder)["hub"]: folder for folder in folders}


@cache
def _content(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(folder / _TENSORS)
    return content


def _every(tensors: Mapping[str, list[int]]) -> Iterator[tuple[str, list[int]]]:
    for name, shape in tensors.items():
        repeated = _REPEATED.search(name)
        if repeated is None:
            yield name, shape
        else:
            before, after = name[: repeated.start()], name[repeated.end() :]
            yield from ((f"{before}{index}{after}", shape) for index in range(int(repeated[1])))
