"""Makes `docs/sizes.md`: `python docs/generate_sizes.py`. Every number in it is calculated here.

`tests/test_sizes.py` makes the page again and compares, so that it cannot be out of date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tli.growth.activations import Setting, Trained
from tli.growth.cost import cost
from tli.growth.memory import PIECES, kept_base, memory
from tli.growth.traffic import CARDS, COMPILED, one_pass
from tli.models.base import Base
from tli.models.descriptions import described
from tli.planning.injection import Injection
from tli.planning.plan import Plan, plan_for

PAGE = Path(__file__).parent / "sizes.md"
SEQUENCE, K = 4096, 4
SMALL = ("llama-3.2-1b", "llama-3.2-3b", "qwen3-4b", "gemma-3-4b", "olmo-2-7b", "llama-3.1-8b")
LARGE = ("llama-3.1-70b", "llama-3.1-405b")
ROOM, MARGIN = 80e9, 1.1  # bytes of a card, and what fragments and libraries may take
CARD = next(card for card in CARDS if card.name == "H100")
STORE = 10e9  # bytes a second that a shared store takes
EVERY = 10  # minutes between states
GIB = 2**30


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Sizes: from 1B to 405B"
    yield ""
    yield f"""<!-- Made by docs/generate_sizes.py; do not edit. -->

What a model of some size needs, calculated from packaged descriptions (`config.json` and shapes, no weights) by what
`tli plan` and `sweeps plan` calculate with. **No number of this page was measured on such machines.** The memory of
a step is compared with steps of real models of transformers under fake tensors, to 10 %, by `tests/tli/test_memory.py`;
times are those of a stated model.

All here are grown by one layer after every {K} and trained whole in bf16 (weights, gradients and moments in
float32), in sequences of {SEQUENCE:,} tokens, with activation checkpointing in every layer and logits in pieces.
A card has {ROOM / 1e9:.0f} GB ({ROOM / GIB:.1f} GiB); a number in **bold** does not fit in it with a tenth left for
fragments and libraries."""
    yield ""
    yield "## One to eight cards"
    yield ""
    yield "GiB of each card, at one sequence a pass and card:"
    yield ""
    head = ("model", "parameters", "grown", "1 card", "4 cards", "8 cards", "4 cards, none checkpointed")
    yield from _table(head, [_small(name) for name in SMALL])
    yield ""
    yield """With `train: injected` there are gradients and moments for new layers alone, and frozen matrices are those of the
base that the process keeps, once, in bfloat16 where that loses nothing. The control, which has no new layers, trains the
whole original; where there is no room for that, `control.train: layers` has it train as many of its own layers as are
new, and the answer says so. GiB of one card, of a trial with all that is kept, at K of 4, and of that control:"""
    yield ""
    head = ("model", "all trained", "injected alone", "the same, none checkpointed", "control of layers")
    yield from _table(head, [_alone(name) for name in SMALL])
    yield ""
    yield "## 70B and 405B"
    yield ""
    yield "Upscaling reads and writes bytes, layer by layer, and holds no model in memory:"
    yield ""
    head = ("model", "parameters", "grown", "read, GB", "written, GB", "minutes at 2 GB/s")
    yield from _table(head, [_upscaled(name) for name in LARGE])
    yield ""
    yield "A step on many cards, GiB of each:"
    yield ""
    head = (
        "model",
        "cards",
        "sequences",
        "weights",
        "moments",
        "gradients",
        "activations",
        "loss",
        "buffers",
        "total",
    )
    yield from _table(head, [_parts(name, *at) for name in LARGE for at in _PLACES])
    yield ""
    yield f"""What a pass sends and how long it takes, by this model: matrix products reach {COMPILED:.1%} of
{CARD.flops / 1e12:.0f} TFLOP/s, a card sends and receives {CARD.network / 1e9:.0f} GB/s, and both overlap wholly, so that a
pass takes the longer of the two. All weights are gathered twice, in bf16; gradients are summed once, in float32. The
bytes are compared with what processes send by `tests/tli/test_sharded.py`; the share of the peak is what compiled layers
of 1B reached on an H200, the one card that was measured."""
    yield ""
    head = ("model", "cards", "sequences", "sent, GB", "calculating, s", "sending, s", "MFU")
    yield from _table(head, [_timed(name, *at) for name in LARGE for at in _PLACES])
    yield ""
    yield f"""A training state is weights and moments, 12 bytes a parameter. With one every {EVERY} minutes, beside a store
that takes {STORE / 1e9:.0f} GB/s:"""
    yield ""
    head = ("model", "state, GB", "GB a minute", "share of the store", "seconds to write")
    yield from _table(head, [_state(name) for name in LARGE])
    yield ""
    yield "## What breaks first"
    yield ""
    yield from _breaks()
    yield ""
    yield """## The whole path at 60M

Between the packaged base and a real model lies a Llama of 60M, which a checkout makes, with random weights or with
`--tokens 500000` trained on so many tokens of the built-in text first (minutes on two cores):

```sh
python -m tests.bench.llama_60m middle-base
sweeps plan quickstart --set base.model=middle-base --set trial.recipe.precision=bf16
```

From its spec to the exported winner, in bf16, in one process and over two: `make test ARGS="-m slow -k whole_path"`."""


_PLACES = ((64, 1), (64, 4), (512, 1), (512, 4))


def _breaks() -> Iterator[str]:
    base, plan = _grown("llama-3.1-405b")
    small, whole = (memory(base, plan, _setting(512, tokens)) for tokens in (1, 4))
    states = 16 * _parameters(base, plan) / 64
    seventy = one_pass(
        *_grown("llama-3.1-70b"), _setting(64, 1), CARD, sequence_length=SEQUENCE, compiled=True
    )
    head = 6 * 2 * base.facts.vocabulary * base.facts.hidden_size
    state = 12 * _parameters(base, plan)
    yield f"""1. **Memory, 405B on 64 cards.** Weights, gradients and moments alone are {states / GIB:.0f} GiB a card. On 512 they
   are {states / 8 / GIB:.0f} GiB, yet a pass of one sequence takes {small.total / GIB:.0f} GiB, of four {whole.total / GIB:.0f} GiB: what is not
   divided by the number of cards, gathered layers, their gradients and the inputs of {plan.new_depth} layers, is most of it.
2. **What is outside the layers.** Embedding and head stay gathered during a pass and their gradients are summed at its
   end from a copy in float32: {head / GIB:.0f} GiB for 405B on every card, however many there are. Another group for the
   head would halve it.
3. **The network, 70B at one sequence a card.** Sending takes {seventy.sending:.0f} s, calculating {seventy.calculating:.0f} s: {seventy.utilisation:.0%} MFU. Four
   sequences a card send the same bytes. Summing gradients in bf16 would save a third of them, and digits.
4. **The store.** A state of 405B is {state / 1e12:.1f} TB: {state / STORE / 60:.0f} minutes at {STORE / 1e9:.0f} GB/s, at every preemption of one trial. Several trials at
   once need a store for each, or states seldom.
5. **The number of trials.** On 512 cards one 405B trial runs at a time, if any: a search is for sizes of which many trials
   fit; `tli upscale` then grows the large one with the settings that won."""


def _grown(name: str) -> tuple[Base, Plan]:
    base = described(name)
    assert base is not None, name
    return base, plan_for(Injection("tli", k=K), base.facts.depth)


def _parameters(base: Base, plan: Plan) -> int:
    return cost(base, plan, sequence_length=SEQUENCE).parameters


def _setting(cards: int, sequences: int, *, checkpointing: int = 1) -> Setting:
    return Setting(
        tokens=sequences * SEQUENCE,
        precision="bf16",
        ranks=cards,
        checkpointing=checkpointing,
        pieces=PIECES["cuda"],
        fused=True,
    )


def _small(name: str) -> list[str]:
    base, plan = _grown(name)
    settings = [*(_setting(cards, 1) for cards in (1, 4, 8)), _setting(4, 1, checkpointing=0)]
    sizes = [_fitting(memory(base, plan, setting).total) for setting in settings]
    return [name, *_counts(base, plan), *sizes]


def _alone(name: str) -> list[str]:
    base, plan = _grown(name)
    width = 2 if base.facts.dtype == "BF16" else 4

    def whole(plan: Plan, *, train: Trained, checkpointing: int = 1, also: tuple[int, ...] = ()) -> str:
        setting = replace(
            _setting(1, 1, checkpointing=checkpointing), train=train, frozen=width, kept=width, also=also
        )
        return _fitting(memory(base, plan, setting).total + kept_base(base, plan, setting))

    original = plan_for(Injection("none"), base.facts.depth)
    sources = tuple(sorted({plan.sources[position] for position in plan.injected}))
    return [
        name,
        whole(plan, train="all"),
        whole(plan, train="injected"),
        whole(plan, train="injected", checkpointing=0),
        whole(original, train="injected", also=sources),
    ]


def _upscaled(name: str) -> list[str]:
    base, plan = _grown(name)
    read, written = 2 * base.facts.parameters / 1e9, 2 * _parameters(base, plan) / 1e9
    return [name, *_counts(base, plan), f"{read:.0f}", f"{written:.0f}", f"{(read + written) / 2 / 60:.1f}"]


def _parts(name: str, cards: int, sequences: int) -> list[str]:
    found = memory(*_grown(name), _setting(cards, sequences))
    parts = (found.weights, found.moments, found.gradients, found.activations, found.loss, found.buffers)
    return [name, str(cards), str(sequences), *(f"{part / GIB:.1f}" for part in parts), _fitting(found.total)]


def _timed(name: str, cards: int, sequences: int) -> list[str]:
    found = one_pass(*_grown(name), _setting(cards, sequences), CARD, sequence_length=SEQUENCE, compiled=True)
    times = (f"{found.calculating:.1f}", f"{found.sending:.1f}", f"{found.utilisation:.0%}")
    return [name, str(cards), str(sequences), f"{found.sent / 1e9:,.0f}", *times]


def _state(name: str) -> list[str]:
    state = 12 * _parameters(*_grown(name))
    minute = state / EVERY
    return [
        name,
        f"{state / 1e9:,.0f}",
        f"{minute / 1e9:,.0f}",
        f"{minute / 60 / STORE:.0%}",
        f"{state / STORE:,.0f}",
    ]


def _counts(base: Base, plan: Plan) -> list[str]:
    return [f"{base.facts.parameters / 1e9:.2f}e9", f"{_parameters(base, plan) / 1e9:.2f}e9"]


def _fitting(total: int) -> str:
    size = f"{total / GIB:.1f}"
    return size if total * MARGIN <= ROOM else f"**{size}**"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    columns = list(head)
    yield f"| {' | '.join(columns)} |"
    yield f"|---|{'---:|' * (len(columns) - 1)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
