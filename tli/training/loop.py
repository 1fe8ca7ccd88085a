"""The training loop as a generator of progress; close it to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from tli.argument_types import WHOLE, Kind, instance_of, require_types
from tli.data.batches import Batches
from tli.errors import DivergedError, InputError
from tli.training.acceleration import checkpoint_activations, compile_layers, handle_compiler_error
from tli.training.device import out_of_memory, release, set_numerics
from tli.training.evaluate import TOKENS_AT_ONCE
from tli.training.feed import Feed
from tli.training.heldout import HELDOUT, HeldOut, Measured, measure
from tli.training.losses import add_gradients, is_sharded
from tli.training.micro_batches import halved, kind_of, most_tokens
from tli.training.optimizer import optimizer, set_rate
from tli.training.packed import packing_problems, share_of
from tli.training.progress import Progress
from tli.training.ranks import ranks_of, rows_problems, whole_norm
from tli.training.readings import Readings
from tli.training.recipe import Recipe
from tli.training.recipe_checks import batch_problems, recipe_problems

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

STEP, EVALUATION = "step", "evaluation"  # the kinds of work that a training is made of


def _nothing(_work: str) -> None:
    """The hook that does nothing."""


class Training:
    """A model under a recipe: everything that a checkpoint has to hold, and the loop over it.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Trained in place.
    recipe : Recipe
        How.
    batches : tli.data.batches.Batches
        What is trained on; batch ``step`` is used at that step.
    heldout : array of int, or tli.training.heldout.HeldOut
        Token ids that are evaluated on, shape [windows, sequence_length + 1]; or those of several texts.
    injected : set of str
        Names of the injected layers' parameters (`tli.growth.in_memory.injected_parameters`).
    seed : int, default 0
        Of whatever the model draws while it trains (dropout), from the process's generators: one training at
        a time in a process.
    initial_loss : float or tli.training.heldout.Measured, optional
        The held-out loss of this very model on this text, or these, which is not measured again then.

    Attributes
    ----------
    model, recipe, batches, heldout
        As given.
    ranks : tli.training.ranks.Ranks
        This process among those that train the model together, each on its rows of every batch; most often
        alone.
    optimizer : torch.optim.Optimizer
        AdamW, with a group for each rate and decay.
    step : int
        Optimizer steps made so far.
    seconds : float
        Time spent in them.
    measured : int or None
        The last step at which the held-out loss was measured; None before the first time.
    initial_loss : float or None
        Held-out loss before the first step, nats per token; None where it is not known.
    numerics : dict of str to str
        Precision of weights, of measuring and of products in float32.
    halves_micro_batch : bool
        Whether half a micro batch is tried where memory runs out, which is so for a model that is not
        sharded; else that ends the training.

    Raises
    ------
    InputError
        A recipe that cannot be run, batches of another size, or no injected layers where only they train.

    Examples
    --------
    >>> import numpy, tli
    >>> from tli.data.batches import Batches
    >>> model = tli.load_model("my-model/")
    >>> ids = numpy.arange(1000) % 100
    >>> recipe = tli.Recipe(tokens=128, batch_tokens=64)
    >>> training = tli.Training(model, recipe, Batches(ids, 16, rows=4, seed=0), ids[:34].reshape(2, 17))
    >>> [progress.step for progress in training.run([0, 2])]
    [0, 2]
    """

    def __init__(
        self,
        model: PreTrainedModel,
        recipe: Recipe,
        batches: Batches,
        heldout: np.ndarray | HeldOut,
        *,
        injected: AbstractSet[str] = frozenset(),
        seed: int = 0,
        initial_loss: float | Measured | None = None,
    ) -> None:
        expected = "a model of transformers"
        require_types(
            model=(model, instance_of(torch.nn.Module, expected, 'tli.load_model("my-model/")')),
            recipe=(recipe, instance_of(Recipe, "a tli.Recipe", "tli.Recipe(tokens=100_000)")),
            batches=(batches, instance_of(Batches, "tli.data.batches.Batches")),
            heldout=(heldout, HELDOUT),
            injected=(injected, Kind("a set of parameters' names", types=(AbstractSet,))),
            seed=(seed, WHOLE),
        )
        problems = recipe_problems(recipe, batches.sequence_length)
        ranks = ranks_of(model)
        problems += batch_problems(recipe, batches, heldout, injected)
        problems += rows_problems(batches.rows, batches.sequence_length, ranks)
        if batches.packed:
            problems += packing_problems(model, batches.sequence_length)
        if problems:
            raise InputError(*problems)
        every = recipe.activation_checkpointing
        checkpoint_activations(model, every if isinstance(every, int) else 0)
        if recipe.compile:
            compile_layers(model)
        device = next(model.parameters()).device
        torch.manual_seed(seed * ranks.size + ranks.rank)  # each rank drops other numbers of its rows
        self.model = model
        self.recipe = recipe
        self.batches = batches
        self.heldout = heldout
        self.ranks = ranks
        self.optimizer = optimizer(model, recipe, injected)
        self.step = 0
        self.seconds = 0.0
        self.measured: int | None = None
        self._initial = initial_loss if isinstance(initial_loss, Measured) else None
        self.initial_loss: float | None = (
            initial_loss.loss if isinstance(initial_loss, Measured) else initial_loss
        )
        self.numerics = set_numerics(device)
        self.halves_micro_batch = not is_sharded(model)  # ranks would have to run out of memory together
        self._readings = Readings(early=ranks.size == 1)
        self._feed = Feed(batches, device, ranks)
        self._kind = kind_of(model, recipe, batches.sequence_length)

    @property
    def unreported(self) -> list[tuple[int, float]]:
        """Train losses by step since the last measurement; those that a GPU still owes are waited for.

        Raises:
            DivergedError: one of them, or a gradient's norm, is not finite.
        """
        if self._readings.owed:
            started = time.perf_counter()
            self._readings.wait()
            self.seconds += time.perf_counter() - started
        return self._readings.known

    @unreported.setter
    def unreported(self, losses: Sequence[tuple[int, float]]) -> None:
        self._readings.begin(losses)

    def run(
        self, report_steps: Sequence[int], on_work: Callable[[str], None] = _nothing
    ) -> Iterator[Progress]:
        """Train to the last of the given steps, yielding progress at each; close the iterator to stop.

        Parameters
        ----------
        report_steps : sequence of int
            Where the held-out loss is measured; those that were passed already are skipped.
        on_work : callable, optional
            Called before each piece of work with its kind, ``step`` or ``evaluation``. The training is whole
            then: its state may be saved, and what is raised ends it without harm.

        Yields
        ------
        Progress
            ``step``, ``tokens``, ``seconds``, ``eval_loss`` and ``train_loss`` by step, in nats per token.

        Raises
        ------
        DivergedError
            A loss or the gradient's norm is not finite, or the held-out loss is far above what a model has
            that knows nothing.
        """
        self.model.train()
        for target in sorted(set(report_steps)):
            if target < self.step or target == self.measured:
                continue
            while self.step < target:
                on_work(STEP)
                self._advance()
            losses = tuple(self.unreported)
            found, measuring = self._measure(on_work)
            self._check(found.loss)
            self.unreported, self.measured = [], self.step
            tokens = self.step * self.recipe.batch_tokens
            yield Progress(self.step, tokens, self.seconds, found.loss, losses, measuring, found.texts)

    def _measure(self, on_work: Callable[[str], None]) -> tuple[Measured, float]:
        """The held-out loss, and the seconds that it took."""
        if self.step == 0 and self.initial_loss is not None:
            return self._initial or Measured(self.initial_loss), 0.0
        on_work(EVALUATION)
        started = time.perf_counter()
        # Never by compiled layers: measured alike, and shapes of its own would have to be compiled for.
        with torch.compiler.set_stance("force_eager") if self.recipe.compile else nullcontext():
            found = measure(self.model, self.heldout, at_once=self.evaluated_at_once)
        return found, time.perf_counter() - started

    @property
    def evaluated_at_once(self) -> int:
        """Most tokens that go through the model together when it is measured.

        No more than a training pass holds: a micro batch made smaller for want of memory helps here, too.
        """
        return min(TOKENS_AT_ONCE, self._micro_batch)

    @property
    def _micro_batch(self) -> int:
        """Tokens that go through the model at once."""
        return most_tokens(self._kind, self.recipe.micro_batch_tokens or self.recipe.batch_tokens)

    def _check(self, loss: float) -> None:
        """Refuse a held-out loss from which training does not come back.

        A guess among the vocabulary has its logarithm. First weights may be worse than that, and say so at
        step 0; twice the larger of the two lies above every spike of a warm-up that passes.
        """
        if self.step == 0:
            self.initial_loss = loss
        if not math.isfinite(loss):
            raise DivergedError(f"held-out loss is {loss} at step {self.step}")
        guess = math.log(self.model.config.get_text_config(decoder=True).vocab_size)
        limit = 2 * max(guess, self.initial_loss or 0.0)
        if self.step > 0 and loss > limit:
            raise DivergedError(f"held-out loss is {loss:.4g} at step {self.step}, above {limit:.4g}")

    def _advance(self) -> None:
        """One optimizer step. On a GPU it is given to it, and not waited for."""
        started = time.perf_counter()
        share = self.recipe.rate(self.step)
        for group in self.optimizer.param_groups:
            set_rate(group, group["peak"] * share)
        loss = self.ranks.mean(self._gradients(*self._feed.take(self.step)))
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = whole_norm(torch.nn.utils.clip_grad_norm_(trained, self.recipe.clip or math.inf))
        self._readings.add(self.step + 1, loss, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.step < self.recipe.steps:
            self._feed.prepare(self.step)
        self.seconds += time.perf_counter() - started

    def _gradients(self, rows: torch.Tensor, weight: float) -> torch.Tensor:
        """Adds the gradients of a batch to those of the parameters; returns its mean loss, on its device.

        Both times a weight, by which the mean over ranks is that over all tokens.
        Where memory runs out, all of it is done again with half of the micro batch.
        """
        while True:
            try:
                total = torch.zeros((), dtype=torch.float64, device=rows.device)
                for part in torch.split(rows, self._micro_batch // self.batches.sequence_length):
                    total += add_gradients(
                        self.model,
                        part,
                        self.recipe.precision,
                        share_of(part, rows) * weight,
                        compiled=self.recipe.compile,
                    )
            except (RuntimeError, MemoryError) as error:
                handle_compiler_error(error, self.model)
                if not self.halves_micro_batch or not out_of_memory(error):
                    raise
                if halved(self._kind, self._micro_batch, self.batches.sequence_length) is None:
                    raise
            else:
                return total
            # Here and not above: while an error is handled, its frames hold what did not fit.
            self.optimizer.zero_grad(set_to_none=True)
            release()
