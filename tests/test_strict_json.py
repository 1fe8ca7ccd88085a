"""JSON that is written for other programs holds no NaN and no Infinity, which only Python would read."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest

from sweeps.cli.output import print_json

ROOT = Path(__file__).parent.parent


def test_whatever_tli_writes_is_strict() -> None:
    """A value that is none would be our mistake, so it raises; what comes from outside is checked on reading."""
    lax = []
    for path in sorted((ROOT / "tli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dump", "json.dumps"):
                strict = any(word.arg == "allow_nan" for word in node.keywords)
                lax += [] if strict else [f"{path.relative_to(ROOT)}:{node.lineno}"]
    allowed = (
        "tli/training/state.py",
        "tli/data/batches.py",
    )  # a state that only its own training reads; a key that is hashed
    assert [place for place in lax if not place.startswith(allowed)] == []


def test_an_answer_to_a_program_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": math.nan, "rates": [math.inf, -math.inf, 0.5], "place": Path("/x")})
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told == {"schema": 2, "loss": None, "rates": [None, None, 0.5], "place": "/x"}
