"""Checks of text sources by name, size and kind, without reading them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tli.data import corpus
from tli.data.corpus import matches, matching_files
from tli.data.dataset import Source
from tli.data.manifests import on_the_hub
from tli.errors import Problem
from tli.files import reader
from tli.places import is_address, means_null

if TYPE_CHECKING:
    from tli.data.settings import DataSettings

_KINDS = {
    stat.S_ISFIFO: "a pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}
_OF_DATASETS = ("configuration", "revision", "heldout_split", "heldout_configuration", "heldout_revision")


def source_problems(settings: DataSettings, where: str = "data") -> list[Problem]:
    """What is wrong with the sources; nothing is read, and the hub is not asked."""
    problems: list[Problem] = []
    for source in settings.sources:
        field = source.where.rpartition(".")[2]
        problems += name_problems(source.name, f"{where}.{field}", needed=field == "source")
    problems += _overlap(settings, where)
    problems += _without_meaning(settings, where)
    return problems


def name_problems(source: str, place: str, *, needed: bool = True) -> Iterator[Problem]:
    """What is wrong with the name of one source; `needed`: null will not do in its place."""
    if source == corpus.STDLIB:
        return
    shown = Source(source).shown
    if source.startswith("builtin:"):
        yield Problem(place, shown, f"a built-in text: {corpus.STDLIB}", corpus.STDLIB)
        return
    if is_address(source):
        yield Problem(place, f"{shown}, an address", "files, or a dataset by id or folder", "downloading it")
        return
    found = matches(source)
    files = [path for path in found if path.is_file()]
    if means_null(source) and not found:
        expected = "files, or a dataset by id or folder" if needed else "null, or files, or a dataset"
        yield Problem(place, f"the text {shown}", expected, corpus.STDLIB if needed else "null")
        return
    yield from _unlimited(found, place)
    if not found and corpus.names_files(source):
        yield Problem(place, f"{shown}, which matches no file", "files that exist", f"ls {source}")
    elif not files and corpus.names_files(source) and not Source(source).folder:
        yield Problem(place, f"{shown}, which matches no regular file", "files of text", f"ls -l {source}")
    yield from (
        Problem(place, f"{str(file)!r}", f"one of {', '.join(corpus.SUFFIXES)}", "convert it to jsonl")
        for file in files
        if file.suffix not in corpus.SUFFIXES
    )
    if files and all(_is_blank(file) for file in files):
        yield Problem(place, f"{shown}, which is empty", "text", "another file")


def _unlimited(found: list[Path], place: str) -> Iterator[Problem]:
    """What may have no end, or make its reader wait for ever."""
    for path in found:
        mode = path.stat().st_mode if path.exists() else 0
        kind = next((word for is_kind, word in _KINDS.items() if is_kind(mode)), None)
        if kind is not None:
            yield Problem(place, f"{str(path)!r}, {kind}", "a regular file", "writing its text to a file")


def _is_blank(path: Path) -> bool:
    """Whether a file holds nothing but white space; only small ones are looked into."""
    try:
        size = path.stat().st_size
        if 0 < size < 65_536:
            with reader(path) as file:
                return not file.read(65_536).strip()
        return size == 0
    except OSError:
        return False  # told of when it is read


def _overlap(settings: DataSettings, where: str) -> list[Problem]:
    if settings.heldout is None or corpus.STDLIB in (settings.source, settings.heldout):
        return []
    shared = {path.resolve() for path in matching_files(settings.source)}
    shared &= {path.resolve() for path in matching_files(settings.heldout)}
    return [
        Problem(
            f"{where}.heldout", f"{str(path)!r}, which is also trained on", "text of its own", "another file"
        )
        for path in sorted(shared)
    ]


def _without_meaning(settings: DataSettings, where: str) -> Iterator[Problem]:
    """Settings of datasets where the source is none."""
    for name in _OF_DATASETS:
        value = getattr(settings, name)
        source = settings.heldout_source if name.startswith("heldout_") else settings.train_source
        if value is None:
            continue
        if source is None:
            yield Problem(f"{where}.{name}", repr(value), f"null, as {where}.heldout is null", "null")
        elif not (on_the_hub(source) or (name == "heldout_split" and source.folder)):
            expected = f"null, as {source.shown} is no dataset on the hub"
            yield Problem(f"{where}.{name}", repr(value), expected, "null")
