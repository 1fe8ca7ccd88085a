"""The sections of a spec as frozen models, every field with words for what belongs in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from sweeps.spec.ranges import LARGEST_INT
from tli.data import settings
from tli.places import means_null
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
from tli.training.recipe import PRECISIONS, SCHEDULES, TRAINED, Precision, Recipe, Schedule, Trained

Sampler = Literal["gp", "tpe", "random", "qmc", "grid"]
Answer = Literal["best", "each"]
Amount = Literal["steps", "tokens", "flops", "seconds"]
StoppingRule = Literal["learned", "asha", "hyperband", "median", "none"]
GRACED: tuple[StoppingRule, ...] = ("asha", "hyperband", "median")  # those that have a grace


def setting(expected: str, default: Any = ..., *, example: Any = None, **limits: Any) -> Any:
    """A field with what belongs there in words, and an example of it."""
    shown_example = example if example is not None or default is ... else default
    return Field(default, description=expected, examples=[shown_example], **limits)


def name_of(names: Sequence[str], default: Any = ..., **limits: Any) -> Any:
    """A field that holds one of a few names."""
    return setting(f"one of {', '.join(names)}", default, json_schema_extra={"names": [*names]}, **limits)


def section(model: type[BaseModel], example: Any = None) -> Any:
    """A field that holds a section; with an example it must be there."""
    expected = f"a mapping of {', '.join(model.model_fields)}"
    if example is not None:
        return Field(..., description=expected, examples=[example])
    return Field(default_factory=model, description=expected, examples=[None])


class Settings(BaseModel):
    """A section of the spec: frozen, strict in its types, without unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _known(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None, "every validated field has a name"
        extra = cls.model_fields[info.field_name].json_schema_extra
        names = extra.get("names") if isinstance(extra, dict) else None
        if isinstance(names, list) and value is not None and value not in names:
            raise ValueError("not a known name")
        if names is None and info.field_name != "name" and isinstance(value, str) and means_null(value):
            raise ValueError("null is meant")
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            raise ValueError("too large a number")
        return value

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return self.model_dump()


class BaseSettings(Settings):
    """The model that is upscaled."""

    model: str = setting(
        "a hub id, a folder or builtin:tiny-llama", example="builtin:tiny-llama", min_length=1
    )
    revision: str | None = setting("a commit, tag or branch on the hub, or null", None, min_length=1)


class DataSettings(Settings):
    """The text; the fields of `tli.data.settings.DataSettings`."""

    source: str = setting(
        "builtin:stdlib, files by name or glob, or a dataset", example="builtin:stdlib", min_length=1
    )
    heldout: str | None = setting("files by name or glob, a dataset, or null", None, min_length=1)
    heldout_fraction: float = setting("a share between 0 and 1", 0.05, gt=0, lt=1)
    text_field: str = setting("the name of a column", "text", min_length=1)
    split: str = setting("the name of a split", "train", min_length=1)
    configuration: str | None = setting("a configuration (subset) on the hub, or null", None, min_length=1)
    revision: str | None = setting("a commit, tag or branch on the hub, or null", None, min_length=1)
    heldout_split: str | None = setting("the name of a split, or null for split", None, min_length=1)
    heldout_configuration: str | None = setting(
        "a configuration (subset) on the hub, or null", None, min_length=1
    )
    heldout_revision: str | None = setting("a commit, tag or branch on the hub, or null", None, min_length=1)
    max_tokens: int | None = setting(
        "a whole number of at least 1 (training tokens that are read), or null for all", None, ge=1
    )
    sequence_length: int = setting("a whole number of at least 2", 128, ge=2)
    eval_tokens: int = setting("a whole number of at least one sequence", 16_384, ge=1)
    test_tokens: int = setting("a whole number of at least one sequence", 65_536, ge=1)

    def to_tli(self) -> settings.DataSettings:
        """As `tli` takes it."""
        return settings.DataSettings(**self.to_json())


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
    scale: Any = setting("a residual scale between 0 and 1, or null", None, example=0.5)
    source: Origin = name_of(SOURCES, Injection.source)
    noise: float = setting("a number of at least 0", Injection.noise, ge=0)
    identity: Identity = name_of(IDENTITIES, Injection.identity)
    experts: ExpertSettings = section(ExpertSettings)

    @field_validator("scale", mode="before")
    @classmethod
    def _fractional(cls, value: Any) -> Any:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class RecipeSettings(Settings):
    """How every trial is trained; the fields of `tli.training.recipe.Recipe`."""

    learning_rate: float = setting("a finite number above 0", Recipe.learning_rate, gt=0)
    injected_learning_rate: float | None = setting(
        "a finite number above 0, or null for learning_rate", Recipe.injected_learning_rate, gt=0
    )
    tokens: int = setting("a whole number of at least 1", Recipe.tokens, ge=1)
    batch_tokens: int = setting("a whole number of at least 1", Recipe.batch_tokens, ge=1)
    micro_batch_tokens: int | None = setting(
        "a whole number of at least 1, or null for the whole batch", Recipe.micro_batch_tokens, ge=1
    )
    warmup: float = setting("a share of the steps, from 0 to below 1", Recipe.warmup, ge=0, lt=1)
    schedule: Schedule = name_of(SCHEDULES, Recipe.schedule)
    weight_decay: float = setting("a finite number of at least 0", Recipe.weight_decay, ge=0)
    clip: float | None = setting("a finite number above 0, or null", Recipe.clip, gt=0)
    train: Trained = name_of(TRAINED, Recipe.train)
    precision: Precision = name_of(PRECISIONS, Recipe.precision)
    activation_checkpointing: int = setting("0, or 1, 2, ... (layers)", Recipe.activation_checkpointing, ge=0)
    compile: bool = setting("true or false", Recipe.compile)


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
    """What is minimised, and where trials are made equal."""

    metric: Literal["eval_loss"] = name_of(("eval_loss",), "eval_loss")
    at: Literal["tokens"] = name_of(("tokens",), "tokens")
    answer: Answer = name_of(get_args(Answer), "best")


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

    @property
    def limits(self) -> dict[str, float]:
        """The limits that there are beside the number of trials, by name."""
        return {name: value for name, value in self.to_json().items() if name in LIMITS and value is not None}


LIMITS = tuple(name for name in BudgetSettings.model_fields if name != "trials")


class StoppingSettings(Settings):
    """When a trial is given up. `learned` needs nothing else; with the others none is before `grace` of its
    steps, and about `keep` pass each rung.
    """

    rule: StoppingRule = name_of(get_args(StoppingRule), "learned")
    on: Amount = name_of(get_args(Amount), "steps")  # what trials are compared at
    grace: float = setting("a share of the steps between 0 and 1", 0.2, gt=0, lt=1)
    keep: float = setting("a share of the trials between 0 and 1", 0.33, gt=0, lt=1)


class ControlSettings(Settings):
    """The original trained on: at how many learning rates, and whether also with the winner's FLOPs."""

    rates: int = setting("a whole number of at least 1 (learning rates)", 5, ge=1)
    matched: bool = setting("true or false", default=True)


class FinalistSettings(Settings):
    """How many of the best (of all, or `per` value of a setting) are run again, and under how many fresh
    seeds; the seed of the search is none.
    """

    top: int = setting("a whole number of at least 1", 3, ge=1)
    seeds: int = setting("a whole number of at least 1", 3, ge=1)
    margin: float | None = setting(
        "a finite number of at least 0 (nats per token), or null for the data's noise", None, ge=0
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
