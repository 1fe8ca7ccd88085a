"""Without the extra that runs sweeps, the command says what to install."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import sys
for name in ("yaml", "pydantic", "optuna", "ray", "mlflow", "rich"):
    sys.modules[name] = None  # an import of it fails as if it were not there
from sweeps.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [["validate", "quickstart"], ["run", "quickstart"], ["list"]])
def test_what_to_install(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "sweeps: the parts that run sweeps are not installed; pip install 'tli-sweeps[sweeps]'\n"
    )


def test_a_program_is_answered_too() -> None:
    words = [sys.executable, "-c", PROGRAM, "list", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (2, done.stderr.strip())
