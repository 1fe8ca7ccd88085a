"""The page of sizes says what is calculated now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_is_what_its_command_makes() -> None:
    spec = importlib.util.spec_from_file_location("generate_sizes", ROOT / "docs" / "generate_sizes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == module.PAGE.read_text(encoding="utf-8"), (
        "python docs/generate_sizes.py makes it again"
    )
