"""Downloads a model from the Hugging Face hub at a recorded commit, weights and what belongs to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tli.checkpoint.reader import INDEX, SINGLE, read_index
from tli.errors import CheckpointError, Problem
from tli.models.licence import CARD
from tli.models.model_files import belongs
from tli.models.references import ADAPTER, CONFIG, adapter_beside


def download(
    model: str,
    *,
    revision: str | None,
    code: bool,
    accept: Callable[[Path], None],
    where: str,
    instead: str,
) -> Path:
    """The snapshot of `model`; the name of the returned folder is its commit.

    `accept` is called with a folder that holds the configuration and raises to refuse it: what is
    refused should not cost the download of the weights. `code` asks for Python files too. `instead` is the
    remedy shown when nothing can be downloaded. Raises CheckpointError.
    """
    from huggingface_hub import errors, hf_hub_download, snapshot_download

    try:
        listed = _listed(model, revision)
        offline = listed is None
        commit, names = listed or (revision, [])
        config = hf_hub_download(model, CONFIG, revision=commit, local_files_only=offline)
        folder = Path(config).parent
        accept(folder)
        if ADAPTER in names:
            raise CheckpointError(adapter_beside(f"{model}: {ADAPTER}"))
        if offline:
            return Path(snapshot_download(model, revision=folder.name, local_files_only=True))
        weights = {SINGLE}
        if SINGLE not in names and INDEX in names:
            weights = {INDEX, *read_index(Path(hf_hub_download(model, INDEX, revision=commit))).values()}
        wanted = [name for name in names if name in weights or name == CARD or belongs(name, code=code)]
        patterns = [_exactly(name) for name in (CONFIG, *wanted)]
        return Path(snapshot_download(model, revision=folder.name, allow_patterns=patterns))
    # HTTPError is what the hub's client raises when a connection breaks, whichever client that is.
    except (errors.HFValidationError, OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        raise CheckpointError(_refused(model, revision, error, where, instead)) from None


def _exactly(name: str) -> str:
    """A pattern that matches this name alone; a pattern that ends in a slash would match a folder."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _listed(model: str, revision: str | None) -> tuple[str, list[str]] | None:
    """The commit that a revision stands for now, and its files; None when the hub cannot be reached.

    Asked once and without the retries of a download, so that a mistyped name on a machine without network is
    answered at once; what was downloaded before is then taken from the cache.
    """
    from huggingface_hub import HfApi, errors

    try:
        info = HfApi().model_info(model, revision=revision, timeout=10)
    except errors.HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        return None
    except (errors.OfflineModeIsEnabled, errors.HTTPError):  # type: ignore[attr-defined]
        return None
    return (info.sha, [file.rfilename for file in info.siblings or ()]) if info.sha else None


def _refused(model: str, revision: str | None, error: Exception, where: str, instead: str) -> Problem:
    """A refused or failed download in one line."""
    from huggingface_hub import errors

    expected = "a folder, a hub id or the built-in model"
    named = "/" in model and instead.startswith("builtin:")  # an owner's; no folder has nearly this name
    if isinstance(error, errors.LocalEntryNotFoundError):
        offline = "no folder here, not downloaded before, and the hub cannot be reached"
        elsewhere = f"`hf download {model}` where there is a network, and the folder that it gives"
        return Problem(where, f"{model!r}, {offline}", expected, elsewhere if named else instead)
    # From the special to the general: a gated repository is a kind of one that is not found.
    kinds: tuple[tuple[type[Exception], str, str], ...] = (
        (errors.GatedRepoError, "gated on the hub", "accepting its terms there and `hf auth login`"),
        (errors.RevisionNotFoundError, f"without a revision {revision!r}", "a revision that its page lists"),
        (
            errors.RepositoryNotFoundError,
            "no folder here, and not on the hub or private",
            "the name that its page has; of a private one `hf auth login`" if named else instead,
        ),
        (errors.EntryNotFoundError, "without a config.json on the hub", "another model"),
    )
    for kind, got, remedy in kinds:
        if isinstance(error, kind):
            return Problem(where, f"{model!r}, {got}", expected, remedy)
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if status in (401, 403):
        refused = f"which the hub refuses with {status}"
        remedy = "`hf auth login` with a token that may read it, after accepting the terms on its page"
        return Problem(where, f"{model!r}, {refused}", expected, remedy)
    reason = " ".join(str(error).split())[:200]
    return Problem(where, f"{model!r}, no folder here, and the hub says: {reason}", expected, instead)
