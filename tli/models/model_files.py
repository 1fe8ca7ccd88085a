"""The files of a model beside its weights: one list for download, upscaling, export and verification.

They are the tokenizer, chat templates, processors, generation settings and the licence. Not among them are
weights and their index, which are found and written by themselves; weights of other formats and what speaks
of them; the model card, training arguments and whatever else describes the old model and its depth; and code,
unless the model was allowed to bring some.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tli.architectures.config import DEPTH_KEYS
from tli.errors import CheckpointError, Problem
from tli.json_files import read_json

# In the order in which they enter the fingerprint: every name that a tokenizer of transformers reads.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
_TOKENIZER_PATTERNS = (
    "tokenizer.*.json",
    "*.model",
    "*.model.v*",
    "*.spm",
    "*.tiktoken",
    "*.tokenizer",
    "tekken.json",
    "bpe.codes",
    "dict.txt",
    "emoji.json",
    "normalizer.json",
    "byte_maps.json",
    "word_shape.json",
    "word_pronunciation.json",
    "entity_vocab.json",
    "target_vocab.json",
    "vocab-*.json",
)
TOKENIZER_LIMIT = 200_000_000  # bytes; the largest have some ten million
TEMPLATES, CUSTOM = "additional_chat_templates", "custom_generate"
_BELONGS = (*TOKENIZER_FILES, *_TOKENIZER_PATTERNS, "*.json", "*.txt", "*.jinja", f"{TEMPLATES}/*.jinja")
_LEGAL = ("licen[cs]e*", "notice*", "copying*", "copyright*", "*use_policy*", "*use-policy*", "third_party*")
_CODE = ("*.py", f"{CUSTOM}/*.py", f"{CUSTOM}/requirements.txt")
_DESCRIBES_THE_OLD = (
    "config.json",  # written anew
    "config.*.json",  # the same for other versions of transformers
    "lineage.json",  # written anew
    "*.index.json",
    "readme*",  # the model card: its figures are another model's
    "params.json",  # of another program, with a number of layers
    "quantize_config.json",  # of quantised weights, as config.json says it too, by the number of a layer
    "quant_config.json",
    "hf_quant_config.json",
    "adapter_*",
    "*consolidated*",
    "training*.json",
    "training_args*",
    "trainer_state.json",
    "*_results.json",
    "optimizer*",
    "scheduler*",
    "rng_state*",
    "requirements.txt",
)
_SMALL = 1_000_000  # bytes of a JSON file that is looked into


def belongs(name: str, *, code: bool = False) -> bool:
    """Whether a file of this name, relative to the model's folder with slashes, goes where the model goes."""
    lower = name.lower()
    if code and any(fnmatchcase(name, pattern) for pattern in _CODE):
        return name.count("/") <= 1
    if any(fnmatchcase(lower, pattern) for pattern in _DESCRIBES_THE_OLD):
        return False
    if "/" in name:
        return fnmatchcase(name, f"{TEMPLATES}/*.jinja") and name.count("/") == 1
    return any(fnmatchcase(name, pattern) for pattern in _BELONGS) or any(
        fnmatchcase(lower, pattern) for pattern in _LEGAL
    )


def side_files(folder: Path, *, code: bool = False) -> list[str]:
    """Names, relative with slashes and sorted, of the files of a folder that belong to its model."""
    return [
        name for name in _names(folder) if belongs(name, code=code) and not _tells_depth(folder / name, name)
    ]


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that a tokenizer may be made of: what is in them decides which token a text becomes."""
    known = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    others = [name for name in _names(folder) if "/" not in name and name not in TOKENIZER_FILES]
    return known + [
        folder / name
        for name in others
        if any(fnmatchcase(name, pattern) for pattern in _TOKENIZER_PATTERNS) and belongs(name)
    ]


def copy_side_files(source: Path, target: Path, *, code: bool = False) -> None:
    """Copies what belongs to the model into a folder that is being written.

    Raises CheckpointError for a link that leads out of the source.
    """
    names = side_files(source, code=code)
    problems = link_problems(source, names)
    if problems:
        raise CheckpointError(*problems)
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, target / name)


def size_problems(folder: Path) -> list[Problem]:
    """Files of a tokenizer that are larger than any is, which would be read whole when it is loaded."""
    return [
        Problem(str(path), f"a file of {path.stat().st_size:,} bytes", f"at most {TOKENIZER_LIMIT:,}")
        for path in tokenizer_files(folder)
        if path.stat().st_size > TOKENIZER_LIMIT
    ]


def link_problems(folder: Path, names: Iterable[str]) -> list[Problem]:
    """Links among `names` that lead out of the folder, and out of the hub's store for a snapshot in it.

    Their content would be copied into a folder that is meant to be published.
    """
    root = Path(os.path.realpath(folder))
    inside = [root]
    if root.parent.name == "snapshots":  # of the hub's cache: models--org--name/snapshots/<commit>
        inside.append(root.parent.parent / "blobs")
    problems = []
    for name in names:
        target = Path(os.path.realpath(folder / name))
        if not any(target.is_relative_to(place) for place in inside):
            got = f"a link to {target}"
            problems.append(Problem(str(folder / name), got, "a file in the model's folder", "a copy of it"))
        elif not target.is_file():
            problems.append(Problem(str(folder / name), "a link to no file", "a file"))
    return problems


def _names(folder: Path) -> Iterator[str]:
    """Files and links right in the folder and in the subfolders that may hold some, relative and sorted."""
    found = []
    for inner in ("", f"{TEMPLATES}/", f"{CUSTOM}/"):
        if (folder / inner).is_dir():
            paths = (folder / inner).iterdir()
            found += [f"{inner}{path.name}" for path in paths if path.is_file() or path.is_symlink()]
    return iter(sorted(found))


def _tells_depth(path: Path, name: str) -> bool:
    """Whether a JSON file states a number of layers: another configuration, or one of another program."""
    if not name.endswith(".json") or "/" in name or name in TOKENIZER_FILES:
        return False
    try:
        value = read_json(path, _SMALL)
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and any(isinstance(value.get(key), int) for key in DEPTH_KEYS)
