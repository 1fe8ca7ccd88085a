"""Batches the outbox's events for MLflow: parameters, tags and metrics of each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from mlflow.entities import Metric

from sweeps.tracking.events import REQUEST, Event

# KILLED has a failure's cross there, which a trial that was stopped early is not: a tag says how it ended.
AGAINST = "sweeps.gap_to"  # the tag with the number of the control that a run's gaps are to
_LONGEST_TAG = 5000  # characters of an experiment's tag
_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAIL": "FAILED"}


@dataclass
class Batch:
    """All that one round brings for one run; `number` None is the sweep itself."""

    number: int | None
    request: str | None  # the key under which the trial was created, where it is known
    started: float  # seconds since the epoch
    name: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    scalars: dict[str, Metric] = field(default_factory=dict)  # one value a run, whenever it was told
    experiment: dict[str, str] = field(default_factory=dict)  # tags of the experiment
    gaps: list[Metric] = field(default_factory=list)  # to the control of number `against`
    against: int | None = None
    models: list[Event] = field(default_factory=list)  # to be registered
    report: bool = False  # whether the sweep's page was written anew
    status: str | None = None  # an MLflow run status
    status_time: float = 0.0

    def gaps_beside(self, tags: dict[str, str]) -> tuple[list[Metric], dict[str, str]]:
        """Gaps to a control, and the tag that names it; none where a run's tags name another one.

        A store may have gaps from an outbox that was lost since, and metrics cannot be taken back.
        """
        against = str(self.against)
        if self.against is None or tags.setdefault(AGAINST, against) != against:
            return [], {}
        return self.gaps, {AGAINST: against}


def batches(events: Sequence[Event]) -> list[Batch]:
    """Events sorted by the run they belong to; within a run the order stays."""
    result: dict[tuple[int | None, str | None], Batch] = {}

    def of(number: int | None, request: str | None, when: float) -> Batch:
        return result.setdefault((number, request), Batch(number, request, when))

    for event in events:
        kind, number = event["kind"], event.get("number")
        request = event.get("request") or event.get("tags", {}).get(REQUEST)
        if kind == "points":
            batch = of(number, request, _first_time(event))
            batch.metrics += _metrics(event)
        elif kind == "register":
            of(number, request, event["time"]).models.append(event)
        elif kind == "report":
            of(None, None, event["time"]).report = True
        elif kind == "rank":
            for ranked, own, tags in _places(event):
                of(ranked, own, event["time"]).tags.update(tags)
        elif kind == "gaps":
            batch = of(number, request, event["time"])
            batch.against = event["against"] if batch.against is None else batch.against
            batch.gaps += _gaps(event)
        elif kind == "experiment":
            tags = {key: value[:_LONGEST_TAG] for key, value in event["tags"].items()}
            of(None, None, event["time"]).experiment.update(tags)
        elif kind == "mark":
            of(number, request, event["time"]).tags.update(event["tags"])
        else:
            batch = of(number, request, event["time"])
            batch.name = event.get("name", batch.name)
            batch.params.update(event.get("params", {}))
            batch.tags.update(event.get("tags", {}))
            when = milliseconds(event["time"])
            for key, value in event.get("metrics", {}).items():
                batch.scalars.setdefault(key, Metric(key, value, when, 0))
            batch.metrics += [
                Metric("objective", value, milliseconds(when), trials)
                for trials, value, when in event.get("objectives", ())
            ]
            batch.status = _STATUS[event["status"]] if kind == "end" else "RUNNING"
            batch.status_time = event["time"]
    return list(result.values())


def _places(event: Event) -> Iterator[tuple[int, str | None, dict[str, str]]]:
    """Numbers of trials with the key of their creation, and the tags that say their place."""
    known = event.get("requests", {})
    listed = list(dict.fromkeys([*event.get("first", ()), *event["numbers"]]))
    wide = len(str(len(listed)))  # texts sort as numbers then
    for tag, numbers in (("sweeps.rank", event["numbers"]), ("sweeps.order", listed)):
        for place, ranked in enumerate(numbers, 1):
            yield ranked, known.get(str(ranked)), {tag: f"{place:0{wide}d}"}


def _metrics(event: Event) -> Iterator[Metric]:
    for point in event["evals"]:
        when, step = milliseconds(point["time"]), point["step"]
        for key in ("eval_loss", "tokens", "flops", "seconds"):
            yield Metric(key, float(point[key]), when, step)
        if point["seconds"] > 0:
            yield Metric("tokens_per_second", point["tokens"] / point["seconds"], when, step)
        if losses := point.get("test_losses"):
            yield Metric("test_loss", fmean(losses), when, step)
        for task, scores in point.get("tasks", {}).items():
            for name, score in scores["metrics"].items():
                yield Metric(f"{task} {name}", float(score["value"]), when, step)
                if score["stderr"] is not None:
                    yield Metric(f"{task} {name}_stderr", float(score["stderr"]), when, step)
        for name, value in point.get("system", {}).items():
            yield Metric(f"system/{name}", float(value), when, step)
        for name, each in point.get("sources", {}).items():
            yield from _of_text(name, each, when, step)
    for step, loss, when in event["train"]:
        yield Metric("train_loss", float(loss), milliseconds(when), step)


def _gaps(event: Event) -> Iterator[Metric]:
    for step, gap, when in event["gaps"]:
        yield Metric("control_gap", float(gap), milliseconds(when), step)
    if event.get("final") is not None:
        yield Metric("objective_gap", float(event["final"]), milliseconds(event["time"]), 0)


def _of_text(name: str, losses: Mapping[str, Any], when: int, step: int) -> Iterator[Metric]:
    """Metrics of one of several texts; MLflow draws those with one word before the stroke side by side."""
    scalars = {"eval_loss": losses["eval_loss"], "bits_per_byte": losses["bits_per_byte"]}
    if losses["test_losses"]:
        scalars["test_loss"] = fmean(losses["test_losses"])
    for key, value in scalars.items():
        if value is not None:
            yield Metric(f"{key}/{name}", float(value), when, step)


def _first_time(event: Event) -> float:
    times = [point["time"] for point in event["evals"]] + [when for _, _, when in event["train"]]
    return float(min(times))


def milliseconds(seconds: float) -> int:
    """Wall clock as MLflow counts it."""
    return int(seconds * 1000)
