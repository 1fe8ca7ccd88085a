"""The settings of the control: the original, trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def control_settings(baseline: Mapping[str, Any]) -> dict[str, Any]:
    """The baseline without injection: the original model, its layers trained on the same tokens."""
    injection = {**baseline["injection"], "method": "none"}
    recipe = {**baseline["recipe"], "train": "all"}
    if recipe.get("rates", {}).get("original") == 0:  # frozen for the sake of the injected ones
        recipe["rates"] = {**recipe["rates"], "original": 1.0}
    return {**baseline, "injection": injection, "recipe": recipe}
