"""Delivers the outbox to MLflow in order, in batches, with retries, each thing once.

Delivering twice must be harmless, because a reply can be lost after the server has committed. So runs are
looked for by their tag before they are created, metrics carry the time of their first writing (which is part
of MLflow's key of a metric), and parameters and single values already there are left alone.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mlflow.entities import Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from sweeps.addresses import masked_address
from sweeps.folders import REPORT
from sweeps.tracking.batches import Batch, batches, milliseconds
from sweeps.tracking.delivery_lock import hold, is_still
from sweeps.tracking.driver_pipe import Driver
from sweeps.tracking.events import LARGEST_REPORT, REQUEST
from sweeps.tracking.outbox import EVENTS, LOCK, Sent, open_lock, read_events, read_sent, write_sent
from sweeps.tracking.registering import deliver_models
from sweeps.tracking.store import from_within
from sweeps.wording import masked
from tli.files import read_regular

POLL = 0.5  # seconds between looks at the outbox
ROUND = 256 * 1024  # bytes of the outbox delivered in one go
PATIENCE = (0.5, 30.0)  # seconds between tries, doubling from the first to the second
# Codes that mean "this request will never do"; anything else may be better next time.
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")
REFUSALS_BEFORE_SKIPPING = 3
PARENT = "mlflow.parentRunId"

Item = TypeVar("Item")


class Delivery:
    """One sweep's experiment on one store, and the runs in it as far as they are known."""

    def __init__(self, target: Mapping[str, Any]) -> None:
        self.target = target
        self.folder = Path(target["folder"]).absolute()
        self.client: MlflowClient | None = None
        self.sent: Sent | None = None
        self._restores: bool = target["restore"]
        self._new = False  # the experiment; until that is written down
        self._runs: dict[tuple[int | None, str | None], Run] = {}  # by number and key of creation
        self._status: dict[str, str] = {}  # of runs, by id
        self._refused: dict[tuple[int | None, str | None], int] = {}

    def prepare(self) -> None:
        """Find or make the experiment and learn its runs; when it is another one, deliver all over again."""
        self.client = self.client or MlflowClient(from_within(self.target["uri"]))
        name, experiment, made = self._experiment(self.client)
        self._new = self._new or made
        # Kept beside the results, so of the address without its password, which could be guessed from it.
        place = masked_address(self.target["uri"])
        fingerprint = hashlib.sha256(f"{place}\n{experiment}".encode()).hexdigest()[:16]
        before = read_sent(self.folder)
        # An emptied store gives its experiments the same numbers again.
        known = before is not None and before.target == fingerprint and not self._new
        size = (self.folder / EVENTS).stat().st_size
        offset = before.offset if before is not None and known and before.offset <= size else 0
        self._runs = self._find_runs(self.client, experiment)
        self._status = {run.info.run_id: run.info.status for run in self._runs.values()}
        self.sent = Sent(offset, fingerprint, experiment, name)
        write_sent(self.folder, self.sent)
        self._new = False

    def _experiment(self, client: MlflowClient) -> tuple[str, str, bool]:
        """Name and id of this sweep's experiment, and whether it was made now.

        NAME, or NAME-2, ... when that is deleted or not ours. A deleted experiment stays deleted, and
        everything is still in the outbox, so the next name gets the whole sweep and not only the rest of it.
        `sweeps sync`, which rebuilds all of it, does restore it, if there is no other.
        """
        study, study_uuid = self.target["study"], self.target["identity"]
        tags = {"sweeps.study": study, **({"sweeps.identity": study_uuid} if study_uuid else {})}
        deleted = None
        for name in (study, *(f"{study}-{again}" for again in range(2, 1000))):
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                break
            mine = all(experiment.tags.get(key) == value for key, value in tags.items())
            if mine and experiment.lifecycle_stage == "active":
                return name, experiment.experiment_id, False
            deleted = experiment if mine else deleted
        else:
            raise RuntimeError(f"{study}-2 to {study}-999 are all taken")
        if deleted is not None and self._restores:
            client.restore_experiment(deleted.experiment_id)
            return deleted.name, deleted.experiment_id, False
        root = self.target["artifact_root"]
        place = Path(root, name).as_uri() if root else None
        return name, client.create_experiment(name, artifact_location=place, tags=tags), True

    def _find_runs(self, client: MlflowClient, experiment: str) -> dict[tuple[int | None, str | None], Run]:
        """Each trial's run by its tags; of several (a lost reply) the fullest, and empty ones are removed."""
        found: dict[tuple[int | None, str | None], list[Run]] = {}
        token: str | None = None
        while True:
            page = client.search_runs(
                [experiment], run_view_type=ViewType.ALL, max_results=500, page_token=token
            )
            for run in page:
                key = run.data.tags.get("sweeps.trial", "")
                last = key.rpartition("/")[2]
                if last.isdecimal() or (
                    not key and run.data.tags.get("sweeps.study") == self.target["study"]
                ):
                    number = int(last) if key else None
                    found.setdefault((number, run.data.tags.get(REQUEST)), []).append(run)
            token = page.token
            if not token:
                break
        result = {}
        for trial, runs in found.items():
            best, *others = sorted(runs, key=_fullness, reverse=True)
            result[trial] = best
            for ghost in others:
                if ghost.info.lifecycle_stage == "active" and not ghost.data.metrics:
                    client.delete_run(ghost.info.run_id)
            if self._restores and best.info.lifecycle_stage != "active":
                client.restore_run(best.info.run_id)
                result[trial] = client.get_run(best.info.run_id)
        return result

    def round(self) -> bool:
        """Deliver the next piece of the outbox; whether there was any.

        Raises:
            MlflowException, OSError: Not delivered; prepare again and try again.
        """
        assert self.sent is not None
        events, offset = [], self.sent.offset
        for event, end in read_events(self.folder / EVENTS, offset, ROUND):
            offset = end
            events += [event] if event is not None else []
        if offset == self.sent.offset:
            return False
        for batch in batches(events):
            trial = batch.number, batch.request
            if self._refused.get(trial, 0) < REFUSALS_BEFORE_SKIPPING:
                try:
                    self._deliver(batch)
                except MlflowException as error:
                    if error.error_code in REFUSALS:
                        self._refused[trial] = self._refused.get(trial, 0) + 1
                    raise
        self._refused.clear()
        self.sent = Sent(offset, self.sent.target, self.sent.experiment_id, self.sent.experiment)
        write_sent(self.folder, self.sent)
        return True

    def _deliver(self, batch: Batch) -> None:
        assert self.client is not None
        run = self._run_of(batch) or self._create(batch)
        if run.info.lifecycle_stage != "active":
            return  # deleted in MLflow by its user; it stays so
        run_id = run.info.run_id
        known, values = run.data.params, run.data.metrics
        params = [Param(key, value[:6000]) for key, value in batch.params.items() if key not in known]
        # A parameter cannot be changed in MLflow. One that was (an extended budget) is shown as a tag.
        changed = {f"now.{k}": v for k, v in batch.params.items() if k in known and known[k] != v[:6000]}
        gaps, against = batch.gaps_beside(run.data.tags)
        tags_now = {**batch.tags, **changed, **against, **self._parent_tag(run, batch.number)}
        tags = [RunTag(key, value[:5000]) for key, value in tags_now.items()]
        scalars = [each for key, each in batch.scalars.items() if values.get(key) != each.value]
        for some in _pieces(params, 100):
            self.client.log_batch(run_id, params=some)
            known.update({param.key: param.value for param in some})
        for tagged in _pieces(tags, 100):
            self.client.log_batch(run_id, tags=tagged)
        for measured in _pieces([*batch.metrics, *gaps, *scalars], 1000):
            self.client.log_batch(run_id, metrics=measured)
        values.update({each.key: each.value for each in scalars})
        for key, value in batch.experiment.items():
            self.client.set_experiment_tag(run.info.experiment_id, key, value)
        if batch.report:
            self._send_report(run_id)
        self._set_status(run_id, batch)
        assert self.sent is not None
        deliver_models(self.client, self.sent.target, self.folder, run, batch.models, _say)

    def _send_report(self, run_id: str) -> None:
        """The page as an artifact; a store of artifacts that does not take it holds up no measurement."""
        assert self.client is not None
        try:
            read_regular(self.folder / REPORT, LARGEST_REPORT)  # of its own, and no link out of the folder
            self.client.log_artifact(run_id, str(self.folder / REPORT))
        except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
            _say(f"{REPORT} was not delivered: {error}")

    def _run_of(self, batch: Batch) -> Run | None:
        """The run of a batch's trial; one whose key of creation is not known goes by its number."""
        number, request = batch.number, batch.request
        if number is None or (number, request) in self._runs:
            return self._runs.get((number, request))
        if request is not None:
            found = self._runs.pop((number, None), None)
        else:
            found = next((run for (other, _), run in self._runs.items() if other == number), None)
        if found is not None:
            self._runs[number, request] = found
        return found

    def _set_status(self, run_id: str, batch: Batch) -> None:
        assert self.client is not None
        if batch.status == "RUNNING" and self._status[run_id] != "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        elif batch.status not in (None, "RUNNING"):
            self.client.set_terminated(run_id, batch.status, end_time=milliseconds(batch.status_time))
        self._status[run_id] = batch.status or self._status[run_id]

    def _parent_tag(self, run: Run, number: int | None) -> dict[str, str]:
        """What nests a trial's run under the sweep's, where that is another one by now: the store lost it."""
        parent = self._runs.get((None, None)) if number is not None else None
        if parent is None or run.data.tags.get(PARENT) == parent.info.run_id:
            return {}
        run.data.tags[PARENT] = parent.info.run_id
        return {PARENT: parent.info.run_id}

    def _create(self, batch: Batch) -> Run:
        assert self.client is not None
        assert self.sent is not None
        study, number = self.target["study"], batch.number
        tags = {"sweeps.study": study, "mlflow.source.name": f"sweep {study}", "mlflow.source.type": "JOB"}
        if number is not None:
            parent = self._runs.get((None, None)) or self._create(Batch(None, None, batch.started))
            tags |= {"sweeps.trial": f"{study}/{number}", PARENT: parent.info.run_id}
        if batch.request is not None:
            tags[REQUEST] = batch.request
        name = batch.name or (study if number is None else f"{number:04d}")
        run = self.client.create_run(
            self.sent.experiment_id, start_time=milliseconds(batch.started), tags=tags, run_name=name
        )
        self._runs[number, batch.request], self._status[run.info.run_id] = run, "RUNNING"
        return run


def _fullness(run: Run) -> tuple[bool, int, int]:
    size = len(run.data.metrics) + len(run.data.params)
    return run.info.lifecycle_stage == "active", size, -run.info.start_time


def _pieces(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def deliver(target: Mapping[str, Any]) -> None:
    """Deliver until the driver closes the pipe and all is delivered, or the time it gave is up."""
    driver, delivery = Driver(), Delivery(target)
    with os.fdopen(open_lock(delivery.folder), "wb") as lock:
        hold(lock.fileno(), driver)
        pause, prepared = PATIENCE[0], False
        while not driver.over and is_still(lock.fileno(), delivery.folder / LOCK):
            try:
                if not prepared:
                    delivery.prepare()
                    prepared = True
                more = delivery.round()
                pause = PATIENCE[0]
            except Exception as error:  # noqa: BLE001 - whatever the server or its client does, the sweep goes on
                _say(f"not delivered, next try in {pause:g} s: {error}")
                prepared, more = False, True
                driver.wait(pause)
                pause = min(pause * 2, PATIENCE[1] if driver.deadline is None else 2.0)
                continue
            if not more and driver.deadline is not None:
                return
            driver.wait(0.0 if more else POLL)


def _say(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), masked(text), file=sys.stderr, flush=True)
