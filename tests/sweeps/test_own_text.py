"""Somebody's own text, by changing two lines of a packaged spec."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from sweeps.driver.service import run
from sweeps.records import State
from sweeps.spec import load_spec

WIKITEXT = Path(__file__).parents[3] / "shared" / "data" / "wikitext-2"


@pytest.mark.skipif(not WIKITEXT.is_dir(), reason="WikiText-2 is not beside this project")
@pytest.mark.slow
def test_wikitext_by_changing_two_lines(tmp_path: Path, silent: Any) -> None:
    lines = (resources.files("sweeps") / "specs" / "quickstart-small.yaml").read_text().splitlines()
    mine = [
        f"  source: {WIKITEXT}/valid.txt"
        if line.strip().startswith("source: builtin:stdlib")
        else f"  heldout: {WIKITEXT}/test.txt"
        if line.strip().startswith("heldout: null")
        else line
        for line in lines
    ]
    assert sum(old != new for old, new in zip(lines, mine, strict=True)) == 2
    path = tmp_path / "wikitext.yaml"
    path.write_text("\n".join(mine))
    overrides = ["budget.trials=2", "finalists.seeds=1", "tracking=null"]
    sweep = run(
        load_spec(str(path), overrides=overrides, runs=str(tmp_path / "runs")), silent, runner="inline"
    )
    control, baseline = sweep.records[:2]  # then those under the fresh seed
    assert control.state is baseline.state is State.COMPLETE
    # A model of program text reads prose badly at first, and learns: by much, in 16 steps.
    assert control.initial_loss == baseline.initial_loss
    assert control.initial_loss is not None
    assert control.initial_loss > 4.5
    assert control.value is not None
    assert control.value < control.initial_loss - 0.1
    assert any(note.startswith("tokenising ") for note in silent.notes)
