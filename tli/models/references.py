"""Keys in a model's JSON files that lead transformers to another file, repository or code.

What is checked, named by its fingerprint and upscaled must be what transformers loads. So a key that names
other weights or another configuration is refused whatever the user allows, and one that brings code unless
remote code is allowed. Found by reading transformers 5.23; `tests/tli/test_references.py` lists the places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tli.errors import ENOUGH, Problem
from tli.json_files import read_json, reason_of
from tli.terminal import formatted, formatted_bare

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
# Those that transformers reads keys from which name classes, files or repositories.
READ = (
    CONFIG,
    TOKENIZER,
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
ADAPTER = "adapter_config.json"
_VERSIONED = re.compile(r"tokenizer\.[0-9.]+\.json", re.ASCII)
_PATHS = re.compile(r".*_(file|path|dir|dic|option)|vocab|merges|init_inputs")
# In place of these, which older versions left in the file, what lies in the folder is always taken.
_REPLACED = (
    "name_or_path",
    "tokenizer_file",
    "special_tokens_map_file",
    "added_tokens_file",
    "tokenizer_config_file",
    "chat_template_file",
)


@dataclass(frozen=True)
class _Row:
    """Keys at any depth of some files, when their value counts, and what it leads to."""

    keys: frozenset[str]
    files: tuple[str, ...]
    leads: Callable[[Any], bool]
    what: str
    code: bool  # what it leads to is code, which the user may allow


def _set(value: Any) -> bool:
    return value is not None


def _names_repository(value: Any) -> bool:
    """`org/kernel`, for all or for one section of the model; plain names are attention that is built in."""
    values = value.values() if isinstance(value, Mapping) else [value]
    return any(isinstance(item, str) and "/" in item for item in values)


def _names_elsewhere(value: Any) -> bool:
    """`hf-hub:org/name` or `local-dir:/path`, where a name that is built in belongs."""
    return isinstance(value, str) and (":" in value or "/" in value)


def _not_versions(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return not all(isinstance(name, str) and _VERSIONED.fullmatch(name) for name in names)


def _row(keys: str, leads: Callable[[Any], bool], what: str, *, code: bool, files: tuple[str, ...]) -> _Row:
    return _Row(frozenset(keys.split()), files, leads, what, code)


_ROWS = (
    _row("auto_map custom_pipelines", bool, "code of its own", code=True, files=READ),
    _row(
        "attn_implementation _attn_implementation _attn_implementation_internal experts_implementation"
        " _experts_implementation _experts_implementation_internal",
        _names_repository,
        "code of a repository",
        code=True,
        files=(CONFIG,),
    ),
    _row("_auto_class", _set, "code that would be saved with it", code=True, files=(CONFIG,)),
    _row("transformers_weights gguf_file", _set, "weights of another file", code=False, files=READ),
    _row("configuration_files", _set, "another configuration", code=False, files=(CONFIG,)),
    _row("use_pretrained_backbone", bool, "weights of a repository", code=False, files=(CONFIG,)),
    _row("backbone architecture", _names_elsewhere, "a model elsewhere", code=False, files=(CONFIG,)),
    _row("fast_tokenizer_files", _not_versions, "files of other names", code=False, files=(TOKENIZER,)),
)


def reference_problems(
    config: Mapping[str, Any], where: str, *, allow_remote_code: bool, file: str = CONFIG
) -> list[Problem]:
    """Keys of the content of one JSON file that lead elsewhere; `where` is what messages call the file."""
    problems: list[Problem] = []
    for path, key, value in _entries(config):
        place = f"{where}: {path}"
        for row in _ROWS:
            if key not in row.keys or file not in row.files or not row.leads(value):
                continue
            if not row.code:
                problems.append(Problem(place, row.what, "only what lies beside it under its usual name"))
            elif not allow_remote_code:
                problems.append(Problem(place, row.what, "none", "allowing remote code, if you trust it"))
        found = next(_existing(key, value), None) if file == TOKENIZER else None
        if found is not None:
            problems.append(Problem(place, f"the path {formatted(found)}", "a file beside it"))
    return problems[:ENOUGH]


def folder_problems(folder: Path, *, allow_remote_code: bool) -> list[Problem]:
    """The same for the other JSON files of a model folder, and an adapter that would be loaded on top."""
    problems: list[Problem] = []
    if (folder / ADAPTER).exists() and (folder / CONFIG).exists():
        problems.append(adapter_beside(str(folder / ADAPTER)))
    for name in READ:
        path = folder / name
        if name == CONFIG or not path.exists():
            continue
        try:
            value = read_json(path)
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), f"no JSON ({reason_of(error)})", "a JSON object"))
            continue
        if not isinstance(value, dict):
            problems.append(Problem(str(path), f"a JSON {type(value).__name__}", "a JSON object"))
            continue
        problems += reference_problems(value, str(path), allow_remote_code=allow_remote_code, file=name)
    return problems


def adapter_beside(where: str) -> Problem:
    """An adapter beside a whole model: transformers loads it on top, but only where peft is installed."""
    return Problem(where, "an adapter beside a model", "one of them", "merging it, or removing its files")


def brings_code(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a checked folder names code of its own, so that its Python files belong to the model."""
    others = [folder / name for name in READ if name != CONFIG]
    contents = [config, *(read_json(path) for path in others if path.is_file())]
    found = (entry for value in contents for entry in _entries(value))
    return any(key in ("auto_map", "custom_pipelines") and value for _, key, value in found)


def _entries(config: Any) -> Iterator[tuple[str, str, Any]]:
    """Every key at any depth, with its dotted path: a section's keys are the whole's, to transformers."""
    left: list[tuple[str, Any]] = [("", config)]
    while left:
        path, value = left.pop()
        if isinstance(value, Mapping):
            for key, inner in value.items():
                dotted = formatted_bare(f"{path}.{key}" if path else str(key))
                yield dotted, str(key), inner
                if isinstance(inner, Mapping | list):
                    left.append((dotted, inner))
        elif isinstance(value, list):
            left += [(path, inner) for inner in value if isinstance(inner, Mapping | list)]


def _existing(key: str, value: Any) -> Iterator[str]:
    """Paths in a tokenizer's settings that are there on this machine. Left-over ones of the machine that made
    the tokenizer are frequent, and lead nowhere.
    """
    tokens = key in ("vocab", "merges") and not isinstance(value, str)
    left = [value] if _PATHS.fullmatch(key) and key not in _REPLACED and not tokens else []
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield from (part for part in (item, *item.split()) if "/" in part and Path(part).exists())
        elif isinstance(item, list):
            left += item
        elif isinstance(item, Mapping):
            left += item.values()
