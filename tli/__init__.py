"""Grow one pretrained causal language model deeper: plan, upscale, train, verify, write it out.

Examples
--------
From folder to folder, without loading a model, and the proof of what was written:

>>> import tli
>>> grown = tli.upscale("my-model/", "bigger/", k=4, init="identity")
>>> bool(tli.verify(grown))
True

In memory:

>>> model = tli.load_model("my-model/")
>>> deeper = tli.grow(model, tli.plan(model.config.num_hidden_layers, k=4))
>>> model.config.num_hidden_layers, deeper.config.num_hidden_layers
(4, 5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "DivergedError",
    "Experts",
    "Injection",
    "InputError",
    "Plan",
    "Recipe",
    "Training",
    "__version__",
    "evaluate",
    "find",
    "grow",
    "load_model",
    "plan",
    "upscale",
    "verify",
]

if TYPE_CHECKING:
    from tli.errors import DivergedError, InputError
    from tli.growth.folders import upscale, verify
    from tli.growth.in_memory import grow
    from tli.models.base import find
    from tli.models.loading import load_model
    from tli.planning.experts import Experts
    from tli.planning.injection import Injection
    from tli.planning.plan import Plan, plan
    from tli.training.evaluate import evaluate
    from tli.training.loop import Training
    from tli.training.recipe import Recipe

    __version__: str
else:  # hidden from type checkers, which would believe that every name is there
    from tli.lazy import lazy

    __getattr__, __dir__ = lazy(
        __name__,
        {
            "DivergedError": "tli.errors",
            "Experts": "tli.planning.experts",
            "Injection": "tli.planning.injection",
            "InputError": "tli.errors",
            "Plan": "tli.planning.plan",
            "Recipe": "tli.training.recipe",
            "Training": "tli.training.loop",
            "evaluate": "tli.training.evaluate",
            "find": "tli.models.base",
            "grow": "tli.growth.in_memory",
            "load_model": "tli.models.loading",
            "plan": "tli.planning.plan",
            "upscale": "tli.growth.folders",
            "verify": "tli.growth.folders",
        },
    )
