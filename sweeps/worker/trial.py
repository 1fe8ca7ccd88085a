"""Runs one trial: grows a copy of the cached base, trains it, measures it, keeps the result.

Here the sweep meets `tli`; models and tokens are carried, never looked into. What stays in a process between
trials is the slot: the base's weights, the token files, and what models grown alike lose before training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.curve import CURVE, append_curve
from sweeps.folders import Folders
from sweeps.records import Assignment, Point, Role
from sweeps.spec import Spec
from sweeps.worker.branching import Branching, take_up
from sweeps.worker.growing import control_layers, grown_model, kept_base
from sweeps.worker.keeping import keep
from sweeps.worker.recipe import recipe_of
from sweeps.worker.saving import WRITING, OnWork, Saving, StateWriter, synced
from sweeps.worker.texts import Testing, held_out, placed, sources_of
from tli.places import expanded

if TYPE_CHECKING:
    from tli.planning.plan import Plan
    from tli.training.heldout import Measured
    from tli.training.loop import Training
    from tli.training.recipe import Recipe


class WorkerContext:
    """What a worker process keeps between trials."""

    def __init__(self, spec: Spec) -> None:
        """Load the base and open the token files; paths in the spec are absolute.

        Raises:
            InputError: the base or the data cannot be used.
        """
        from tli.data.mixture import open_mixture
        from tli.models.base import find
        from tli.models.loading import quieten

        quieten(threads=spec.resources.cpus)
        self.spec = spec
        self.data = spec.data
        self.base = find(spec.base.model, revision=spec.base.revision, where="base.model")
        self._load()
        self.depth = self.base.facts.depth
        self.texts = open_mixture(spec.data.portions(), self.base, Folders(spec.root, spec.name).tokens)
        self.heldout = held_out(self.texts, self.data, self.base)
        self.initial_losses: dict[tuple[Hashable, int], Measured] = {}  # by plan and seed, which make a model
        self.testing = Testing(self.texts, self.data, self.heldout)

    leads = True  # whether this process writes the curve; of those that train a model together, one does

    def _load(self) -> None:
        self.model = kept_base(self.base, self.device, in_bf16=self.spec.in_bf16)

    @property
    def device(self) -> str:
        """Where trials compute."""
        return "cuda" if self.spec.resources.gpus else "cpu"

    def grow(self, plan: Plan, seed: int, recipe: Recipe, layers: Sequence[int] = ()) -> Any:
        """The model of a trial, made of the base; of which some layers may be trained as new ones are."""
        return grown_model(self.model, plan, seed, recipe, layers)

    def load_state(self, training: Training, folder: Path, owner: str) -> bool:
        """Put the newest good state, of one process or of ranks, into a training; whether there was one."""
        from tli.training.state import load_latest
        from tli.training.state_names import by_ranks, states_of

        if not any(by_ranks(state) for state in states_of(folder, owner)):
            return load_latest(training, folder, owner)
        from tli.sharded.resuming import load_latest_sharded  # takes its time to load

        return load_latest_sharded(training, folder, None, owner)

    def writer(self, folder: Path, owner: str, curve: Path) -> StateWriter:
        """What writes the states of a training into a folder."""
        from tli.training.saver import Saver

        # What was measured before a state is not measured again after it.
        return Saver(folder, before=lambda: synced(curve), owner=owner)

    def saving(self, training: Training, writer: StateWriter, on_work: OnWork) -> Saving:
        """What saves the states of a training."""
        return Saving(training, writer, on_work)

    def write(self, model: Any, target: Path, lineage: dict[str, Any]) -> None:
        """Write a trained model as a folder."""
        from tli.training.export import write_model

        write_model(model, target, beside=self.base.folder, lineage=lineage)

    def measured_model(self) -> Any:
        """The base as a model that can be run."""
        return self.model

    @cached_property
    def control_layers(self) -> tuple[int, ...]:
        """Layers that the control trains, where it does not train all."""
        return control_layers(self.spec, self.depth, lambda: self.block_influence)

    @cached_property
    def block_influence(self) -> tuple[float, ...]:
        """How much each layer of the base changes the hidden state, on the text that `tli plan` takes."""
        from tli.growth.importance import measure

        heaviest = max(self.texts.portions, key=lambda each: each.weight or 0.0)
        source, where = heaviest.settings.train_source, f"{heaviest.where}.source"
        return measure(self.base, source, model=self.measured_model(), where=where)


@lru_cache(maxsize=1)
def cached_context(spec_json: str) -> WorkerContext:
    """The slot of this process, made by its first trial."""
    return WorkerContext(Spec.from_json(json.loads(spec_json)))


def for_workers(spec: Spec, revision: str | None = None) -> Spec:
    """The spec with absolute paths, for processes that have another working folder.

    The study keeps them as they were written, so that a sweep can be moved. Datasets on the hub are pinned to
    the commits that they are at now; with `revision`, the base is that commit of a hub repository, whatever
    its main branch becomes meanwhile.

    Raises:
        DataError: a dataset cannot be found on the hub.
    """
    model = expanded(spec.base.model, spec.where("base.model"))
    return spec.model_copy(
        update={
            "storage": spec.storage.model_copy(update={"artifacts": str(spec.root.absolute())}),
            "data": placed(spec.data, Folders(spec.root, spec.name).tokens),
            "base": spec.base.model_copy(
                update={"model": str(model.absolute())}
                if model.is_dir()
                else {"revision": revision or spec.base.revision}
            ),
        }
    )


def run_trial(
    context: WorkerContext,
    assignment: Assignment,
    folders: Folders,
    on_work: OnWork = lambda _work: None,
    on_note: Callable[[str], None] = lambda _text: None,
) -> Generator[tuple[Point, ...], None, None]:
    """Train one trial, going on from its last good checkpoint, and yield points as they are measured.

    Points that an earlier attempt measured before that checkpoint are yielded again, first. The last point
    comes after the trained model is on disk; of a run under a fresh seed it has the losses on the test text.
    Replicates keep no model: that of their trial is the one that is handed over.

    Args:
        context: what stays in this process.
        assignment: what to train.
        folders: of the sweep.
        on_work: called before each piece of work with its kind: those of the loop, WRITING and TESTING. When
            it raises PreemptedError in the loop, the state is written first.
        on_note: called with what the user should know.
    """
    from tli.growth.cost import cost
    from tli.growth.in_memory import injected_parameters, layer_parameters
    from tli.planning.plan import plan_for
    from tli.training.loop import Training
    from tli.training.optimizer import groups_of

    settings = context.spec.trial.model_validate(dict(assignment.settings))
    recipe, data = recipe_of(context.spec, settings, assignment), context.data
    injection = settings.to_injection()
    block_influence = (
        context.block_influence
        if injection.method == "tli" and injection.least_important_sets is not None
        else None
    )
    plan = plan_for(injection, context.depth, block_influence=block_influence)
    layers = context.control_layers if injection.method == "none" and recipe.train != "all" else ()
    flops = cost(
        context.base,
        plan,
        sequence_length=data.sequence_length,
        train=recipe.moves,
        also=layers,
    ).flops_per_token
    model = context.grow(plan, settings.seed, recipe, layers)
    injected = layer_parameters(model, layers) if layers else injected_parameters(model, plan)
    # The control has no injected layers, a dense model no routers: rates of these are for other trials.
    recipe = recipe.for_groups(frozenset(groups_of(model, injected).values()))
    batches = context.texts.batches(
        sequence_length=data.sequence_length, batch_tokens=recipe.batch_tokens, seed=settings.seed
    )
    grown = (plan.built, settings.seed)
    training = Training(
        model,
        recipe,
        batches,
        context.heldout,
        injected=injected,
        seed=settings.seed,
        initial_loss=context.initial_losses.get(grown),
    )
    training.halves_micro_batch &= context.spec.retries.halve_micro_batch
    curve = folders.trial(assignment.number) / CURVE
    states, owner = folders.make(folders.checkpoints(assignment.number)), assignment.owner
    known = take_up(context, training, assignment, folders, on_note)
    if known and context.leads:  # a curve may be lost where a state is not
        yield known
    wanted = assignment.role not in (Role.REPLICATE, Role.RUNG) and recipe.shared_steps > 0
    later = context.writer(folders.branch(assignment.number), owner, curve) if wanted else None
    with (
        Branching(training, later, recipe.shared_steps, on_work) as branching,
        context.saving(training, context.writer(states, owner, curve), on_work) as saving,
    ):
        for progress in training.run(assignment.report_steps, branching.around(saving.between)):
            point = Point(
                step=progress.step,
                tokens=progress.tokens,
                flops=progress.tokens * flops,
                seconds=progress.seconds,
                eval_loss=progress.eval_loss,
                train_loss=progress.train_loss,
                time=time.time(),
                measuring=progress.measuring,
                sources=sources_of(progress.texts),
            )
            point = context.testing.added_to(point, assignment, training, saving.on_work)
            if context.leads:
                append_curve(curve, point, owner)
            if point.step == 0:
                context.initial_losses[grown] = progress.heldout
            if point.step == assignment.steps:
                saving.on_work(WRITING)
                saving.saver.wait()
                branching.finish()
                if assignment.role not in (Role.REPLICATE, Role.RUNG):
                    keep(context, assignment, folders, training, plan)
                saving.finished = True
            yield (point,)
