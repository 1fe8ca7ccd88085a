"""Runs one trial: grows a copy of the cached base, trains it, measures it, keeps the result.

Here the sweep meets `tli`; models and tokens are carried, never looked into. What stays in a process between
trials is the slot: the base's weights, the token files, and what models grown alike lose before training.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.curve import CURVE, append_curve, read_curve
from sweeps.folders import Folders
from sweeps.records import Assignment, Point, Role
from sweeps.spec import Spec
from sweeps.worker.growing import control_layers, grown_model, kept_base
from sweeps.worker.keeping import keep_model
from sweeps.worker.saving import WRITING, OnWork, Saving, synced
from sweeps.worker.scoring import Scoring
from tli.data.corpus import matching_files
from tli.data.dataset import at_home
from tli.places import expanded
from tli.training.recipe import AUTO

if TYPE_CHECKING:
    from tli.planning.plan import Plan
    from tli.tasks.harness import Harness
    from tli.training.loop import Training
    from tli.training.recipe import Recipe

TEST_BLOCKS = 16  # equal parts of the test text, between which its loss varies


class WorkerContext:
    """What a worker process keeps between trials."""

    def __init__(self, spec: Spec) -> None:
        """Load the base and open the token files; paths in the spec are absolute.

        Raises:
            InputError: the base or the data cannot be used.
        """
        from tli.data.batches import open_tokens
        from tli.data.settings import DataSettings
        from tli.models.base import find
        from tli.models.loading import quieten

        quieten(threads=spec.resources.cpus)
        self.spec = spec
        self.data = DataSettings(**spec.data.to_json())
        self.base = find(spec.base.model, revision=spec.base.revision, where="base.model")
        self._load()
        self.depth = self.base.facts.depth
        self.tokens = open_tokens(self.data, self.base, Folders(spec.root, spec.name).tokens)
        self.heldout = self.tokens.heldout_windows(
            sequence_length=self.data.sequence_length, eval_tokens=self.data.eval_tokens
        )
        self.initial_losses: dict[tuple[Hashable, int], float] = {}  # by plan and seed, which make a model

    leads = True  # whether this process writes the curve; of those that train a model together, one does
    alone = True  # whether no other process has a part of the model

    def any_rank(self, wish: bool) -> bool:  # noqa: FBT001 - a vote
        """Whether any process of those that train a model together wants something."""
        return wish

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

    def saving(self, training: Training, folder: Path, owner: str, curve: Path, on_work: OnWork) -> Saving:
        """What saves the states of a training."""
        from tli.training.saver import Saver

        # What was measured before a state is not measured again after it.
        return Saving(training, Saver(folder, before=lambda: synced(curve), owner=owner), on_work)

    def write(self, model: Any, target: Path, lineage: dict[str, Any]) -> None:
        """Write a trained model as a folder."""
        from tli.training.export import write_model

        write_model(model, target, beside=self.base.folder, lineage=lineage)

    def measured_model(self) -> Any:
        """The base as a model that can be run."""
        return self.model

    @cached_property
    def tokenizer(self) -> Any:
        """The base's tokenizer, as the harness takes it."""
        from tli.models.loading import load_tokenizer

        return load_tokenizer(self.base.folder)

    @cached_property
    def harness(self) -> Harness:
        """The spec's tasks with their documents."""
        from tli.tasks.harness import Harness

        return Harness(self.spec.evaluation.to_tli(), "evaluation.tasks")

    @cached_property
    def test_blocks(self) -> tuple[Any, ...]:
        """Windows of the test text in order, in blocks that differ by one window at the most."""
        windows = self.tokens.test_windows(
            sequence_length=self.data.sequence_length, test_tokens=self.data.test_tokens
        )
        count = min(TEST_BLOCKS, len(windows))
        ends = [len(windows) * block // count for block in range(count + 1)]
        return tuple(windows[start:end] for start, end in itertools.pairwise(ends))

    @cached_property
    def control_layers(self) -> tuple[int, ...]:
        """Layers that the control trains, where it does not train all."""
        return control_layers(self.spec, self.depth, lambda: self.block_influence)

    @cached_property
    def block_influence(self) -> tuple[float, ...]:
        """How much each layer of the base changes the hidden state, on the text that `tli plan` takes."""
        from tli.growth.importance import measure

        return measure(self.base, self.data.train_source, model=self.measured_model(), where="data.source")


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
    data = spec.data.to_tli().pinned(Folders(spec.root, spec.name).tokens)
    sources: dict[str, Any] = {
        source.where.rpartition(".")[2]: str(at_home(source.name).absolute())
        for source in data.sources
        if matching_files(source.name) or source.folder
    }
    sources |= {"revision": data.revision, "heldout_revision": data.heldout_revision}
    model = expanded(spec.base.model, spec.where("base.model"))
    local = spec.evaluation.to_tli().folder
    tasks_from = None if local is None else str(local.absolute())
    return spec.model_copy(
        update={
            "evaluation": spec.evaluation.model_copy(update={"tasks_from": tasks_from}),
            "storage": spec.storage.model_copy(update={"artifacts": str(spec.root.absolute())}),
            "data": spec.data.model_copy(update=sources),
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
    from tli.training.state_names import states_of

    settings = context.spec.trial.model_validate(dict(assignment.settings))
    recipe, data = settings.to_recipe(), context.data
    if recipe.activation_checkpointing == AUTO:
        every = context.spec.trial.recipe.activation_checkpointing  # as it was settled for all trials
        recipe = replace(recipe, activation_checkpointing=0 if every == AUTO else every)
    if assignment.micro_batch_tokens is not None:
        recipe = replace(recipe, micro_batch_tokens=assignment.micro_batch_tokens)
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
    batches = context.tokens.batches(
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
    went_on = context.load_state(training, states, owner)
    if not went_on and context.leads and (lost := states_of(states, owner)):
        on_note(
            f"begins afresh: none of its states can be taken up ({', '.join(each.name for each in lost)})"
        )
    if went_on and training.measured is not None and context.leads:
        known = tuple(point for point in read_curve(curve, owner) if point.step <= training.measured)
        if known:  # a curve may be lost where a state is not
            yield known
    scoring = Scoring(context, assignment, folders, training)
    with context.saving(training, states, owner, curve, on_work) as saving:
        for progress in training.run(assignment.report_steps, saving.between):
            measured = Point(
                step=progress.step,
                tokens=progress.tokens,
                flops=progress.tokens * flops,
                seconds=progress.seconds,
                eval_loss=progress.eval_loss,
                train_loss=progress.train_loss,
                time=time.time(),
                measuring=progress.measuring,
            )
            point = scoring.measured(measured, saving)
            if context.leads:
                append_curve(curve, point, owner)
            if point.step == 0:
                context.initial_losses[grown] = point.eval_loss
            if point.step == assignment.steps:
                saving.on_work(WRITING)
                saving.saver.wait()
                if assignment.role not in (Role.REPLICATE, Role.RUNG, Role.EVALUATION):
                    keep_model(context, assignment, folders, training, plan)
                saving.finished = True
            yield (point,)
