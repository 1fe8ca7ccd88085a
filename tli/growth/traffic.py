"""What processes that hold a model together send each other, and how fast that lets them train: a model.

Under FSDP2 as `tli.sharded` has it every layer, and all that is outside the layers, is gathered for the
forward pass and again for the backward pass as far down as a gradient goes, and gradients are summed once, in
float32. Of each, a process sends and receives all but its own share. Those bytes are compared with what
processes send by `tests/tli/test_sharded.py`.

Times were measured on one card alone, an H200: matrix products reached so much of its peak. For other cards
it is taken to be the same share. Sending and calculating overlap wholly, and each pass takes the longer of
the two: no such machine was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from tli.growth.activations import BF16, FP32, Setting, grown
from tli.growth.cost import cost
from tli.models.base import Base
from tli.planning.plan import Plan

# Of the peak, a Llama of 1B, sequences of 4,096 tokens, bf16: with layers as they are, and compiled.
REACHED, COMPILED = 0.383, 0.515
A_NODE = 8  # cards of one machine


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: of it.
        flops: of its peak in bfloat16, dense, a second.
        memory: bytes.
        link: bytes a second to the other cards of its machine, in each direction.
        network: the same to cards of other machines.
    """

    name: str
    flops: float
    memory: float
    link: float
    network: float = 50e9  # 400 Gbit/s for each card

    def linked(self, ranks: int) -> float:
        """Bytes a second of the slowest link that so many cards send over."""
        return self.link if ranks <= A_NODE else self.network


CARDS = (
    Card("A100", 312e12, 80e9, 300e9),
    Card("H100", 989e12, 80e9, 450e9),
    Card("H200", 989e12, 141e9, 450e9),
)


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of one process.

    Attributes:
        sent: bytes that it sends, and receives.
        calculating: seconds, with what is calculated again.
        sending: seconds.
        utilisation: FLOPs of the model, what is calculated again left out, as a share of the card's peak.
    """

    sent: int
    calculating: float
    sending: float
    utilisation: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return max(self.calculating, self.sending)


def sent_bytes(base: Base, plan: Plan, setting: Setting) -> int:
    """Bytes that one process sends in a pass, and receives: two gatherings, one sum; 0 where it is alone.

    The rows that even out tensors whose first dimension the processes do not divide are left out.

    Raises:
        FamilyError: the architecture is not known.
    """
    model = grown(base, plan, setting.train, setting.also)
    width = BF16 if setting.precision == "bf16" else FP32
    # FSDP2 gathers ahead: of the layers without a gradient the highest, too.
    again = model.layers[max(0, model.lowest - 1) :]
    gathered = width * (model.parameters + model.root + sum(layer.parameters for layer in again))
    return (gathered + FP32 * model.trained) * (setting.ranks - 1) // setting.ranks


def one_pass(
    base: Base, plan: Plan, setting: Setting, card: Card, *, sequence_length: int, compiled: bool = False
) -> Pass:
    """How long a pass takes on a card, and how much of it is used.

    Args:
        base: the model that is grown.
        plan: how.
        setting: how it is trained, in bf16.
        card: of each process.
        sequence_length: in tokens.
        compiled: whether layers are.

    Raises:
        FamilyError: the architecture is not known.
    """
    found = cost(base, plan, sequence_length=sequence_length, train=setting.train, also=setting.also)
    of_model = setting.tokens * found.flops_per_token
    again = 1 / (3 * setting.checkpointing) if setting.checkpointing else 0.0
    calculating = of_model * (1 + again) / (card.flops * (COMPILED if compiled else REACHED))
    sent = sent_bytes(base, plan, setting)
    sending = sent / card.linked(setting.ranks)
    return Pass(sent, calculating, sending, of_model / (card.flops * max(calculating, sending)))


def state_bytes(base: Base, plan: Plan, setting: Setting) -> int:
    """Bytes of a training state on disk: weights in float32 and moments of what is trained.

    Raises:
        FamilyError: the architecture is not known.
    """
    return round((FP32 + setting.moments) * grown(base, plan, setting.train, setting.also).trained)
