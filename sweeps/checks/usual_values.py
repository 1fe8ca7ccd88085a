"""Warnings for settings that can run and are seldom meant: unusual rates, more work than a day holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sweeps.checks.estimate import Estimate, estimate
from sweeps.checks.measured import measured_tokens, tokens_of_the_test
from sweeps.checks.placement import slots, this_machine
from sweeps.spec import Spec
from sweeps.spec.equivalence import key, replaced
from sweeps.spec.fields import LEARNING_RATE
from sweeps.spec.margins import as_written, percent_of
from sweeps.spec.recipe_settings import RecipeSettings
from sweeps.text import counted, duration
from tli.models.base import Base
from tli.planning.injection import Injection, Method

# By dotted path: below and above what a value is remarked on, and what is usual.
_USUAL = {
    "recipe.learning_rate": (1e-8, 0.05, "1e-5 to 1e-2 with AdamW"),
    "recipe.injected_learning_rate": (1e-8, 0.05, "1e-5 to 1e-2 with AdamW"),
    "recipe.weight_decay": (0.0, 1.0, "0 to 0.1"),
    "recipe.clip": (0.01, 100.0, "about 1"),
    "recipe.warmup": (0.0, 0.5, "0.01 to 0.1"),
    "injection.noise": (0.0, 1.0, "0 to 0.1"),
}
_WIDE_NATS, _WIDE_PERCENT = 0.01, 0.3  # of a margin; three times what other seeds do, as measured
_FEW_STEPS = 8
_FEW_TOKENS = 1024  # held out
# Training speed of one core and of one GPU, roughly: a laptop's and a data centre's are apart by ten times.
_CORE_FLOPS, _GPU_FLOPS = 2e10, 2e13
_LONG = 24 * 3600.0  # seconds
_CONTROL = {"injection": {"method": "none"}, "recipe.train": "all"}
_ROUNDING = {"micro_batch_tokens", "activation_checkpointing", "compile"}  # change no trial but for rounding


def habit_notes(spec: Spec, base: Base, *, local: bool, heldout: int | None = None) -> Iterator[str]:
    """Remarks on a spec that has no problems; none of them keeps it from running.

    Args:
        spec: a spec that fits its base.
        base: its base; only headers and configuration are read.
        local: whether the trials run on this machine.
        heldout: tokens of held-out text that are there, where that is known.
    """
    yield from _unusual(spec)
    yield from _without_effect(spec)
    yield from _unread(spec, base.facts.depth)
    yield from _too_little(spec, heldout)
    yield from _control(spec)
    yield from _margin(spec)
    if local:
        yield from _long(spec, estimate(spec, base, heldout=heldout))


def _unusual(spec: Spec) -> Iterator[str]:
    for path, (least, most, usual) in _USUAL.items():
        value = spec.value(path)
        if value is not None and not least <= value <= most:
            yield f"trial.{path} is {value:g}; {usual} is usual"
        ends = spec.search[path].ends if path in spec.search else ()
        wide = [end for end in ends if isinstance(end, int | float) and not least <= end <= most]
        if wide:
            yield f"search.{path} goes to {max(wide, key=abs):g}; {usual} is usual"


def _without_effect(spec: Spec) -> Iterator[str]:
    """Settings that are searched for methods, too, that do not read them."""
    method = spec.search.get("injection.method")
    for path, wanted in spec.search.items():
        section, _, name = path.partition(".")
        if method is None or section != "injection" or "injection.method" in wanted.when:
            continue
        idle = [each for each in method.ends if not _reads(each, name.partition(".")[0])]
        if idle:
            reading = ", ".join(each for each in method.ends if each not in idle)
            yield (
                f"search.{path} has no effect with {', '.join(idle)}: the sampler learns less from those; "
                f"when: {{injection.method: [{reading}]}} asks for it where it has"
            )


def _unread(spec: Spec, depth: int) -> Iterator[str]:
    """Settings that change no trial, with whatever other choice; searched, or written into the recipe."""
    for path, wanted in spec.search.items():
        if len(wanted.ends) > 1 and _alike(spec, path, wanted.ends, depth):
            yield f"search.{path} changes no trial: beside the other settings it has no effect"
    written, usual = spec.trial.recipe.model_dump(), RecipeSettings().model_dump()
    for name in sorted(spec.trial.recipe.model_fields_set - _ROUNDING):
        path, ends = f"recipe.{name}", (written[name], usual[name])
        if path not in spec.search and ends[0] != ends[1] and _alike(spec, path, ends, depth):
            yield f"trial.{path} changes no trial: beside the other settings it has no effect"


def _alike(spec: Spec, path: str, values: Sequence[Any], depth: int) -> bool:
    """Whether trials that differ in one setting alone are the same, with whatever other choice."""
    baseline = spec.trial.model_dump()
    others = [(other, each.ends) for other, each in spec.search.items() if other != path]
    beside: list[dict[str, Any]] = [{}, *({other: end} for other, ends in others for end in ends)]
    if path.startswith("recipe."):
        beside.append(_CONTROL)
    made = ({key(replaced(baseline, {**more, path: value}), depth) for value in values} for more in beside)
    return all(len(different) == 1 for different in made)


def _reads(method: Method, name: str) -> bool:
    """Whether a setting has an effect; the original model has no first weights, and no experts."""
    return name == "method" or (method != "none" and Injection(method).read_by_method(name))


def _too_little(spec: Spec, heldout: int | None) -> Iterator[str]:
    steps, data = spec.steps, spec.data
    if steps < _FEW_STEPS:
        tokens, batch = spec.trial.recipe.tokens, spec.trial.recipe.batch_tokens
        few = counted(steps, "step")
        yield f"a trial of {tokens:,} tokens is {few} of {batch:,}: too few to tell rates apart"
    if data.eval_tokens < _FEW_TOKENS:
        rough = "a loss over so little text is rough; 8,192 and more are usual"
        yield f"data.eval_tokens is {data.eval_tokens:,}: {rough}"
    # On no more than there is: where that is less, `sweeps.checks.data.amount_notes` says so.
    measured = measured_tokens(spec, heldout)
    trained = steps * spec.trial.recipe.batch_tokens
    if measured > 6 * trained:  # forward only, a third of the work of training
        what = f"measured on {measured:,} tokens and trained on {trained:,}"
        yield f"a trial is {what}: most of its time is measuring"
    if (tested := tokens_of_the_test(spec, heldout)) > 6 * trained:
        what = f"tested on {tested:,} tokens and trained on {trained:,}"
        yield f"a run under a fresh seed is {what}: most of its time is measuring (data.test_tokens)"


def _control(spec: Spec) -> Iterator[str]:
    """Learning rates of the control that were asked for and are not run."""
    asked, run = spec.control.rates, spec.control_rates
    if run == asked or "rates" not in spec.control.model_fields_set:
        return
    if LEARNING_RATE not in spec.search:
        yield f"control.rates is {asked}, and the control has 1: search.{LEARNING_RATE} is not there"
    else:
        yield (
            f"control.rates is {asked}, and the control has {run}, a quarter of budget.trials: "
            f"budget.trials={4 * asked} has room for {asked}"
        )


def _margin(spec: Spec) -> Iterator[str]:
    """A margin far above what other seeds and other text usually move a loss by."""
    margin = spec.finalists.margin
    percent = percent_of(margin)
    wide = percent > _WIDE_PERCENT if percent is not None else (margin or 0.0) > _WIDE_NATS
    if wide:
        yield (
            f"finalists.margin is {as_written(margin)}: other seeds usually move a loss by less than "
            f"{_WIDE_NATS:g} nats, so that nearly all would count as equally good; null takes it from data"
        )


def _long(spec: Spec, found: Estimate) -> Iterator[str]:
    wanted = spec.resources
    each = wanted.gpus * _GPU_FLOPS if wanted.gpus else wanted.cpus * _CORE_FLOPS
    each *= wanted.workers
    seconds = found.expected.flops / each / slots(spec, [this_machine()])
    if seconds > _LONG:
        speed = f"{each / 1e9:,.0f} GFLOP/s a trial"
        yield (
            f"about {duration(seconds)} on this machine, at a rough {speed}; sweeps plan --calibrate "
            "measures, and trial.recipe.tokens or budget.trials shorten it"
        )
