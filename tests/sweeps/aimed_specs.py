"""Spec files of sweeps that are scored on COPA, from files that a test writes."""

from __future__ import annotations

from pathlib import Path

from tests.kobest import write_kobest
from tests.sweeps.conftest import SPEC

AIM = "kobest_copa/acc"
_SECTION = "evaluation: {{tasks: [{tasks}], shots: 0, limit: {limit}, tasks_from: {kobest}}}\n"


def write_aimed(
    root: Path,
    model: Path,
    *,
    objective: str = f"{{metric: {AIM}}}",
    limit: int = 12,
    tasks: str = "kobest_copa, kobest_boolq",
    trials: int = 4,
    **replaced: str,
) -> str:
    """A spec file whose search goes by COPA, alone or beside the loss; without early stopping."""
    text = root / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\n" for n in range(200)))
    given = {"model": model, "text": text, "trials": trials, "study": "sqlite", "tracking": "null"}
    spec = SPEC.format(name="aimed", runs=root / "runs", **given)
    for old, new in {
        "stopping: {rule: asha, grace: 0.25, keep: 0.5}": "stopping: {rule: none}",
        "finalists: {top: 1, seeds: 1}": "finalists: {top: 2, seeds: 1}",
        **replaced,
    }.items():
        assert spec.count(old) == 1
        spec = spec.replace(old, new)
    kobest = root / "kobest"
    if not kobest.exists():
        write_kobest(kobest, test=12, train=2)
    path = root / "aimed.yaml"
    section = _SECTION.format(tasks=tasks, limit=limit, kobest=kobest)
    path.write_text(f"{spec}objective: {objective}\n{section}")
    return str(path)
