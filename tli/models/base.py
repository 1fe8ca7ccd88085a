"""Finds the base model (built in, a folder, or from the Hugging Face hub) and checks it from its headers."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tli.architectures.config import depth_of, read_config, section_of
from tli.architectures.lengths import context_of
from tli.architectures.table import FAMILIES
from tli.argument_types import FLAG, MODEL_NAME, STRING, require_types
from tli.checkpoint.header import BITS, TensorInfo
from tli.checkpoint.reader import INDEX, SINGLE, Checkpoint
from tli.errors import CheckpointError, InputError, Problem, Problems
from tli.models.config_checks import HIDDEN, config_problems, setting, vocabulary_of
from tli.models.fingerprint import fingerprint
from tli.models.model_files import link_problems, side_files, size_problems
from tli.models.references import ADAPTER, CONFIG, folder_problems
from tli.models.stored_shapes import shape_problems
from tli.places import expanded
from tli.terminal import formatted

BUILTIN = "builtin:"
_BUILTINS = Path(__file__).parents[1] / "builtin"
_POSITION = re.compile(r"0|[1-9][0-9]{0,8}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_HEAD = re.compile(r"(^|\.)lm_head\.weight$")
_COMPARED = 2**16  # bytes of head and embedding


@dataclass(frozen=True)
class Facts:
    """Size and shape of a model, from its configuration and headers."""

    model_type: str
    depth: int
    hidden_size: int
    vocabulary: int
    context: int | None  # tokens; None when the configuration sets no limit
    dtype: str  # of most of its elements, as safetensors writes it
    parameters: int  # tied weights once


@dataclass(frozen=True)
class Base:
    """A base model that was found and checked. `revision` is the commit, for one from the hub."""

    name: str  # as the user wrote it
    folder: Path
    revision: str | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return read_config(self.folder)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Where its tensors are. Raises CheckpointError."""
        return Checkpoint.open(self.folder)

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same model and tokenizer, wherever they lie (`tli.models.fingerprint`)."""
        return fingerprint(self.checkpoint)

    @cached_property
    def facts(self) -> Facts:
        """Size and shape of the model."""
        config = section_of(self.config)
        tensors = self.checkpoint.tensors
        family = FAMILIES.get(self.config.get("model_type", ""))
        buffers = tuple(f".{name}" for name in family.buffers) if family else ()
        weights = [tensor for name, tensor in tensors.items() if not (buffers and name.endswith(buffers))]
        sizes = dict.fromkeys(BITS, 0)
        for tensor in weights:
            sizes[tensor.dtype] += tensor.count
        return Facts(
            model_type=self.config["model_type"],
            depth=depth_of(self.config, family),
            hidden_size=setting(config, *HIDDEN),
            vocabulary=vocabulary_of(self.config),
            context=context_of(self.config),
            dtype=max(sizes, key=lambda dtype: sizes[dtype]),
            parameters=sum(sizes.values()) - _stored_twice(self.config, tensors),
        )


def _stored_twice(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> int:
    """Elements of a head that is tied to the embedding and stored beside it, as older files do.

    A configuration may ask for ties that its architecture does not make, so the first bytes decide.
    """
    tied = section_of(config).get("tie_word_embeddings", config.get("tie_word_embeddings"))
    head = next((tensor for name, tensor in tensors.items() if _HEAD.search(name)), None)
    if head is None or tied is False:
        return 0
    alike = (t for t in tensors.values() if t is not head and (t.dtype, t.shape) == (head.dtype, head.shape))
    first = next(head.pieces(_COMPARED), b"")
    return head.count if any(next(t.pieces(_COMPARED), b"") == first for t in alike) else 0


def find(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    allow_remote_code: bool = False,
    where: str = "model",
) -> Base:
    """Find a model and check it from its headers; one of the hub is downloaded first.

    Parameters
    ----------
    model : str or path-like
        A folder, a hub id, or ``builtin:tiny-llama``. A folder comes before a hub id of the same name.
    revision : str, optional
        Branch, tag or commit of a hub id.
    allow_remote_code : bool, default False
        Accept a model whose configuration asks for code of its own; it is not run here.
    where : str, default "model"
        What the messages name as the place of `model`.

    Returns
    -------
    Base
        Its folder, configuration and headers; no weight was read.

    Raises
    ------
    InputError
        With every problem: nothing there, pickles, broken headers, code, layers that are missing.

    Examples
    --------
    >>> import tli
    >>> base = tli.find("builtin:tiny-llama")
    >>> base.facts.depth, base.facts.hidden_size
    (8, 128)
    """
    require_types(
        **{where: (model, MODEL_NAME)},
        revision=(revision, STRING.optional),
        allow_remote_code=(allow_remote_code, FLAG),
    )
    model = os.fspath(model)
    folder = expanded(model, where)
    if model.startswith(BUILTIN):
        folder = _BUILTINS / model.removeprefix(BUILTIN)
        if not re.fullmatch(r"[\w-]+", model.removeprefix(BUILTIN)) or not (folder / "config.json").is_file():
            known = sorted(f"{BUILTIN}{path.parent.name}" for path in _BUILTINS.glob("*/config.json"))
            raise CheckpointError(
                Problem(where, repr(model), f"one of {', '.join(known)}", next(iter(known), ""))
            )
    elif not model or not folder.exists():
        if not _HUB_ID.fullmatch(model):
            expected = "a folder, a hub id or the built-in model"
            raise CheckpointError(
                Problem(where, f"{model!r}, which does not exist", expected, _nearest(folder))
            )
        return _from_hub(model, revision, allow_remote_code=allow_remote_code, where=where)
    if not folder.is_dir():
        raise CheckpointError(Problem(where, f"{model!r}, a file", "a model folder", str(folder.parent)))
    problems = _folder_problems(folder, allow_remote_code=allow_remote_code)
    if revision is not None:
        problems.append(Problem("revision", repr(revision), f"none, as {model} is a folder"))
    if problems:
        raise CheckpointError(*problems)
    return Base(model, folder.resolve())


def _from_hub(model: str, revision: str | None, *, allow_remote_code: bool, where: str) -> Base:
    from tli.models.hub import download

    def accept(folder: Path) -> None:
        place = f"{model}: config.json"
        problems = config_problems(read_config(folder), place, allow_remote_code=allow_remote_code)
        if problems:
            raise CheckpointError(*problems)

    folder = download(
        model,
        revision=revision,
        code=allow_remote_code,
        accept=accept,
        where=where,
        instead=_nearest(Path(model)),
    )
    problems = _folder_problems(folder, allow_remote_code=allow_remote_code)
    if problems:
        raise CheckpointError(*problems)
    return Base(model, folder, folder.name)


def _nearest(folder: Path) -> str:
    """A folder of nearly the name that was asked for; the built-in model when there is none."""
    parent = folder.parent
    names = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, names, n=1)
    return str(parent / near[0]) if near else f"{BUILTIN}tiny-llama"


def _folder_problems(folder: Path, *, allow_remote_code: bool) -> list[Problem]:
    problems: list[Problem] = []
    config: dict[str, Any] = {}
    links = link_problems(folder, _named(folder))  # before any of them is read
    if not (folder / CONFIG).is_file() and not links:
        adapter = (folder / ADAPTER).is_file()
        got = "an adapter" if adapter else "no config.json"
        problems.append(Problem(str(folder), got, "the folder of a causal language model"))
        if not any(folder.glob("*.safetensors*")):
            return problems  # no model at all: that it has no weights either is no news
    elif links:
        return links
    else:
        config = _collected(lambda: read_config(folder), problems) or {}
    if config:
        place = str(folder / CONFIG)
        problems += config_problems(config, place, allow_remote_code=allow_remote_code)
    problems += folder_problems(folder, allow_remote_code=allow_remote_code) + size_problems(folder)
    checkpoint = _collected(lambda: Checkpoint.open(folder), problems)
    if checkpoint:
        problems += link_problems(folder, [shard.file.name for shard in checkpoint.shards])
        if not problems:
            problems += _layer_problems(config, checkpoint)
            problems += shape_problems(config, checkpoint, str(folder / CONFIG))
    return problems


def _named(folder: Path) -> list[str]:
    """What of a model folder is read or copied, but for its shards, which the index names."""
    fixed = [name for name in (CONFIG, SINGLE, INDEX) if os.path.lexists(folder / name)]
    return [*fixed, *side_files(folder, code=True)]


def _collected(read: Callable[[], Any], problems: list[Problem]) -> Any:
    try:
        return read()
    except InputError as error:
        problems.extend(error.problems)
        return None


def _layer_problems(config: dict[str, Any], checkpoint: Checkpoint) -> list[Problem]:
    """Whether all layers that the configuration speaks of are there, alike, and no more. transformers would
    silently draw missing ones at random.
    """
    family = FAMILIES.get(config["model_type"])
    if family is None:
        return []
    depth = depth_of(config, family)
    where = str(checkpoint.folder)
    prefix = f"{family.stored_layers(checkpoint.tensors, depth)}."
    layers: dict[int, set[str]] = {}
    problems = Problems(where)
    for name in checkpoint.tensors:
        if name.startswith(prefix):
            position, _, rest = name.removeprefix(prefix).partition(".")
            if _POSITION.fullmatch(position):
                layers.setdefault(int(position), set()).add(rest)
            else:
                problems.add(Problem(f"{where}: {formatted(name)}", "no number of a layer", "one, from 0"))
    behind = section_of(config).get("num_nextn_predict_layers") or 0  # stored as layers behind the last
    written = any(family.writes_residual(rest) for names in layers.values() for rest in names)
    inside = sum(position < depth for position in layers)
    whole = inside == depth and max(layers, default=0) < depth + behind
    if not whole or not (written or family.no_scale or family.refused):
        got = f"{len(layers)} layers" if layers and written else f"no layers under {family.layers}"
        problems.add(Problem(where, got, f"{depth!r}, as config.json: {family.depth_keys[0]} says"))
    elif not family.mixed:
        every = set().union(*layers.values())
        for number, names in sorted(layers.items()):
            if names != every:
                got = f"no {', '.join(sorted(every - names))}"
                problems.add(Problem(f"{where}: {prefix}{number}", got, "what other layers have"))
    shown: list[Problem] = []
    _collected(problems.require, shown)
    return shown
