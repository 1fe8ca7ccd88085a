"""What processes that hold a model together send each other, and how fast that lets them train: a model.

Nothing here was measured on such machines. Under FSDP2 every layer is gathered for the forward pass and again
for the backward pass, what is outside the layers once, and gradients are summed once, in float32. Of each, a
process receives and sends all but its own share. Sending and calculating overlap wholly; each pass takes the
longer of the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from tli.growth.activations import BF16, FP32, Setting, grown
from tli.growth.cost import cost
from tli.models.base import Base
from tli.planning.plan import Plan


@dataclass(frozen=True)
class Card:
    """A GPU: peak FLOPs a second, the share of it that matrix products reach, and bytes a second of its link
    to the others, in each direction.
    """

    flops: float
    reached: float
    link: float


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


def sent_bytes(base: Base, plan: Plan, setting: Setting) -> int:
    """Bytes that one process sends in a pass: two gatherings of the layers, one of the rest, one sum.

    Raises:
        FamilyError: the architecture is not known.
    """
    model = grown(base, plan, setting.train, setting.also)
    width = BF16 if setting.precision == "bf16" else FP32
    gathered = width * (2 * (model.parameters - model.root) + model.root)
    return (gathered + FP32 * model.trained) * (setting.ranks - 1) // setting.ranks


def one_pass(base: Base, plan: Plan, setting: Setting, card: Card, *, sequence_length: int) -> Pass:
    """How long a pass takes on a card, and how much of it is used.

    Args:
        base: the model that is grown.
        plan: how.
        setting: how it is trained.
        card: of each process.
        sequence_length: in tokens.

    Raises:
        FamilyError: the architecture is not known.
    """
    of_model = (
        setting.tokens
        * cost(
            base, plan, sequence_length=sequence_length, train=setting.train, also=setting.also
        ).flops_per_token
    )
    again = 1 / (3 * setting.checkpointing) if setting.checkpointing else 0.0
    calculating = of_model * (1 + again) / (card.flops * card.reached)
    sent = sent_bytes(base, plan, setting)
    sending = sent / card.link
    return Pass(sent, calculating, sending, of_model / (card.flops * max(calculating, sending)))
