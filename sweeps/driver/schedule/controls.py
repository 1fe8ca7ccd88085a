"""The settings of a sweep's control, from its baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def control_settings(baseline: Mapping[str, Any], train: str = "all") -> dict[str, Any]:
    """The baseline without injection: the original model, trained on the same tokens.

    Args:
        baseline: the whole `trial:` section.
        train: all of the original, or the layers of it that the baseline's new ones are made of, at the rate
            of these.
    """
    injection = {**baseline["injection"], "method": "none"}
    if train == "layers":
        rate = baseline["recipe"].get("injected_learning_rate") or baseline["recipe"]["learning_rate"]
        rates = baseline["recipe"].get("rates", {})
        recipe = {
            **baseline["recipe"],
            "learning_rate": rate * rates.get("injected", 1.0),
            "injected_learning_rate": None,
            "rates": {**rates, "injected": 1.0},
        }
        return {**baseline, "injection": injection, "recipe": recipe}
    recipe = {**baseline["recipe"], "train": "all"}
    if recipe.get("rates", {}).get("original") == 0:  # frozen for the sake of the injected ones
        recipe["rates"] = {**recipe["rates"], "original": 1.0}
    return {**baseline, "injection": injection, "recipe": recipe}
