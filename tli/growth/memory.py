"""Bytes that a process needs to train a model, and what they are made of: arithmetic, without torch.

A training step is highest at one of a few points: when the loss is calculated and all layers keep what their
gradients need; in the backward pass, or at its end, when all gradients are there; or when the optimizer moves
the weights. Which one it is depends on the model and on how it is trained. Compared with steps of real models
of transformers under fake tensors by `tests/tli/test_memory.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from tli.growth.activations import BF16, FP32, Grown, Setting, casts, grown, kept, largest_layer
from tli.models.base import Base
from tli.planning.plan import Plan

# Logits that are in memory at once where they are calculated in pieces, and of these in float32.
PIECES, _SOFTMAX = {"cuda": 2**29, "cpu": 2**26}, 2**25
_EAGER = 8  # tensors in float32 of the one that an optimizer with moments in 8 bits is at, on a CPU
_PLAIN = 3  # tensors of all logits in float32: logarithms, and the gradients behind and before them


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at the highest point of a step, and the name of that point.

    `activations` are what layers keep for their gradients, `loss` what logits and their gradients take, and
    `buffers` what is there for a while: casts of weights, gathered layers, gradients before they are summed,
    the optimizer's copies.
    """

    weights: int = 0
    gradients: int = 0
    moments: int = 0
    activations: int = 0
    loss: int = 0
    buffers: int = 0
    at: str = ""

    @property
    def parts(self) -> dict[str, int]:
        """What it is made of, by name, without what is none."""
        sizes = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "at"}
        return {name: size for name, size in sizes.items() if size}

    @property
    def total(self) -> int:
        """All together."""
        return sum(self.parts.values())


def memory(base: Base, plan: Plan, setting: Setting) -> Memory:
    """What one process of a training needs at the highest point of a step.

    Without what it keeps beside (a base, held-out text), without the libraries and the fragments that an
    allocator leaves: a tenth more on a GPU is a fair guess.

    Args:
        base: the model that is grown; only headers and configuration are read.
        plan: how.
        setting: how it is trained.

    Raises:
        FamilyError: its architecture is not known.
    """
    model = grown(base, plan, setting.train, setting.also)
    points = _alone(model, setting) if setting.ranks == 1 else _sharded(model, setting)
    return max(points, key=lambda point: point.total)


def _states(model: Grown, setting: Setting) -> Memory:
    """What is there all the time."""
    weights = FP32 * model.trained + frozen_bytes(model, setting)
    moments = setting.moments * model.trained
    return Memory(weights=weights // setting.ranks, moments=round(moments / setting.ranks))


def frozen_bytes(model: Grown, setting: Setting) -> int:
    """Bytes of what is not trained, over all processes."""
    frozen = model.parameters - model.trained
    alone = setting.ranks == 1  # shards of a table that is the head, too, are as all others
    table = model.vocabulary * model.hidden if alone and model.outside.tied and setting.train != "all" else 0
    return setting.frozen * frozen + (FP32 - setting.frozen) * min(table, frozen)


def kept_base(base: Base, plan: Plan, setting: Setting) -> int:
    """Bytes of the base that a process keeps beside a training of `memory`: what a trial trains it copies, so
    that the base's own stays; what it does not train it has in common with the base.

    Args:
        base: the model that is grown.
        plan: how.
        setting: how it is trained; one of several processes has its rows of both.

    Raises:
        FamilyError: its architecture is not known.
    """
    model, alone = grown(base, plan, setting.train, setting.also), setting.ranks == 1
    table = model.vocabulary * model.hidden if alone and model.outside.tied else 0
    whole = setting.kept * base.facts.parameters + (FP32 - setting.kept) * table
    copied = setting.train == "all" or (plan.experts is not None and alone)
    common = 0 if copied else frozen_bytes(model, setting)
    return max(0, whole - common) // setting.ranks


def _alone(model: Grown, setting: Setting) -> list[Memory]:
    """The highest points of a model that one process holds."""
    everything, states = setting.train == "all", _states(model, setting)
    head = FP32 * model.outside.back if everything else 0
    embedding = FP32 * model.vocabulary * model.hidden if everything else 0
    each, one, cast = kept(model, setting), largest_layer(model, setting), casts(model, setting)
    again, pieces = setting.checkpointing > 0, setting.in_pieces(model.vocabulary)
    tied, summed = model.outside.tied, FP32 * model.trained
    lower = replace(states, gradients=summed - (0 if tied else embedding))
    forgotten = setting.checkpointing == 1 and pieces  # with the pass, of which no layer kept a cast
    return [
        *_at_the_loss(
            model, setting, replace(states, activations=each, buffers=0 if forgotten else cast), head
        ),
        replace(
            states,
            activations=each + (one if again else 0),
            gradients=head,
            buffers=cast // max(1, len(model.learning)) if again else cast,
            at="the backward pass of the last layer",
        ),
        replace(lower, activations=one, at="the backward pass of the first layer"),
        # Of an embedding that is the head, too, two gradients are added up, in place where one came before.
        replace(
            states,
            gradients=summed,
            buffers=embedding * (1 if pieces else 2) if tied else 0,
            at="the end of the backward pass",
        ),
        _at_the_step(model, setting, replace(states, gradients=summed)),
    ]


def _at_the_step(model: Grown, setting: Setting, states: Memory) -> Memory:
    """While the optimizer goes through the weights: with copies of all gradients, or of one tensor."""
    copies = states.gradients
    if setting.in_8_bits:
        copies = _EAGER * FP32 * model.largest // setting.ranks
    return replace(states, buffers=0 if setting.fused else copies, at="the optimizer's step")


def _sharded(model: Grown, setting: Setting) -> list[Memory]:
    """The highest points of one of several processes under FSDP2: a group for each layer, one for the rest.

    What is outside the layers stays gathered from the first layer to the last gradient; of the layers two
    are, the one that is calculated and the next. Gradients are summed over the processes in float32, from a
    copy.
    """
    ranks, width = setting.ranks, FP32 if setting.precision == "fp32" else BF16
    everything, states = setting.train == "all", _states(model, setting)
    root, layer = width * model.root, width * max(each.parameters for each in model.layers)
    of_layer = layer + layer * FP32 // width  # gradients of one layer, and the copy that is summed
    outside = model.root - model.outside.idle if everything else 0
    head = width * model.outside.back if everything else 0
    each, one = kept(model, setting), largest_layer(model, setting)
    in_layers, summed = FP32 * (model.trained - outside) // ranks, FP32 * model.trained // ranks
    gathered = replace(states, buffers=root + 2 * layer + of_layer)
    return [
        *_at_the_loss(model, setting, replace(states, activations=each, buffers=root + layer), head),
        replace(
            gathered,
            activations=each + (one if setting.checkpointing else 0),
            gradients=head,
            at="the backward pass of the last layer",
        ),
        replace(
            gathered,
            gradients=in_layers + head,
            activations=one,
            at="the backward pass of the first layer",
        ),
        replace(
            states,
            gradients=in_layers,
            buffers=(width + FP32) * outside,
            at="the end of the backward pass",
        ),
        _at_the_step(model, setting, replace(states, gradients=summed)),
    ]


def _at_the_loss(model: Grown, setting: Setting, states: Memory, head: int) -> list[Memory]:
    """While logits are calculated and differentiated, all of a pass at once or piece by piece.

    Args:
        model: of which the layers were passed.
        setting: how it is trained.
        states: what is there beside.
        head: bytes of a gradient of the head.
    """
    logits = setting.tokens * model.vocabulary
    stream = 3 * FP32 * setting.tokens * model.hidden  # behind the last norm
    states = replace(states, at="the loss")
    if not setting.in_pieces(model.vocabulary):
        return [replace(states, loss=_PLAIN * FP32 * logits + stream)]
    width, alone = (BF16 if setting.precision == "bf16" else FP32), setting.ranks == 1
    ready = setting.train != "all" and setting.frozen == BF16 and not model.outside.tied
    # The head is cast for it, but where it is kept so.
    beside = stream + (BF16 * model.outside.back if width == BF16 and alone and not ready else 0)
    first = min(logits, setting.pieces)
    second = min(logits - first, setting.pieces)
    if second and not alone:  # autograd goes back from the last piece, which is what the others leave
        first, second = logits % setting.pieces or setting.pieces, setting.pieces
    points = [
        replace(states, loss=2 * width * first + 2 * FP32 * min(first, _SOFTMAX) + beside),
        replace(states, loss=width * first + beside, gradients=head),
    ]
    if second:
        points.append(
            replace(
                states, loss=2 * width * second + 2 * FP32 * min(second, _SOFTMAX) + beside, gradients=head
            )
        )
        # Gradients of two pieces are added up: in place, but for shards, where there is a third with the sum,
        # and no logits any more.
        added = replace(states, loss=width * second + beside, gradients=2 * head)
        points.append(added if alone else replace(states, loss=beside, gradients=3 * head))
    return points
