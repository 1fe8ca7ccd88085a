"""The section `recipe` of a trial: how it is trained."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from sweeps.spec.section import Settings, name_of, section, setting
from tli.training.recipe import (
    AUTO,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    TRAINED,
    Optimizer,
    Precision,
    Rates,
    Recipe,
    Schedule,
    Trained,
)


def _multiple(default: float) -> Any:
    return setting("a finite number of at least 0 (times learning_rate; 0 freezes)", default, ge=0)


def _every(value: Any) -> Any:
    if value == AUTO or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError("neither a number of layers nor auto")


class RateSettings(Settings):
    """Learning rates of groups of parameters; the fields of `tli.training.recipe.Rates`."""

    injected: float = _multiple(Rates.injected)
    original: float = _multiple(Rates.original)
    norms: float = _multiple(Rates.norms)
    embeddings: float = _multiple(Rates.embeddings)
    router: float = _multiple(Rates.router)


class RecipeSettings(Settings):
    """How every trial is trained; the fields of `tli.training.recipe.Recipe`."""

    learning_rate: float = setting("a finite number above 0", Recipe.learning_rate, gt=0)
    injected_learning_rate: float | None = setting(
        "a finite number above 0, or null for learning_rate", Recipe.injected_learning_rate, gt=0
    )
    rates: RateSettings = section(RateSettings)
    optimizer: Optimizer = name_of(OPTIMIZERS, Recipe.optimizer)
    tokens: int = setting("a whole number of at least 1", Recipe.tokens, ge=1)
    batch_tokens: int = setting("a whole number of at least 1", Recipe.batch_tokens, ge=1)
    micro_batch_tokens: int | None = setting(
        "a whole number of at least 1, or null for the whole batch", Recipe.micro_batch_tokens, ge=1
    )
    warmup: float = setting("a share of the steps, from 0 to below 1", Recipe.warmup, ge=0, lt=1)
    warmup_tokens: int | None = setting(
        "a whole number of at least 0 (tokens), or null for warmup", Recipe.warmup_tokens, ge=0
    )
    schedule: Schedule = name_of(SCHEDULES, Recipe.schedule)
    decay: float = setting("a share of the steps above 0, up to 1", Recipe.decay, gt=0, le=1)
    weight_decay: float = setting("a finite number of at least 0", Recipe.weight_decay, ge=0)
    clip: float | None = setting("a finite number above 0, or null", Recipe.clip, gt=0)
    train: Trained = name_of(TRAINED, Recipe.train)
    precision: Precision = name_of(PRECISIONS, Recipe.precision)
    # Its two types in one message.
    activation_checkpointing: Annotated[Any, BeforeValidator(_every)] = setting(
        "0, or 1, 2, ... (layers), or auto", Recipe.activation_checkpointing
    )
    compile: bool = setting("true or false", Recipe.compile)
