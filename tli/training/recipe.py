"""How a model is trained: optimizer, rates, schedule, budget, and which parameters move. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral
from typing import Any, Literal, Self, get_args

from tli.argument_types import FLAG, NUMBER, STRING, WHOLE, Kind, instance_of, type_problems
from tli.errors import InputError, Problem

Schedule = Literal["linear", "cosine", "constant", "wsd"]
Trained = Literal["all", "injected", "injected+norms"]
Precision = Literal["fp32", "bf16"]
Optimizer = Literal["adamw", "adamw8bit"]
Every = int | Literal["auto"]  # so many layers
Group = Literal["injected", "original", "norms", "embeddings", "router"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
TRAINED: tuple[Trained, ...] = get_args(Trained)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
GROUPS: tuple[Group, ...] = get_args(Group)
AUTO = "auto"  # of `activation_checkpointing`: settled by memory before anything is trained


@dataclass(frozen=True)
class Rates:
    """Learning rates of groups of parameters, as multiples of the recipe's. 0 freezes a group.

    Each parameter is in one group: a router in `router`, whatever layer it is in; all else of an injected
    layer, its norms too, in `injected`; of the rest, norms, embeddings (the output head among them), and what
    is left.

    Attributes
    ----------
    injected : float
        Injected layers, and new experts.
    original : float
        Matrices and biases of the layers that the base had.
    norms : float
        Norms outside injected layers.
    embeddings : float
        Embeddings, and the output head, tied or not.
    router : float
        Routers of mixtures of experts.

    Examples
    --------
    >>> import tli
    >>> tli.Recipe(rates={"injected": 2.0, "embeddings": 0.1}).rates.injected
    2.0
    """

    injected: float = 1.0
    original: float = 1.0
    norms: float = 1.0
    embeddings: float = 1.0
    router: float = 1.0


# By the annotation of a field; names are judged beside the other values.
_KINDS: dict[str, Kind] = {
    "float": NUMBER,
    "float | None": NUMBER.optional,
    "int": WHOLE,
    "int | None": WHOLE.optional,
    "bool": FLAG,
    "Every": Kind('a whole number, or "auto"', "0", (Integral, str)),
    "Rates": instance_of(Rates, f"a mapping of {', '.join(GROUPS)} to numbers", '{"injected": 2.0}'),
    "Optimizer": STRING,
    "Schedule": STRING,
    "Trained": STRING,
    "Precision": STRING,
}


@dataclass(frozen=True)
class Recipe:
    """A complete training recipe. Values of another type are refused when it is made; whether it can be run
    depends on the text's sequence length, so `Training` says that, with all problems at once.

    Attributes
    ----------
    learning_rate : float
        Peak rate of AdamW for the original layers (and the injected ones, unless given).
    injected_learning_rate : float, optional
        Peak rate for the injected layers and new experts with their routers; where left out, the same.
    rates : Rates, or a mapping
        Multiples of the peak rate by group of parameters; `injected` is not read where
        `injected_learning_rate` is given.
    optimizer : {"adamw", "adamw8bit"}
        AdamW, its moments in float32 or in 8 bits a value (torchao's blockwise quantisation).
    tokens : int
        The budget, in predicted tokens; rounded up to whole batches.
    batch_tokens : int
        Tokens of one optimizer step, a multiple of the sequence length.
    micro_batch_tokens : int, optional
        Tokens of one forward pass; where left out, the whole batch. The batch stays the same.
    warmup : float
        Share of the steps in which the rate rises, from 0 to below 1.
    warmup_tokens : int, optional
        Tokens in which the rate rises, rounded up to whole batches, in place of `warmup`.
    schedule : {"linear", "cosine", "constant", "wsd"}
        How the rate falls to zero by the budget; constant: it does not; wsd (warm-up, stable, decay [1]_): it
        stays at its peak, then falls linearly.
    decay : float
        Of wsd, the share of the steps in which the rate falls, above 0; no more than the warm-up leaves.
    weight_decay : float
        Of matrices; vectors (norms, biases) are never decayed.
    clip : float, optional
        Largest global norm of the gradient; None does not clip.
    train : {"all", "injected", "injected+norms"}
        All parameters, or the injected layers alone, or these and all norms.
    precision : {"fp32", "bf16"}
        bf16 is computation in bfloat16 over weights, gradients and moments in float32 (autocast). Matrices
        that are not trained are kept in bfloat16 where that loses nothing.
    activation_checkpointing : int or "auto"
        Every how many layers one keeps nothing but its input for the backward pass, and is calculated again
        there: 0 none, 1 all, 2 every second one. Less memory, more time, the same gradients. "auto" is
        settled by the memory that there is, by `sweeps`; a `Training` takes numbers alone.
    compile : bool
        Compile each layer (`torch.compile`): the first pass takes up to a minute, those after it less time.

    Raises
    ------
    InputError
        A value of another type, all of them at once.

    References
    ----------
    .. [1] MiniCPM. arXiv 2404.06395.

    Examples
    --------
    >>> import tli
    >>> recipe = tli.Recipe(tokens=10_000, batch_tokens=1024, warmup=0.2)
    >>> recipe.steps, recipe.rate(0), recipe.rate(2)
    (10, 0.5, 1.0)
    """

    learning_rate: float = 1e-3
    injected_learning_rate: float | None = None
    rates: Rates = field(default_factory=Rates)
    optimizer: Optimizer = "adamw"
    tokens: int = 100_000
    batch_tokens: int = 2048
    micro_batch_tokens: int | None = None
    warmup: float = 0.1
    warmup_tokens: int | None = None
    schedule: Schedule = "linear"
    decay: float = 0.2
    weight_decay: float = 0.0
    clip: float | None = 1.0
    train: Trained = "all"
    precision: Precision = "fp32"
    activation_checkpointing: Every = 0
    compile: bool = False

    def __post_init__(self) -> None:
        rates: Any = self.rates
        if isinstance(rates, Mapping):
            unknown = [name for name in rates if name not in GROUPS]
            if unknown:
                expected = f"one of {', '.join(GROUPS)}"
                wrong = (Problem(f"recipe.rates.{name}", "an unknown group", expected) for name in unknown)
                raise InputError(*wrong)
            object.__setattr__(self, "rates", Rates(**rates))
        given = {item.name: (getattr(self, item.name), _KINDS[str(item.type)]) for item in fields(self)}
        if isinstance(self.rates, Rates):
            given |= {f"rates.{name}": (getattr(self.rates, name), NUMBER) for name in GROUPS}
        if problems := type_problems(given, "recipe."):
            raise InputError(*problems)

    def to_json(self) -> dict[str, Any]:
        """As plain values; the recipe of these keywords is equal.

        Returns
        -------
        dict
            With every setting, defaults too.
        """
        return asdict(self)

    @property
    def steps(self) -> int:
        """Optimizer steps in the budget."""
        return math.ceil(self.tokens / self.batch_tokens)

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises."""
        if self.warmup_tokens is not None:
            return math.ceil(self.warmup_tokens / self.batch_tokens)
        return math.ceil(self.warmup * self.steps)

    @property
    def decay_steps(self) -> int:
        """Steps in which the rate falls: of wsd its share, of the others all behind the warm-up."""
        left = max(1, self.steps - self.warmup_steps)
        return min(left, math.ceil(self.decay * self.steps)) if self.schedule == "wsd" else left

    @property
    def shared_steps(self) -> int:
        """Steps whose rates a longer run has, too, where its warm-up is as long.

        Of constant all, of wsd those before its decay; of the others none: their fall stretches over the run.
        """
        if self.schedule == "constant":
            return self.steps
        return self.steps - self.decay_steps if self.schedule == "wsd" else 0

    def rate(self, step: int) -> float:
        """Share of the peak rate at one step.

        Parameters
        ----------
        step : int
            Counted from 0.

        Returns
        -------
        float
            From 0 to 1.
        """
        warm = self.warmup_steps
        if step < warm:
            return (step + 1) / warm
        left = (self.steps - step) / self.decay_steps
        if self.schedule in ("linear", "wsd"):
            return min(1.0, left)
        return 0.5 - 0.5 * math.cos(math.pi * left) if self.schedule == "cosine" else 1.0

    @property
    def moves(self) -> Trained:
        """What is trained, the groups that a rate of 0 freezes taken into account."""
        if self.train == "all" and self.rates.original:
            return "all"
        rest = self.rates.norms or (self.train == "all" and self.rates.embeddings)
        return "injected+norms" if rest and self.train != "injected" else "injected"

    def for_groups(self, groups: frozenset[Group]) -> Self:
        """The same without multiples of groups that a model does not have.

        Parameters
        ----------
        groups : frozenset of str
            Those that it has.

        Returns
        -------
        Recipe
            Which trains that model as this one would.
        """
        absent = dict.fromkeys((name for name in GROUPS if name not in groups), 1.0)
        return replace(self, rates=replace(self.rates, **absent))

    def read(self, *, grown: bool = True) -> Self:
        """The same with one value for all that train alike: what has no effect is as by default.

        Parameters
        ----------
        grown : bool
            Whether the model has injected layers.

        Returns
        -------
        Recipe
            Equal for two that train the same model alike but for rounding.
        """
        given = replace(self.rates, **{name: float(getattr(self.rates, name)) for name in GROUPS})
        rate, new_rate = self.learning_rate, self.injected_learning_rate
        if not grown:
            given, new_rate = replace(given, injected=1.0), None
        if self.train != "all":
            given = replace(given, original=1.0, embeddings=1.0)
        if self.train == "injected":
            given = replace(given, norms=1.0)
            rate = new_rate or rate
        if new_rate is not None and new_rate == rate:
            new_rate = None
        return replace(
            self,
            learning_rate=rate,
            injected_learning_rate=new_rate,
            rates=given,
            tokens=self.steps * self.batch_tokens,
            micro_batch_tokens=None,
            warmup=self.warmup_steps,
            warmup_tokens=None,
            decay=self.decay_steps if self.schedule == "wsd" else Recipe.decay,
            activation_checkpointing=Recipe.activation_checkpointing,
            compile=Recipe.compile,
        )
