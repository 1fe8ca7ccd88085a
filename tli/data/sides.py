"""The sides of a text: trained on, held out to choose by, and test text for what is claimed of the choice."""

from __future__ import annotations

from typing import Literal, get_args

Side = Literal["train", "heldout", "test"]
SIDES: tuple[Side, ...] = get_args(Side)
