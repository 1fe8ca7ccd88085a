"""Checks of how a sweep searches and stops: settings that its sampler or its stopping rule cannot use."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping

from sweeps.spec.fields import NAME, SpecFields
from sweeps.spec.ranges import Range
from sweeps.spec.settings import ObjectiveSettings, SamplerSettings, StoppingSettings
from sweeps.wording import Fault, formatted, nearest

METRIC = "eval_loss"


def stopping_faults(stopping: StoppingSettings) -> Iterator[Fault]:
    """Successive halving keeps one in n, and n is at least two; what is learned is not set by hand."""
    if stopping.rule == "learned":
        usual = StoppingSettings()
        for name in ("on", "grace", "keep"):
            value = getattr(stopping, name)
            if value != getattr(usual, name):
                got = f"{formatted(value)}, which the rule learned does not read"
                expected = "no such setting with learned, which finds out itself where to stop"
                yield Fault(f"stopping.{name}", got, expected, "stopping.rule: asha", ("stopping.rule",))
    if stopping.rule in ("asha", "hyperband") and stopping.keep > 0.5:
        expected = f"at most 0.5 with {stopping.rule}, which keeps one half, one third, ..."
        yield Fault("stopping.keep", formatted(stopping.keep), expected, "0.5", ("stopping.rule",))


def sampler_faults(
    sampler: SamplerSettings, objective: ObjectiveSettings, search: Mapping[str, Range]
) -> Iterator[Fault]:
    """A grid needs ranges that can be counted; each value is answered for by the Gaussian process alone."""
    endless = [
        path
        for path, wanted in search.items()
        if wanted.log is not None or (wanted.uniform is not None and wanted.step is None)
    ]
    if sampler.name == "grid" and endless:
        got = f"'grid', where {', '.join(endless)} cannot be counted"
        expected = "choices, whole numbers or a step in every range of a grid"
        yield Fault("sampler.name", got, expected, "qmc", tuple(f"search.{path}" for path in endless))
    if objective.answer == "each" and sampler.name != "gp":
        got = f"'each', which the sampler {sampler.name} does not read"
        expected = "best, or the sampler gp"
        yield Fault("objective.answer", got, expected, "sampler.name: gp", ("sampler.name",))


def front_faults(spec: SpecFields) -> Iterator[Fault]:
    """What goes by the lowest loss of all cannot look for the lowest at each cost, or at each score."""
    cost, score = spec.objective.cost, spec.objective.score
    if cost is None and score is None:
        return
    aim, known = cost or score, ("objective.cost" if score is None else "objective.score",)
    if cost is not None and score is not None:
        got = f"{formatted(cost)}, beside the aim {score}"
        expected = "null: a front has two aims, and the loss is one of them"
        yield Fault("objective.cost", got, expected, "deleting it", known)
    if spec.sampler.name == "tpe":
        got = f"'tpe', which looks for the lowest loss alone, beside the aim {aim}"
        yield Fault("sampler.name", got, "gp, random, qmc or grid", "gp", known)
    if spec.objective.answer == "each":
        got = f"'each', beside the aim {aim}"
        expected = "best: the search goes along the front, or answers for each value"
        yield Fault("objective.answer", got, expected, "best", known)
    if score is None and spec.stopping.rule not in ("learned", "none"):
        got = f"{formatted(spec.stopping.rule)}, which compares cheap trials with dear ones"
        yield Fault("stopping.rule", got, f"learned or none beside the aim {aim}", "learned", known)
    if spec.finalists.per is not None:
        got = f"{formatted(spec.finalists.per)}, beside the aim {aim}"
        expected = "null: the finalists lie along the front"
        yield Fault("finalists.per", got, expected, "deleting it", known)
    if score is not None and spec.budget.ladder:
        got = f"{formatted(list(spec.budget.ladder))}, whose rungs are ranked by loss, beside the aim {aim}"
        expected = "no ladder: models along a front have no ranking that could hold"
        yield Fault("budget.ladder", got, expected, "deleting it", known)


def objective_faults(spec: SpecFields) -> Iterator[Fault]:
    """A metric that is none, a task that is not scored, and what goes by losses beside a task."""
    objective = spec.objective
    metric, known = objective.metric, ("objective.metric",)
    if objective.score is not None:
        yield from _task_faults(spec, "objective.score", objective.score, objective.front_task)
    if metric == METRIC or (yield from _task_faults(spec, "objective.metric", metric, objective.task)):
        return
    if objective.answer == "each":
        got = f"'each', which compares losses, beside the aim {metric}"
        yield Fault("objective.answer", got, "best", "best", known)
    for name, aim in (("cost", objective.cost), ("score", objective.score)):
        if aim is not None:
            got = f"{formatted(aim)}, beside the aim {metric}"
            expected = f"null: a front has losses as one of its aims, with the metric {METRIC}"
            yield Fault(f"objective.{name}", got, expected, "deleting it", known)
    if spec.warm_start:
        got = f"{formatted(spec.warm_start)}, losses of other sweeps, beside the aim {metric}"
        yield Fault("warm_start", got, "none", "deleting it", known)


def _task_faults(
    spec: SpecFields, path: str, aim: str, task: tuple[str, str] | None
) -> Generator[Fault, None, bool]:
    """Of an aim that has to be a metric of a scored task; returns whether it is none at all."""
    wanted, known = spec.evaluation.to_tli(), (path,)
    names = wanted.names
    loss = [METRIC] if path == "objective.metric" else []
    if task is None or not all(each.strip() for each in task):
        near = nearest(aim, [*loss, *(f"{wanted.meant(name)}/acc" for name in names)])
        expected = ", or ".join([*loss, "a task and its metric, as in kobest_copa/acc"])
        yield Fault(path, formatted(aim), expected, near or (loss or ["kobest_copa/acc"])[0])
        return True
    if task[0] not in names:
        got = f"{formatted(aim)}, a task that is not under evaluation.tasks"
        other = nearest(task[0], names)
        meant = wanted.meant(other or task[0])
        # One that stands there misspelt is no name to take.
        if other in wanted.tasks and meant != other:
            place = f"evaluation.tasks[{wanted.tasks.index(other)}]"
            yield Fault(place, formatted(other), "a task that the harness knows, or of tasks_from", meant)
        remedy = f"{meant}/{task[1]}" if other and meant != task[0] else f"evaluation: {{tasks: [{meant}]}}"
        there = f"a metric of one of {', '.join(names) or 'the tasks there, which are none'}"
        yield Fault(path, got, ", or ".join([*loss, there]), remedy, ("evaluation.tasks",))
    for name in ("finalists", "control"):
        if task[0] in names and name not in spec.evaluation.on:
            got = f"{formatted(spec.evaluation.on)}, beside the aim {aim}"
            what = "who is best" if loss else "the front"
            expected = f"{name} among them: {what} is told by scores under fresh seeds"
            yield Fault("evaluation.on", got, expected, "[finalists, control]", known)
            break
    if spec.stopping.rule != "none":
        got = f"{formatted(spec.stopping.rule)}, which compares held-out losses, beside the aim {aim}"
        yield Fault("stopping.rule", got, "none: a model is scored after its last step alone", "none", known)
    return False


def warm_start_faults(spec: SpecFields) -> Iterator[Fault]:
    """Names of other sweeps, each once, for the one sampler that has a prior."""
    if spec.warm_start and spec.sampler.name != "gp":
        got = f"{formatted(spec.warm_start)}, which the sampler {spec.sampler.name} does not read"
        yield Fault("warm_start", got, "none, or the sampler gp", "sampler.name: gp", ("sampler.name",))
    for index, name in enumerate(spec.warm_start):
        place = f"warm_start[{index}]"
        if not re.fullmatch(NAME, name):
            yield Fault(place, formatted(name), "the name of a sweep that was run", "its name: in its spec")
        elif name == spec.name:
            yield Fault(
                place, f"{formatted(name)}, this sweep itself", "another sweep", "deleting it", ("name",)
            )
        elif name in spec.warm_start[:index]:
            yield Fault(place, f"{formatted(name)} again", "each sweep once", "deleting it")
