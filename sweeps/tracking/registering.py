"""Delivers one model to MLflow's registry: a version under each name, once, with what it comes from as tags.

A store that this process opens itself has the model's own folder as the version's source. A server may not
see that folder, so the model is uploaded as an artifact of its run first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from sweeps.folders import Folders
from sweeps.tracking.events import MODEL, Event
from sweeps.tracking.registry import write_down

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_ARTIFACT = "model"


def deliver_models(
    client: MlflowClient,
    target: str,
    folder: Path,
    run: Run,
    events: Sequence[Event],
    say: Callable[[str], None],
) -> None:
    """Register the model of an attempt under every name that it has none of its versions under yet.

    What is wrong on this side (no model, a link in it) is said, and what comes after is delivered.

    Args:
        client: of the store.
        target: fingerprint of the store, under which is written down what is there.
        folder: of the sweep.
        run: of the trial.
        events: with the names, the attempt, and the tags of the version; the last one has all names.
        say: for the log.

    Raises:
        MlflowException: not registered.
    """
    for event in events[-1:]:
        try:
            _deliver(client, target, folder, run, event)
        except (ValueError, OSError) as error:
            say(f"not registered: {error}")


def _deliver(client: MlflowClient, target: str, folder: Path, run: Run, event: Event) -> None:
    key = event["tags"][MODEL]
    source: str | None = None
    for name in event["names"]:
        version = _version(client, name, key)
        if version is None:
            source = source or _source(client, _model(folder, event["number"], event["attempt"]), run)
            version = _create(client, name, source, run, event["tags"])
        write_down(folder, target, f"{name}/{key}", version)


# -- inside ----------------------------------------------------------------------------------------


def _version(client: MlflowClient, name: str, key: str) -> str | None:
    """The version of a name that this model is, where it is one."""
    escaped = name.replace("'", "\\'")
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name='{escaped}'", max_results=500, page_token=token)
        for each in page:
            if each.tags.get(MODEL) == key:
                return str(each.version)
        token = page.token
        if not token:
            return None


def _create(client: MlflowClient, name: str, source: str, run: Run, tags: dict[str, str]) -> str:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    description = tags.get("mlflow.note.content")
    own = {tag: value[:5000] for tag, value in tags.items() if tag != "mlflow.note.content"}
    made = client.create_model_version(
        name, source, run.info.run_id, tags=own, description=description, await_creation_for=None
    )
    return str(made.version)


def _source(client: MlflowClient, model: Path, run: Run) -> str:
    """Where the registry finds the model."""
    if not client.tracking_uri.startswith("http"):
        return model.as_uri()
    client.log_artifacts(run.info.run_id, str(model), _ARTIFACT)
    place = run.info.artifact_uri
    if place.startswith(("file:", "/")):
        return Path(local_file_uri_to_path(place), _ARTIFACT).as_uri()
    return f"runs:/{run.info.run_id}/{_ARTIFACT}"


def _model(folder: Path, number: int, attempt: int) -> Path:
    """The folder of a model, nothing of which leads elsewhere: a runs folder may come from a stranger."""
    model = Folders(folder.parent, folder.name).model_dir(number, attempt)
    above = (each for each in (model, *model.parents) if each.is_relative_to(folder))
    inside = model.rglob("*") if model.is_dir() else ()
    linked = next((each for each in (*above, *inside) if each.is_symlink()), None)
    if linked is not None or not model.is_dir():
        raise ValueError(
            f"no model is registered from {model}: {f'{linked} is a link' if linked else 'not there'}"
        )
    return model
