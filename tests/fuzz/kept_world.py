"""The sweep that is read back by `fuzz_kept`: real, small, and watched for what is written outside of it."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.records import Point, Role, State
from sweeps.spec import Spec, load_spec
from tests.conftest import save_tiny_model

_SPEC = """
name: kept
base: {{model: {model}}}
data: {{source: builtin:stdlib, sequence_length: 16, eval_tokens: 64, test_tokens: 64}}
trial:
  injection: {{method: tli, k: 2, init: identity}}
  recipe: {{learning_rate: 1e-3, tokens: 512, batch_tokens: 64}}
search: {{recipe.learning_rate: {{log: [1e-4, 1e-2]}}}}
budget: {{trials: 4}}
control: {{rates: 1, matched: false}}
finalists: {{top: 1, seeds: 1}}
storage: {{study: sqlite, artifacts: {runs}}}
tracking: null
"""


class World:
    """A real sweep of two trials, small and without Ray: its study, its folder, its files."""

    def __init__(self, home: Path) -> None:
        self.home, self.runs, self.out = home, home / "runs", home / "out"
        spec = home / "kept.yaml"
        spec.write_text(_SPEC.format(model=save_tiny_model(home / "model"), runs=self.runs))
        self.spec: Spec = load_spec(str(spec))
        self.folders = Folders(self.runs, "kept")
        self.folders.write_spec(self.spec.to_json())
        self.url = self.spec.study_url
        self.database = self.runs / "study.db"
        ledger = Ledger.open(self.url, self.spec, {"base": "b", "text": "t"})
        settings = self.spec.trial.model_dump()
        for role in (Role.CONTROL, Role.BASELINE):
            made = ledger.start(role, settings)
            for step in (0, made.steps):
                ledger.report(made.number, 1, [point(step)])
            ledger.tell(made.number, 1, State.COMPLETE, totals=point(made.steps).totals)
        self.assignment = ledger.start(Role.SEARCH, settings, params={"recipe.learning_rate": 1e-3})
        ledger.record_completion("trials", 0.001)
        ledger.study.note_wall(5.0)
        self.ledger = ledger
        self._writing = False
        sys.addaudithook(self._audit)

    @staticmethod
    @cache
    def made() -> World:
        """One for all runs of this process; in memory where that can be, as a disk would be most of the time."""
        memory = Path("/dev/shm")
        folder = tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return World(Path(folder))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Whatever is opened for writing, made, renamed or removed lies in this world."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def _audit(self, event: str, details: tuple[Any, ...]) -> None:
        if not self._writing or event not in _WRITES:
            return
        if event in ("os.remove", "os.rmdir") and details[1] != -1:
            return  # by `shutil.rmtree`, which said itself what it removes
        if event == "open" and not (isinstance(details[2], int) and details[2] & _FOR_WRITING):
            return
        for place in details[: _WRITES[event]]:
            inside = isinstance(place, int) or Path(os.fsdecode(place)).absolute().is_relative_to(self.home)
            if not inside and os.fsdecode(place) not in (os.devnull, str(self.home)):
                raise AssertionError(f"{event} outside: {place!r}")


_WRITES = {
    "open": 1,
    "os.rename": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "shutil.rmtree": 1,
}
_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def point(step: int) -> Point:
    return Point(step, step * 64, step * 1e6, step * 0.5, 3.0, ((step, 3.5),) if step else (), 1e9)
