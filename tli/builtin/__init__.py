"""What comes with the package: a small Llama that has learned the text of Python's standard library."""

from __future__ import annotations

from pathlib import Path

MODELS = {"builtin:tiny-llama": Path(__file__).parent / "tiny-llama"}
