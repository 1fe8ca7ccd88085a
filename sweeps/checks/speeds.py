"""What trials on GPUs send, store and reach, by a model: `tli.growth.traffic` says what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sweeps.checks.checkpointing import MARGIN, chosen, least
from sweeps.checks.memory import largest_trial
from sweeps.checks.shapes import Shape, plan_of, setting_of
from sweeps.clock import STATE_SECONDS
from sweeps.spec import Spec
from sweeps.text import in_bytes, short, table
from tli.growth.traffic import CARDS, COMPILED, REACHED, Card, one_pass, state_bytes
from tli.models.base import Base

STORE = 2e9  # bytes a second that a store takes, as one NVMe disk does


@dataclass(frozen=True)
class Speed:
    """The largest trial on cards of one kind.

    Attributes:
        card: the kind.
        fits: whether every trial of the sweep fits, with a tenth left.
        checkpointing: every how many layers one is calculated again; 0: none.
        utilisation: FLOPs of the model as a share of the card's peak (MFU).
        tokens_per_second: of one trial, over all its ranks.
        hours: of the sweep as it is expected to go, one trial at a time.
    """

    card: str
    fits: bool
    checkpointing: int
    utilisation: float
    tokens_per_second: float
    hours: float


@dataclass(frozen=True)
class Traffic:
    """What one rank of the largest trial sends, and what its trial stores.

    Attributes:
        pass_bytes: sent in one forward and backward pass, and received: what is gathered and summed.
        passes: of an optimizer step.
        step_bytes: sent in an optimizer step, and received.
        state_bytes: of one training state, of all ranks together.
        state_bytes_per_minute: written by one trial, where its store takes them as fast as they come.
        state_seconds: for one state at 2 GB/s.
        speeds: by kind of card; none where trials have no GPU or compute in float32.
    """

    pass_bytes: int
    passes: int
    step_bytes: int
    state_bytes: int
    state_bytes_per_minute: int
    state_seconds: float
    speeds: tuple[Speed, ...]


def traffic(spec: Spec, base: Base, shapes: Sequence[Shape], expected_flops: float, *, auto: bool) -> Traffic:
    """Of the largest of a sweep's trials.

    Args:
        spec: a checked spec.
        base: its base model; only headers and configuration are read.
        shapes: every size in play.
        expected_flops: of the whole sweep.
        auto: whether each kind of card has the checkpointing that its memory wants.
    """
    largest = max(shapes, key=lambda shape: shape.memory.total).injection
    plan, setting = plan_of(largest, base.facts.depth), setting_of(spec, base, largest)
    length, compiled = spec.data.sequence_length, spec.trial.recipe.compile
    passes = -(-spec.trial.recipe.batch_tokens // setting.ranks // setting.tokens)

    def speed(card: Card) -> Speed:
        room = card.memory / MARGIN
        every = least(spec, base, room) if auto else setting.checkpointing
        fits = largest_trial(chosen(spec, every), base).whole <= room
        here = replace(setting, checkpointing=every)
        found = one_pass(base, plan, here, card, sequence_length=length, compiled=compiled)
        tokens = setting.ranks * setting.tokens / found.seconds
        sweep = expected_flops / (card.flops * found.utilisation * setting.ranks) / 3600
        return Speed(card.name, fits, every, found.utilisation, tokens, sweep)

    told = spec.resources.gpus == 1 and setting.precision == "bf16"
    one = one_pass(base, plan, setting, CARDS[0], sequence_length=length)
    state = state_bytes(base, plan, setting)
    return Traffic(
        pass_bytes=one.sent,
        passes=passes,
        step_bytes=one.sent * passes,
        state_bytes=state,
        state_bytes_per_minute=round(state * 60 / STATE_SECONDS),
        state_seconds=state / STORE,
        speeds=tuple(map(speed, CARDS)) if told else (),
    )


def traffic_lines(it: Traffic, *, ranks: int, compiled: bool) -> Iterator[str]:
    """The same as lines for a terminal."""
    if ranks > 1:
        yield (
            f"each rank sends and receives {in_bytes(it.step_bytes)} a step: {it.passes} passes of "
            f"{in_bytes(it.pass_bytes)}"
        )
    yield (
        f"a training state is {in_bytes(it.state_bytes)}; one every {STATE_SECONDS:.0f} s is "
        f"{in_bytes(it.state_bytes_per_minute)} a minute and trial; a store of {STORE / 1e9:.0f} GB/s takes "
        f"{it.state_seconds:.1f} s for one, and none is begun before the last is there"
    )
    if not it.speeds:
        return
    yield ""
    rows = [
        (
            each.card,
            "yes" if each.fits else "no",
            str(each.checkpointing),
            f"{each.utilisation:.0%}",
            short(each.tokens_per_second),
            f"{each.hours:.1f}",
        )
        for each in it.speeds
    ]
    head = ("by a model, not measured", "fits", "checkpointing", "MFU", "tokens/s", "hours")
    yield from table(head, rows, left={0})
    reached = COMPILED if compiled else REACHED
    yield (
        f"products at {reached:.1%} of the peak, as a 1B model's on an H200; sending and calculating overlap"
        "; hours of the sweep as expected, one trial at a time"
    )
