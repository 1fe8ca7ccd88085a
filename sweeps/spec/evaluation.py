"""The section of a spec about downstream tasks: which, on what models, and where their data is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from sweeps.spec.section import Settings, setting
from sweeps.wording import Fault, formatted, nearest
from tli.tasks.available import Wanted

On = Literal["finalists", "control", "base"]
EVALUATED: tuple[str, ...] = get_args(On)
# Scores with these in common compare.
_ASKED = ("tasks", "shots", "limit")


class EvaluationSettings(Settings):
    """Downstream tasks that models are scored on after their training; nothing of that changes. None where
    `tasks` is empty.
    """

    tasks: list[str] = setting("a list of names of tasks", [], example=["kobest_copa"])
    shots: int = setting("a whole number of at least 0 (solved examples before each document)", 5, ge=0)
    limit: int | None = setting(
        "a whole number of at least 1 (documents of each task), or null for all", None, ge=1
    )
    on: list[str] = setting(
        f"a list of {', '.join(EVALUATED)}", [*EVALUATED], example=["finalists", "control"]
    )
    tasks_from: str | None = setting(
        "a folder of task files, or of KoBEST's official TSV files, or null for the hub", None, min_length=1
    )

    def to_tli(self) -> Wanted:
        """As `tli` takes it."""
        return Wanted(tuple(self.tasks), self.shots, self.limit, self.tasks_from)

    @property
    def asked(self) -> dict[str, Any]:
        """What scores compare by."""
        return {name: value for name, value in self.to_json().items() if name in _ASKED}

    @property
    def changeable(self) -> dict[str, Any]:
        """What decides which runs are evaluated, by dotted path; nothing without tasks."""
        plain = self.to_json()
        return {f"evaluation.{name}": plain[name] for name in (*_ASKED, "on")} if self.tasks else {}

    def applies_to(self, role: str, *, original: bool) -> bool:
        """Whether a run that is made for other reasons is evaluated, too.

        Args:
            role: of the run.
            original: whether it trains the original model on.
        """
        whose = {"matched control": "control", "replicate": "control" if original else "finalists"}
        whose |= {"promoted control": "control", "promotion": "finalists"}
        return bool(self.tasks) and whose.get(role) in self.on


def evaluation_faults(evaluation: EvaluationSettings) -> Iterator[Fault]:
    """Names that are none, or stand there twice, and settings that nothing is evaluated by."""
    lists: Mapping[str, list[str]] = {"tasks": evaluation.tasks, "on": evaluation.on}
    for name, values in lists.items():
        for index, value in enumerate(values):
            place = f"evaluation.{name}[{index}]"
            if value in values[:index]:
                yield Fault(place, f"{formatted(value)} again", "each once", "leaving it out")
            elif name == "on" and value not in EVALUATED:
                expected = f"one of {', '.join(EVALUATED)}"
                yield Fault(place, formatted(value), expected, nearest(value, EVALUATED) or "")
            elif name == "tasks" and not value.strip():
                yield Fault(place, formatted(value), "the name of a task", "kobest_copa")
    if evaluation.tasks and not evaluation.on:
        yield Fault("evaluation.on", "[]", f"some of {', '.join(EVALUATED)}", "finalists")
    if not evaluation.tasks and evaluation != EvaluationSettings():
        yield Fault("evaluation.tasks", "none", "the names of tasks", "[kobest_copa]", ("evaluation",))
