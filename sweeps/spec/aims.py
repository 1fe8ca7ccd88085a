"""An objective that is written as a list of aims, `[eval_loss, flops_per_token]`, read as its section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from sweeps.spec.settings import Cost, ObjectiveSettings
from sweeps.wording import Fault, formatted, nearest
from tli.tasks.available import Wanted

METRICS = ("eval_loss",)
COSTS: tuple[str, ...] = get_args(Cost)
_KNOWN = (*METRICS, *COSTS)
_EXAMPLE = f"[{METRICS[0]}, {COSTS[0]}]"
_SECOND = f"one of {', '.join(COSTS)}, or a task and its metric"


def with_section(plain: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The values with an objective that is a list as a section; one with faults is left out.

    Args:
        plain: the values of a spec as they were written.
    """
    aims = plain.get("objective")
    if not isinstance(aims, list):
        return dict(plain), []
    rest = {name: value for name, value in plain.items() if name != "objective"}
    faults = [*_item_faults(aims, _tasks(plain))] or [*_whole_faults(aims)]
    if faults:
        return rest, faults
    cost = next((aim for aim in aims if aim in COSTS), None)
    task = next((aim for aim in aims if "/" in aim), None)
    alone = METRICS[0] not in aims
    settings: dict[str, Any] = {"metric": task} if alone else {"cost": cost, "score": task}
    section = ObjectiveSettings(**settings).to_json()
    return {name: section if name == "objective" else value for name, value in plain.items()}, []


def as_written(plain: Mapping[str, Any], path: str) -> str:
    """The path at which a setting of the objective was written: `objective[1]` where that is a list.

    Args:
        plain: the values of a spec as they were written.
        path: dotted.
    """
    aims, (section, _, name) = plain.get("objective"), path.partition(".")
    if not isinstance(aims, list) or section != "objective":
        return path
    found = {
        "metric": METRICS[0] if METRICS[0] in aims else aims[0] if aims else None,
        "cost": next((aim for aim in aims if aim in COSTS), None),
        "score": next((aim for aim in aims if isinstance(aim, str) and "/" in aim), None),
    }.get(name)
    return path if found is None else f"objective[{aims.index(found)}]"


def _tasks(plain: Mapping[str, Any]) -> list[str]:
    """Names of the tasks that the spec scores, as far as they can be read; misspelt ones as meant."""
    evaluation = plain.get("evaluation")
    tasks = evaluation.get("tasks") if isinstance(evaluation, Mapping) else None
    if not isinstance(tasks, list):
        return []
    return [Wanted(()).meant(name) for name in tasks if isinstance(name, str)]


def _item_faults(aims: Sequence[Any], tasks: Sequence[str]) -> list[Fault]:
    """Of what is no aim; whether a task is scored is judged with the section `evaluation`."""
    return [
        Fault(
            f"objective[{index}]",
            formatted(aim),
            f"one of {', '.join(_KNOWN)}, or a task and its metric, as in kobest_copa/acc",
            nearest(str(aim), [*_KNOWN, *(f"{task}/acc" for task in tasks)]) or "",
        )
        for index, aim in enumerate(aims)
        if not (isinstance(aim, str) and (aim in _KNOWN or "/" in aim))
    ]


def _whole_faults(aims: Sequence[str]) -> list[Fault]:
    """One aim is searched for alone, the loss or a task; of two the first is the loss, once."""
    loss = METRICS[0]
    tasks = [aim for aim in aims if "/" in aim]
    beside = [aim for aim in aims if aim != loss]
    if (aims.count(loss) == 1 and len(beside) <= 1) or (len(aims) == 1 and tasks):
        return []
    got, expected = formatted(list(aims)), f"{loss}, and for a front {_SECOND}"
    if len(set(beside)) > 1:
        got += f", {len(set(beside))} aims beside the loss" if loss in aims else ", and no loss"
        expected = f"{loss}, and beside it one aim: {_SECOND}"
    elif tasks and loss not in aims:
        got += ", which is one aim"
        expected = f"{loss} beside it for a front, or the task once"
    return [Fault("objective", got, expected, f"[{loss}, {tasks[0]}]" if tasks else _EXAMPLE)]
