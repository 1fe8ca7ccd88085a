"""Hugging Face datasets as text sources: saved in a folder, or on the hub at a commit."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tli.errors import DataError, Problem
from tli.places import masked_userinfo

EXTRA = "data"  # of this package, which the readers of datasets and Parquet come with
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_SECONDS = 10.0  # until the hub is taken to be out of reach
_ROWS = 64  # read at once
_SHOWN = 12  # names of fields in a message
_EXPECTED = "files, or a Hugging Face dataset by id or folder"


@dataclass(frozen=True)
class Source:
    """One source of text: its name as the user wrote it, and what of it is read.

    Attributes:
        name: a file, a glob of files, the id of a dataset on the hub, or the folder of a saved one.
        text_field: the column or key that holds the text in jsonl, parquet and datasets.
        split: the split of a dataset.
        configuration: of a dataset on the hub that has several (its subset); None for the only one.
        revision: commit, tag or branch of a dataset on the hub; None for its main branch.
        where: the setting that it came from, for messages.
    """

    name: str
    text_field: str = "text"
    split: str = "train"
    configuration: str | None = None
    revision: str | None = None
    where: str = "data.source"

    @property
    def folder(self) -> Path | None:
        """The folder that it names, if there is one: a dataset that was saved there."""
        path = at_home(self.name)
        return path if self.name and path.is_dir() else None

    @property
    def shown(self) -> str:
        """Its name for messages, without a password."""
        return repr(masked_userinfo(self.name))


def at_home(source: str) -> Path:
    """The path of a source, a home folder's `~` replaced where there is one."""
    return Path(os.path.expanduser(source))  # noqa: PTH111 - leaves an unknown `~user` as it stands


def may_be_on_the_hub(name: str) -> bool:
    """Whether a name has the form of a hub id."""
    return _HUB_ID.fullmatch(name) is not None


def commit(source: Source) -> str | None:
    """The commit that a dataset on the hub is at now; None when the hub cannot be reached.

    Asked once, without the retries of a download, so that a mistyped name is answered at once.

    Raises:
        DataError: there is no such dataset or revision on the hub, or not for this user.
    """
    revision = source.revision
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi, errors

    try:
        return HfApi().dataset_info(source.name, revision=revision, timeout=_SECONDS).sha
    except errors.HfHubHTTPError as error:
        if error.response.status_code >= 500:
            return None
        raise DataError(_refused(source, error)) from None
    except errors.HFValidationError as error:
        raise DataError(_refused(source, error)) from None
    except errors.OfflineModeIsEnabled:
        return _downloaded(source)
    # HTTPError is what the hub's client raises when a connection breaks, whichever client that is.
    except (OSError, errors.HTTPError):  # type: ignore[attr-defined]
        return None


def _downloaded(source: Source) -> str | None:
    """The commit that was downloaded last, where the offline mode of the hub's client is on."""
    if source.revision is not None:  # which commit a branch or tag stands for is not known offline
        return None
    config = import_extra("datasets", source.shown).config
    owner, _, name = source.name.rpartition("/")
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    place = Path(config.HF_DATASETS_CACHE) / (f"{owner}___{name}" if owner else name)
    found = [path for path in place.glob("*/*/*") if path.is_dir() and _COMMIT.fullmatch(path.name)]
    if source.configuration is not None:
        found = [path for path in found if path.parts[-3] == source.configuration]
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return newest.name if newest else None


def _refused(source: Source, error: Exception) -> Problem:
    from huggingface_hub import errors

    # From the special to the general: a gated repository is a kind of one that is not found.
    kinds: tuple[tuple[type[Exception], str, str], ...] = (
        (errors.GatedRepoError, "gated on the hub", "accepting its terms there and `hf auth login`"),
        (
            errors.RevisionNotFoundError,
            f"without a revision {source.revision!r}",
            "a revision that its page lists",
        ),
        (errors.RepositoryNotFoundError, "no files here, and not on the hub or private", ""),
    )
    for kind, got, remedy in kinds:
        if isinstance(error, kind):
            return Problem(source.where, f"{source.shown}, {got}", _EXPECTED, remedy)
    return Problem(source.where, f"{source.shown}, of which the hub says: {reason(error)}", _EXPECTED)


def open_dataset(source: Source) -> Any:
    """The rows of a dataset, one column of them, on disk and not in memory; downloaded first from the hub.

    Raises:
        DataError: there is none, or not this split, configuration, revision or column.
    """
    datasets = import_extra("datasets", source.shown)
    folder = at_home(source.name)
    if any(mark in str(folder) for mark in "*?[") and folder.is_dir() and not _was_saved(folder):
        got = f"{source.shown}, which the reader of datasets takes for a pattern"
        raise DataError(Problem(source.where, got, "a folder without *, ? and [ in its path", "renaming it"))
    datasets.disable_progress_bars()
    try:
        if _was_saved(folder):
            rows = datasets.load_from_disk(str(folder))
            rows = rows[source.split] if hasattr(rows, "keys") else rows
        elif folder.is_dir():
            rows = datasets.load_dataset(str(folder), split=source.split)
        else:
            rows = datasets.load_dataset(
                source.name, source.configuration, split=source.split, revision=source.revision
            )
            _require_commit(rows, source)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises a dozen kinds for one mistake
        got = f"no dataset that can be read ({reason(error)})"
        remedy = "data.configuration: NAME" if "config name" in str(error).lower() else ""
        raise DataError(Problem(source.shown, got, _EXPECTED, remedy)) from None
    need_field(source.text_field, rows.column_names, masked_userinfo(source.name))
    return rows.select_columns([source.text_field])


def _was_saved(folder: Path) -> bool:
    """Whether a folder was written by the library, and is no folder of files."""
    return any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def _require_commit(rows: Any, source: Source) -> None:
    """Refuses another commit than the one that was asked for.

    Where the hub fails, the library takes what it downloaded last, of whichever commit, and only logs that.
    """
    wanted = source.revision or ""
    files = [Path(file["filename"]) for file in rows.cache_files]
    if _COMMIT.fullmatch(wanted) and not all(wanted in file.parts for file in files):
        got = f"{source.shown}, of which commit {wanted} was not downloaded before and cannot be now"
        raise DataError(Problem(source.where, got, "a hub that can be reached", "the same command later"))


def dataset_texts(rows: Any, text_field: str) -> Iterator[Any]:
    """The values of one column, a few at a time in memory."""
    for batch in rows.iter(batch_size=_ROWS):
        yield from batch[text_field]


def need_field(text_field: str, names: list[str], where: str) -> None:
    """Refuses rows that have no column of this name."""
    if text_field not in names:
        shown = [str(name)[:60] for name in names[:_SHOWN]] + ["..."] * (len(names) > _SHOWN)
        got = f"fields {', '.join(shown) or 'nothing'}"
        raise DataError(Problem(where, got, f"text in the field {text_field!r}", "data.text_field: NAME"))


def reason(error: Exception) -> str:
    """What a library said, in one line, without passwords."""
    return masked_userinfo(" ".join((str(error) or type(error).__name__).split()))[:200]


def import_extra(module: str, where: str) -> Any:
    """A module of a library that comes with an extra of this package. Raises DataError without it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        got, remedy = f"a source that needs the `{EXTRA}` extra", f"pip install 'tli-sweeps[{EXTRA}]'"
        raise DataError(Problem(where, got, "it installed", remedy)) from None
