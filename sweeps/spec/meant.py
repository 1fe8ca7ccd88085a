"""What to type instead of a wrong name or value, where what was meant can be told from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sweeps.wording import formatted, nearest
from tli.places import is_address, means_null

# What other programs call a setting; by its last name.
_ALIASES = {
    "batch_size": "batch_tokens",
    "dataset": "source",
    "dtype": "precision",
    "epochs": "tokens",
    "gpu": "gpus",
    "max_length": "sequence_length",
    "max_steps": "tokens",
    "mlflow": "uri",
    "n_trials": "trials",
    "num_samples": "trials",
    "num_trials": "trials",
    "scheduler": "rule",
    "seq_len": "sequence_length",
    "steps": "tokens",
    "timeout": "wall",
}
# How a section is switched off whose settings have defaults that do something.
_OFF = {
    "stopping": "{rule: none}",
    "control": "{rates: 1, matched: false}",
    "finalists": "{top: 1, seeds: 1}",
    "retries": "{lost: 0, hung: 0, error: 0}",
}
# The setting of a section that a single value is meant for; an address in `storage` means its study.
_MAIN = {
    "base": "model",
    "data": "source",
    "stopping": "rule",
    "sampler": "name",
    "objective": "metric",
    "budget": "trials",
    "control": "rates",
    "finalists": "top",
    "tracking": "uri",
    "storage": "artifacts",
}
_QUANTITY = re.compile(r"\s*(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-z]+)\s*")
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "hours": 3600, "d": 86400}
_HOURS = {"m": 1 / 60, "min": 1 / 60, "h": 1, "hour": 1, "hours": 1, "d": 24, "day": 24, "days": 24}
_COUNTS = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12, "p": 10**15, "e": 10**18}


def alias(name: str, leaves: Iterable[str]) -> str | None:
    """The last name of the setting that a name stands for: others call it so, or its words begin so."""
    known = list(leaves)
    if _ALIASES.get(name.lower()) in known:
        return _ALIASES[name.lower()]
    initials = (leaf for leaf in known if "_" in leaf and _initials(leaf) == name.lower())
    return next(initials, None)


def switched_off(path: str, value: Any) -> str | None:
    """How a section is switched off, where it was given a word for nothing."""
    nothing = value is None or value is False or (isinstance(value, str) and means_null(value))
    return _OFF.get(path.rpartition(".")[2]) if nothing else None


def as_section(path: str, value: Any, names: Mapping[str, tuple[str, ...]]) -> str | None:
    """The section that a single value was meant for one setting of; None where that cannot be told.

    Args:
        path: of the section.
        value: that stands in its place.
        names: by the setting's last name, what alone may stand there; nothing where anything may.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or means_null(str(value)):
        return None
    setting = _MAIN.get(path)
    if path == "storage" and (is_address(str(value)) or value == "sqlite"):
        setting = "study"
    if setting is None:
        return None
    allowed = names.get(setting, ())
    meant = nearest(str(value), allowed) if allowed else _plain(value)
    return f"{{{setting}: {meant}}}" if meant else None


def in_units(path: str, value: Any, expected: str) -> str | None:
    """The plain number of a text with a unit: `1h` of seconds is 3600, `5M` tokens are 5000000."""
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or "number" not in expected:
        return None
    units = _SECONDS if "(seconds" in expected else _HOURS if path.endswith("hours") else _COUNTS
    unit, number = match["unit"].lower(), float(match["number"].replace("_", ""))
    if unit not in units:
        return None
    exact = number * units[unit]
    return f"{exact:.0f}" if exact == int(exact) else f"{exact:g}"


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def _plain(value: Any) -> str:
    return formatted(value).strip("'") if isinstance(value, str) else str(value)
