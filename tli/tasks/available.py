"""Tasks by name: which there are, and why some cannot be evaluated here; the harness is asked last.

KoBEST's official files need nothing of the harness to be looked at, so that a check stays quick.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from tli.errors import InputError, Problem
from tli.json_files import read_bounded
from tli.places import expanded
from tli.tasks.kobest import KOBEST, documents, files_of

GROUP = "kobest"  # all five
EXTRA = "pip install 'tli-sweeps[eval]'"
_HUB = "skt/kobest_v1"
_YAML = ("*.yaml", "*.yml")
_ALIKE = 0.85  # of a misspelt name and what it means; no two tasks of the harness are so near KoBEST's
_LIMIT = 1_000_000  # bytes of a task file
_TASK = re.compile(r"^task:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """Which tasks a model is scored on, and how.

    Attributes:
        tasks: names, in order; `kobest` stands for its five.
        shots: solved examples before each document.
        limit: documents of each task at most, the first ones; None for all.
        tasks_from: a folder of task files, or of KoBEST's official TSV files; None for the hub.
    """

    tasks: tuple[str, ...]
    shots: int = 5
    limit: int | None = None
    tasks_from: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, each once, the five of KoBEST in the place of their group."""
        found = [each for name in self.tasks for each in (KOBEST if name == GROUP else (name,))]
        return tuple(dict.fromkeys(found))

    @cached_property
    def folder(self) -> Path | None:
        """The folder of local tasks."""
        return None if self.tasks_from is None else expanded(self.tasks_from, "tasks_from")

    @property
    def official(self) -> tuple[str, ...]:
        """Those that official files are there for, and no task file of the same name."""
        if self.folder is None:
            return ()
        own = set(self.written)
        return tuple(
            name for name in self.names if name in KOBEST and name not in own and self._has_folder(name)
        )

    @property
    def others(self) -> tuple[str, ...]:
        """Those whose data the harness finds by itself."""
        official = self.official
        return tuple(name for name in self.names if name not in official)

    @cached_property
    def written(self) -> dict[str, Path]:
        """The task files of the folder, by the name of their task."""
        if self.folder is None:
            return {}
        found = {}
        for path in sorted(each for pattern in _YAML for each in self.folder.rglob(pattern)):
            try:
                match = _TASK.search(read_bounded(path, _LIMIT).decode("utf-8"))
            except (OSError, ValueError):
                continue
            if match:
                found[match[1]] = path
        return found

    def meant(self, name: str) -> str:
        """The task that a misspelt name means, of those that are known without the harness; else the name."""
        known = [*KOBEST, *self.written]
        return name if name in known else next(iter(difflib.get_close_matches(name, known, 1, _ALIKE)), name)

    def _has_folder(self, name: str) -> bool:
        return self.folder is not None and (self.folder / KOBEST[name].folder).is_dir()


def installed() -> bool:
    """Whether the harness is."""
    return find_spec("lm_eval") is not None


def missing_extra(where: str) -> Problem:
    """What to install."""
    return Problem(where, "no lm-evaluation-harness here", "the extra `eval`, which scores tasks", EXTRA)


def local_problems(wanted: Wanted, where: str = "tasks") -> list[Problem]:
    """Why these tasks cannot be evaluated, as far as that is known without the harness: all at once.

    Args:
        wanted: names, shots and where their data is.
        where: what the names are called in problems; `shots` and `tasks_from` are called so beside it.
    """
    problems = [] if installed() else [missing_extra(where)]
    if wanted.folder is not None and not wanted.folder.is_dir():
        expected = "a folder of task files, or of KoBEST's TSV files"
        place = f"{where.removesuffix('tasks')}tasks_from"
        return [*problems, Problem(place, f"{str(wanted.folder)!r}, which is none", expected)]
    for name in wanted.official:
        problems += _official_problems(name, wanted, where)
    if not installed():
        problems += unknown_problems(wanted.others, [*KOBEST, *wanted.written], wanted, where, sure=False)
    return problems


def _official_problems(name: str, wanted: Wanted, where: str) -> Iterator[Problem]:
    assert wanted.folder is not None
    files = files_of(name, wanted.folder)
    if "test" not in files:
        folder = wanted.folder / KOBEST[name].folder
        yield Problem(
            where, f"{name}, without {folder}/test.tsv", "the official files", download(name, wanted)
        )
        return
    counts: dict[str, int] = {}
    for split, path in files.items():
        try:
            counts[split] = len(documents(name, path))
        except InputError as error:
            yield from error.problems
    examples = next((split for split in ("train", "validation") if split in files), None)
    if wanted.shots and examples is None:
        folder = wanted.folder / KOBEST[name].folder
        yield Problem(
            where, f"{name}, without examples for shots", f"{folder}/train.tsv or dev.tsv", "shots: 0"
        )
    elif examples in counts and wanted.shots > counts[examples]:
        yield too_many(name, wanted, counts[examples], where)


def too_many(name: str, wanted: Wanted, count: int, where: str) -> Problem:
    """More shots than there are examples."""
    beside = where.removesuffix("tasks")
    return Problem(
        f"{beside}shots", f"{wanted.shots}", f"at most {count}, the examples of {name}", str(count)
    )


def download(name: str, wanted: Wanted) -> str:
    """What to download for a task, and where to put it."""
    if name not in KOBEST:
        return "its data set in the hub's cache, or a task file in tasks_from"
    root = wanted.folder or Path("FOLDER")
    places = f"train.tsv, dev.tsv and test.tsv of {KOBEST[name].folder} as {root}/{KOBEST[name].folder}/"
    cached = f"`hf download {_HUB} --repo-type dataset`"
    return f"{places}, with tasks_from: {root}; or {cached} where there is a network"


def unknown_problems(
    names: Sequence[str], known: Sequence[str], wanted: Wanted, where: str, *, sure: bool = True
) -> Iterator[Problem]:
    """Names that are no task, with the nearest that is; without the harness only those that are near one."""
    for name in names:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        if sure or near:
            index = next((i for i, each in enumerate(wanted.tasks) if each == name), None)
            place = where if index is None else f"{where}[{index}]"
            yield Problem(place, repr(name), "a task that the harness knows, or of tasks_from", *near)
