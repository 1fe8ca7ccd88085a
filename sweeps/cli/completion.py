"""What the shell may complete: specs, sweeps and settings by name. Reads names of files alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Completer = Callable[..., list[str]]
_TRIAL = "trial."


def specs(prefix: str, **_: Any) -> list[str]:
    """The packaged specs, and the YAML files and folders that a path may go on with."""
    from sweeps.spec.packaged_specs import packaged

    return [*packaged(), *_files(prefix)]


def sweeps(prefix: str, *, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The sweeps under the folder of all results; files that a spec may be in where no sweep is meant."""
    from sweeps.ownership import names_under

    runs = Path(parsed_args.runs or "runs").expanduser()
    return [name for name in names_under(runs) if name.startswith(prefix)] or [*_files(prefix)]


def settings(**_: Any) -> list[str]:
    """Dotted paths of a spec's settings, for `--set`."""
    return [f"{path}=" for path in setting_paths()]


def trial_settings(**_: Any) -> list[str]:
    """Dotted paths of a trial's settings, for `--by`."""
    return [path.removeprefix(_TRIAL) for path in setting_paths() if path.startswith(_TRIAL)]


def setting_paths() -> list[str]:
    """The dotted paths of a spec's settings; the models, which have them too, take long to import."""
    from sweeps.spec.meanings import MEANINGS

    sections = {path.rpartition(".")[0] for path in MEANINGS} | {"search"}
    return [path for path in MEANINGS if path not in sections]


def _files(prefix: str) -> Iterator[str]:
    folder, _, start = prefix.rpartition("/")
    place = Path(folder or ("/" if prefix.startswith("/") else ".")).expanduser()
    try:
        found = sorted(place.iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(start) and (path.name[:1] != "." or start):
            if path.is_dir():
                yield f"{folder}/{path.name}/" if "/" in prefix else f"{path.name}/"
            elif path.suffix in (".yaml", ".yml"):
                yield f"{folder}/{path.name}" if "/" in prefix else path.name
