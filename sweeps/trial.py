"""One trial in one process: upscale a copy of the warm base, train it, measure it, keep the result.

Here the sweep meets `tli`; models and tokens are carried, never looked into. What stays in a process between
trials is the slot: the base's weights and the token files.
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sweeps.folders import Folders
from sweeps.records import Assignment, Cause, Outcome, Point, Role, State
from sweeps.spec import Spec

CURVE = "curve.jsonl"  # in the trial's folder, written by the worker
CHECKPOINT_SECONDS = 15.0  # at least, between training states; they are written at measurements


@dataclass(frozen=True)
class Reply:
    """What one stretch of a trial gave; with an outcome, the trial is over."""

    points: tuple[Point, ...]
    outcome: Outcome | None = None


class Slot:
    """What a worker process keeps between trials."""

    def __init__(self, spec: Spec) -> None:
        """Load the base and open the token files; paths in the spec are absolute.

        Raises:
            InputError: the base or the data cannot be used.
        """
        from tli.base import find
        from tli.data import DataSettings, open_tokens
        from tli.loading import load_model, quieten

        quieten(threads=spec.resources.cpus)
        self.spec = spec
        self.data = DataSettings(**spec.data.to_json())
        self.base = find(spec.base.model, revision=spec.base.revision, where="base.model")
        self.model = load_model(self.base.folder, "cuda" if spec.resources.gpus else "cpu")
        self.depth: int = self.model.config.num_hidden_layers
        self.tokens = open_tokens(self.data, self.base, Folders(spec.root, spec.name).tokens)
        self.heldout = self.tokens.heldout_windows(
            sequence_length=self.data.sequence_length, eval_tokens=self.data.eval_tokens
        )

    @cached_property
    def change(self) -> tuple[float, ...]:
        """How much each layer of the base changes the hidden state, on the first training batch of seed 0."""
        from tli.importance import layer_changes

        recipe, length = self.spec.trial.to_recipe(), self.data.sequence_length
        batches = self.tokens.batches(sequence_length=length, batch_tokens=recipe.batch_tokens, seed=0)
        return layer_changes(self.model, batches[0][:, :length])


@lru_cache(maxsize=1)
def warm_slot(spec_json: str) -> Slot:
    """The slot of this process, made by its first trial."""
    return Slot(Spec.from_json(json.loads(spec_json)))


def for_workers(spec: Spec, revision: str | None = None) -> Spec:
    """The spec with absolute paths, for processes that have another working folder.

    The study keeps them as they were written, so that a sweep can be moved. With `revision`, the base is that
    commit of a hub repository whatever its main branch becomes meanwhile.
    """
    sources = {
        field: str(Path(source).expanduser().absolute())
        for field in ("source", "heldout")
        if (source := getattr(spec.data, field)) is not None and _is_path(source)
    }
    model = Path(spec.base.model).expanduser()
    return spec.model_copy(
        update={
            "storage": spec.storage.model_copy(update={"artifacts": str(spec.root.expanduser().absolute())}),
            "data": spec.data.model_copy(update=sources),
            "base": spec.base.model_copy(
                update={"model": str(model.absolute())}
                if model.is_dir()
                else {"revision": revision or spec.base.revision}
            ),
        }
    )


def _is_path(source: str) -> bool:
    from tli.corpus import matching_files

    there = bool(matching_files(source)) or Path(source).expanduser().is_dir()
    return there and not source.startswith("builtin:")


class Execution:
    """One attempt at one trial. `advance` until it gives an outcome; `close` to stop early."""

    def __init__(self, spec: Spec, assignment: Assignment) -> None:
        """Nothing happens before the first `advance`. Paths in the spec are absolute."""
        self._spec = spec
        self._assignment = assignment
        self._folders = Folders(spec.root, spec.name)
        self._points: Iterator[tuple[Point, ...]] | None = None

    def advance(self) -> Reply:
        """Train to the next measurement. Whatever goes wrong is an outcome, with its traceback in log.txt."""
        from tli.errors import DivergedError

        if self._points is None:
            try:
                slot = warm_slot(json.dumps(self._spec.to_json()))
            except Exception as error:  # noqa: BLE001 - a base or text that no trial can use is no trial's fault
                return Reply((), Outcome(State.FAIL, self._logged(error), fatal=True))
            self._points = run_trial(slot, self._assignment, self._folders)
        try:
            points = next(self._points)
        except DivergedError as error:
            return Reply((), Outcome(State.FAIL, f"diverged: {error}", Cause.DIVERGED))
        except Exception as error:  # noqa: BLE001 - one trial's bug must not end the sweep
            return Reply((), Outcome(State.FAIL, self._logged(error), Cause.ERROR))
        done = points[-1].step >= self._assignment.steps
        return Reply(points, Outcome(State.COMPLETE) if done else None)

    def _logged(self, error: Exception) -> str:
        """The error in one line, with the file that has its traceback."""
        log = self._folders.trial(self._assignment.number) / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as out:
            out.write(f"attempt {self._assignment.attempt}\n{traceback.format_exc()}\n")
        first_line = str(error).partition("\n")[0]
        return f"{type(error).__name__}: {first_line}; log: {log}"

    def close(self) -> None:
        """Let go of the model."""
        self._points = None


def run_trial(slot: Slot, assignment: Assignment, folders: Folders) -> Iterator[tuple[Point, ...]]:
    """Train one trial, going on from its last good checkpoint, and yield points as they are measured.

    Points that an earlier attempt measured before that checkpoint are yielded again, first. The last point
    comes after the trained model is on disk.
    """
    from tli.cost import cost
    from tli.grow import grow, injected_parameters
    from tli.plan import plan_for
    from tli.resume import load_latest, save_state
    from tli.train import Training

    settings = slot.spec.trial.model_validate(dict(assignment.settings))
    recipe, data = settings.to_recipe(), slot.data
    injection = settings.to_injection()
    change = slot.change if injection.method == "tli" and injection.sets is not None else None
    plan = plan_for(injection, slot.depth, change=change)
    flops = cost(
        slot.base,
        plan,
        sequence_length=data.sequence_length,
        batch_tokens=recipe.batch_tokens,
        train=recipe.train,
    ).flops_per_token
    model = grow(slot.model, plan, seed=settings.seed)
    batches = slot.tokens.batches(
        sequence_length=data.sequence_length, batch_tokens=recipe.batch_tokens, seed=settings.seed
    )
    training = Training(
        model, recipe, batches, slot.heldout, injected=injected_parameters(model, plan), seed=settings.seed
    )
    curve = folders.trial(assignment.number) / CURVE
    checkpoints = folders.checkpoints(assignment.number)
    if load_latest(training, checkpoints):
        measured = tuple(point for point in read_curve(curve) if point.step <= training.step)
        if measured:
            yield measured
    saved = time.monotonic()
    for progress in training.run(assignment.report_steps):
        point = Point(
            step=progress.step,
            tokens=progress.tokens,
            flops=progress.tokens * flops,
            seconds=progress.seconds,
            eval_loss=progress.eval_loss,
            train_loss=progress.train_loss,
            time=time.time(),
        )
        append_curve(curve, point)
        if point.step == assignment.steps:
            if assignment.role is not Role.REPLICATE:
                _keep(slot, assignment, folders, training, plan)
        elif time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_state(training, checkpoints)
            saved = time.monotonic()
        yield (point,)


def append_curve(path: Path, point: Point) -> None:
    """Add one point to a trial's curve."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as out:
        # The line before may have been cut short by a kill.
        out.write("\n" + json.dumps(point.to_json()) + "\n")


def read_curve(path: Path) -> list[Point]:
    """Points of a trial by step, the first of each; a line that a kill cut short is passed over."""
    points: dict[int, Point] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            point = Point.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue
        points.setdefault(point.step, point)
    return [points[step] for step in sorted(points)]


def _keep(slot: Slot, assignment: Assignment, folders: Folders, training: Any, plan: Any) -> None:
    """Write the trained model as a folder that plain transformers loads."""
    from tli.export import write_model
    from tli.lineage import lineage

    facts = {
        "sweep": slot.spec.name,
        "spec_hash": slot.spec.hash,
        "trial": assignment.number,
        "attempt": assignment.attempt,
        "settings": dict(assignment.settings),
        "training": {"steps": training.step, "tokens": training.step * training.recipe.batch_tokens},
    }
    target = folders.final(assignment.number)
    shutil.rmtree(target, ignore_errors=True)  # of an attempt that was killed before it could tell
    write_model(
        training.model,
        target,
        tokenizer=slot.base.folder,
        lineage=lineage(slot.base, plan, seed=assignment.settings["seed"], extra=facts),
    )
