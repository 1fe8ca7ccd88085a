"""Finds the base model (built in, a folder, or from the Hugging Face hub) and checks it from its headers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tli.checkpoint_io import Checkpoint
from tli.config import depth_of, read_config, section_of
from tli.errors import CheckpointError, InputError, Problem
from tli.families import FAMILIES
from tli.fingerprint import fingerprint
from tli.header import BITS
from tli.places import expanded

BUILTIN = "builtin:"
_BUILTINS = Path(__file__).parent / "builtin"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_HIDDEN = ("hidden_size", "n_embd", "d_model", "emb_dim", "dim_model")
_VOCABULARY = ("vocab_size",)
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ModelWithLMHead", "WithLMHeadModel", "GenerationDecoder")


@dataclass(frozen=True)
class Facts:
    """What a person asks of a model first; from its configuration and headers."""

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
        """The same for the same model and tokenizer, wherever they lie (`tli.fingerprint`)."""
        return fingerprint(self.checkpoint)

    @cached_property
    def facts(self) -> Facts:
        """Size and shape of the model."""
        config = section_of(self.config)
        tensors = self.checkpoint.tensors
        family = FAMILIES.get(self.config.get("model_type", ""))
        buffers = tuple(f".{name}" for name in family.buffers) if family else ()
        weights = [tensor for name, tensor in tensors.items() if not (buffers and name.endswith(buffers))]
        tied = config.get("tie_word_embeddings") and "lm_head.weight" in tensors
        sizes = dict.fromkeys(BITS, 0)
        for tensor in weights:
            sizes[tensor.dtype] += tensor.count
        return Facts(
            model_type=self.config["model_type"],
            depth=depth_of(self.config, family),
            hidden_size=setting(config, *_HIDDEN),
            vocabulary=setting(config, *_VOCABULARY),
            context=setting(config, "max_position_embeddings", "n_positions", "seq_length"),
            dtype=max(sizes, key=lambda dtype: sizes[dtype]),
            parameters=sum(sizes.values()) - (tensors["lm_head.weight"].count if tied else 0),
        )


def setting(config: Mapping[str, Any], *names: str) -> Any:
    """The first of `names` that a configuration sets: architectures call the same thing differently."""
    return next((config[name] for name in names if config.get(name) is not None), None)


def find(
    model: str, *, revision: str | None = None, allow_remote_code: bool = False, where: str = "model"
) -> Base:
    """The base model that `model` names, checked from its headers; downloaded first when it is a hub id.

    Raises CheckpointError with all problems. A folder comes before a hub id of the same name.
    """
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
    from tli.hub import download

    def accept(folder: Path) -> None:
        place = f"{model}: config.json"
        problems = _config_problems(read_config(folder), place, allow_remote_code=allow_remote_code)
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
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        got = "an adapter" if adapter else "no config.json"
        problems.append(Problem(str(folder), got, "the folder of a causal language model"))
        if not any(folder.glob("*.safetensors*")):
            return problems  # no model at all: that it has no weights either is no news
    else:
        config = _collected(lambda: read_config(folder), problems) or {}
    if config:
        place = str(folder / "config.json")
        problems += _config_problems(config, place, allow_remote_code=allow_remote_code)
    checkpoint = _collected(lambda: Checkpoint.open(folder), problems)
    if checkpoint and not problems:
        problems += _layer_problems(config, checkpoint)
    return problems


def _collected(read: Callable[[], Any], problems: list[Problem]) -> Any:
    try:
        return read()
    except InputError as error:
        problems.extend(error.problems)
        return None


def _config_problems(config: dict[str, Any], where: str, *, allow_remote_code: bool) -> list[Problem]:
    """What in a configuration stands against upscaling it, whatever the architecture."""
    problems = []
    architectures = config.get("architectures") or []
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        problems.append(Problem(where, "no model_type", "a model that transformers knows"))
    if config.get("auto_map") and not allow_remote_code:
        problems.append(
            Problem(f"{where}: auto_map", "code of its own", "none", "allowing remote code, if you trust it")
        )
    if config.get("is_encoder_decoder"):
        problems.append(
            Problem(f"{where}: is_encoder_decoder", "an encoder and decoder", "a causal language model")
        )
    elif architectures and not any(_causal(str(name), model_type) for name in architectures):
        names = ", ".join(map(str, architectures))
        problems.append(Problem(f"{where}: architectures", names, "a causal language model (...ForCausalLM)"))
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    inner = section_of(config)
    sizes = {"num_hidden_layers": depth_of(config, family)}
    sizes |= {names[0]: setting(inner, *names) for names in (_HIDDEN, _VOCABULARY)}
    for name, value in sizes.items():
        if type(value) is not int or value < 1:
            got = "nothing" if value is None else repr(value)
            problems.append(Problem(f"{where}: {name}", got, "a whole number from 1"))
    return problems


def _causal(architecture: str, model_type: object) -> bool:
    """Whether a class is a causal language model; some that also see or hear are, under another ending."""
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    several = bool(family and family.layers.startswith("model.language_model."))
    return architecture.endswith((*_CAUSAL, "ForConditionalGeneration") if several else _CAUSAL)


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
    for name in checkpoint.tensors:
        if name.startswith(prefix):
            position, _, rest = name.removeprefix(prefix).partition(".")
            if position.isdecimal():
                layers.setdefault(int(position), set()).add(rest)
    predicting = section_of(config).get("num_nextn_predict_layers") or 0  # stored as layers behind the last
    behind = set(range(depth, depth + predicting))
    written = any(family.writes_residual(rest) for names in layers.values() for rest in names)
    if set(layers) - behind != set(range(depth)) or not (written or family.no_scale or family.refused):
        there = f"{len(layers)} layers" if layers and written else f"no layers under {family.layers}"
        return [Problem(where, there, f"{depth!r}, as config.json: {family.depth_keys[0]} says")]
    if family.mixed:
        return []
    every = set().union(*layers.values())
    return [
        Problem(
            f"{where}: {prefix}{position}", f"no {', '.join(sorted(every - names))}", "what other layers have"
        )
        for position, names in sorted(layers.items())
        if names != every
    ]
