"""The sections of a spec as frozen models, every field with words for what belongs in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

from sweeps.spec.ladders import rungs
from sweeps.spec.margins import canonical
from sweeps.spec.ranges import fractional
from sweeps.spec.recipe_settings import RecipeSettings
from sweeps.spec.section import Settings, name_of, section, setting
from tli.planning.experts import Experts
from tli.planning.injection import (
    IDENTITIES,
    INITS,
    METHODS,
    PLACES,
    SOURCES,
    Identity,
    Init,
    Injection,
    Method,
    Origin,
    Place,
)
from tli.training.recipe import Recipe

Sampler = Literal["gp", "tpe", "random", "qmc", "grid"]
Answer = Literal["best", "each"]
Cost = Literal["flops_per_token", "parameters"]
Amount = Literal["steps", "tokens", "flops", "seconds"]
StoppingRule = Literal["learned", "asha", "hyperband", "median", "none"]
ControlTrained = Literal["all", "layers"]
GRACED: tuple[StoppingRule, ...] = ("asha", "hyperband", "median")  # those that have a grace


class BaseSettings(Settings):
    """The model that is upscaled."""

    model: str = setting(
        "a hub id, a folder or builtin:tiny-llama", example="builtin:tiny-llama", min_length=1
    )
    revision: str | None = setting("a commit, tag or branch on the hub, or null", None, min_length=1)


class ExpertSettings(Settings):
    """How feed-forward parts become experts; the fields of `tli.planning.experts.Experts`."""

    count: int | None = setting("a whole number of at least 2 (experts), or null", Experts.count, ge=2)
    top_k: int = setting("a whole number of at least 1 (experts a token)", Experts.top_k, ge=1)
    router_scale: float = setting("a number of at least 0", Experts.router_scale, ge=0)
    drop: float = setting("a share from 0 to 1", Experts.drop, ge=0, le=1)
    noise: float = setting("a number of at least 0", Experts.noise, ge=0)
    granularity: int = setting("a whole number of at least 1", Experts.granularity, ge=1)


class InjectionSettings(Settings):
    """How the model is grown; the fields of `tli.planning.injection.Injection`."""

    method: Method = name_of(METHODS, Injection.method)
    k: int | None = setting("a whole number of at least 1 (layers per injected layer)", Injection.k, ge=1)
    place: Place = name_of(PLACES, Injection.place)
    layers: str | None = setting("a range of layers, as in '4:8', or null for all", None)
    after: str | None = setting("layers that a new one follows, as in '3,7', or null", None)
    least_important_sets: int | None = setting(
        "a whole number of at least 1 (sets), or null for all", None, ge=1
    )
    block: int = setting("a whole number of at least 1 (layers)", Injection.block, ge=1)
    m: int | None = setting("a whole number of at least 0 (layers dropped), or null", None, ge=0)
    g: int = setting("a whole number of at least 2 (times)", Injection.g, ge=2)
    init: Init | None = name_of(INITS, None)
    # Its two types and their limits are judged by `tli`, in one message.
    scale: Annotated[Any, BeforeValidator(fractional)] = setting(
        "a residual scale between 0 and 1, or null", None, example=0.5
    )
    source: Origin = name_of(SOURCES, Injection.source)
    noise: float = setting("a number of at least 0", Injection.noise, ge=0)
    identity: Identity = name_of(IDENTITIES, Injection.identity)
    experts: ExpertSettings = section(ExpertSettings)


class TrialSettings(Settings):
    """One whole trial. As `trial:` in a spec it is the baseline."""

    injection: InjectionSettings = section(InjectionSettings)
    recipe: RecipeSettings = section(RecipeSettings)
    seed: int = setting("a whole number from 0 to 4294967295", 0, ge=0, lt=2**32)

    def to_injection(self) -> Injection:
        """As `tli` takes it."""
        return Injection.from_json(self.injection.to_json())

    def to_recipe(self) -> Recipe:
        """As `tli` takes it."""
        return Recipe(**self.recipe.to_json())


class ObjectiveSettings(Settings):
    """What is minimised, where trials are made equal, and along what there is a front: a cost, or a score."""

    # Judged by `search_checks`, beside the section `evaluation`.
    metric: str = setting("eval_loss, or a task and its metric, as in kobest_copa/acc", "eval_loss")
    at: Literal["tokens"] = name_of(("tokens",), "tokens")
    answer: Answer = name_of(get_args(Answer), "best")
    cost: Cost | None = name_of(get_args(Cost), None)
    score: str | None = setting("a task and its metric, as in kobest_copa/acc, or null", None)

    @property
    def task(self) -> tuple[str, str] | None:
        """The downstream task and its metric that the search goes by; None where it goes by the loss."""
        return _task_of(self.metric)

    @property
    def front_task(self) -> tuple[str, str] | None:
        """The task and its metric whose scores losses are set against; None without such a front."""
        return _task_of(self.score or "")

    @property
    def scored(self) -> tuple[str, str] | None:
        """The task and its metric that every trial of the search is scored on."""
        return self.task or self.front_task


def _task_of(aim: str) -> tuple[str, str] | None:
    task, slash, metric = aim.partition("/")
    return (task, metric) if slash else None


class SamplerSettings(Settings):
    """What proposes the next trial."""

    name: Sampler = name_of(get_args(Sampler), "gp")
    seed: int = setting("a whole number from 0 to 4294967295", 0, ge=0, lt=2**32)


class BudgetSettings(Settings):
    """When the search ends: at what is used up first. Controls and the baseline count; runs under fresh
    seeds do not.

    The limits beside `trials` are hard: searched trials that run are stopped, too, at their next measurement;
    what they train until then is what a limit may be passed by. FLOPs and hours are those of training steps,
    hours times the GPUs that a trial has; `wall` is the time in which a driver searched.
    """

    trials: int = setting(
        "a whole number of at least 2 (the control and the baseline come first)", example=24, ge=2
    )
    tokens: int | None = setting("a whole number of at least 1, or null for no limit", None, ge=1)
    flops: float | None = setting("a finite number above 0, or null for no limit", None, gt=0)
    gpu_hours: float | None = setting("a finite number above 0, or null for no limit", None, gt=0)
    wall: float | None = setting("a finite number above 0 (seconds), or null for no limit", None, gt=0)
    # Judged by `ladders`, rung by rung.
    ladder: Annotated[Any, BeforeValidator(rungs)] = setting(
        "a list of rising amounts of tokens, as in [50M, 200M], each above trial.recipe.tokens", []
    )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that there are beside the number of trials, by name."""
        return {name: value for name, value in self.to_json().items() if name in LIMITS and value is not None}


LIMITS = tuple(name for name in BudgetSettings.model_fields if name not in ("trials", "ladder"))


class StoppingSettings(Settings):
    """When a trial is given up. `learned` needs nothing else; with the others none is before `grace` of its
    steps, and about `keep` pass each rung.
    """

    rule: StoppingRule = name_of(get_args(StoppingRule), "learned")
    on: Amount = name_of(get_args(Amount), "steps")  # what trials are compared at
    grace: float = setting("a share of the steps between 0 and 1", 0.2, gt=0, lt=1)
    keep: float = setting("a share of the trials between 0 and 1", 0.33, gt=0, lt=1)


class ControlSettings(Settings):
    """The original trained on: what of it, at how many learning rates, and whether also with the winner's
    FLOPs.
    """

    train: ControlTrained = name_of(get_args(ControlTrained), "all")
    rates: int = setting("a whole number of at least 1 (learning rates)", 5, ge=1)
    matched: bool = setting("true or false", default=True)


class FinalistSettings(Settings):
    """How many of the best (of all, or `per` value of a setting) are run again, and under how many fresh
    seeds; the seed of the search is none.
    """

    top: int = setting("a whole number of at least 1", 3, ge=1)
    # Each one is listed wherever an answer is read.
    seeds: int = setting("a whole number from 1 to 1000", 3, ge=1, le=1000)
    # Judged by `margins`, in one message.
    margin: Annotated[Any, BeforeValidator(canonical)] = setting(
        "nats per token, a percentage of the loss, or null for the data's noise", None
    )
    per: str | None = setting("a searched path with choices, each to have its own, or null", None)


class RetrySettings(Settings):
    """How often a trial runs again, from its last checkpoint, that ended without a result, by the cause."""

    lost: int = setting("a whole number of at least 0 (deaths of the worker at one place)", 4, ge=0)
    hung: int = setting("a whole number of at least 0", 2, ge=0)
    error: int = setting("a whole number of at least 0", 1, ge=0)
    halve_micro_batch: bool = setting("true or false (when the device's memory is too small)", default=True)
    silence: float = setting(
        "a finite number above 0 (seconds without a step that are always allowed)", 60.0, gt=0
    )


class StorageSettings(Settings):
    """Where results are kept."""

    study: str = setting(
        "sqlite, or an address sqlite:///... or postgresql://...", "sqlite", min_length=1, repr=False
    )
    artifacts: str = setting("a folder", "runs", min_length=1)


class TrackingSettings(Settings):
    """Where MLflow is."""

    uri: str = setting(
        "sqlite, or an address sqlite:///... or http(s)://...", "sqlite", min_length=1, repr=False
    )
