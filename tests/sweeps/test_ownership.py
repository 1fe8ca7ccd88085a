"""What lies on disk is used by the study and the trial that wrote it, and by no other of its name or number."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.curve import CURVE, append_curve, read_curve
from sweeps.driver.service import run
from sweeps.driver.single import assignment_of
from sweeps.errors import LedgerHeldError, SpecError, StopRequestedError
from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.ownership import MARK, claimed, is_set_aside, owner_of, refuse_others, study_uuid_in
from sweeps.records import Assignment, Point, Role
from sweeps.results.export import export
from sweeps.results.finding import find
from sweeps.results.listing import sweeps_in
from sweeps.results.sweep import Sweep
from sweeps.spec import Spec, load_spec
from sweeps.tracking.outbox import Outbox, open_lock, read_events
from sweeps.worker.trial import for_workers

RATE = {"learning_rate: 1e-3, tokens": "learning_rate: 1e-1, tokens"}


class Stopping:
    """Watches a sweep, keeps what it says, and stops it in the middle of its second trial."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, records: Any, phase: str) -> None:
        if len(records) == 2 and records[1].step >= 4:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, what: str, amount: str, share: float | None) -> None:
        """Not kept."""


def losses(sweep: Sweep) -> list[dict[int, float]]:
    return [dict(record.losses) for record in sweep.records]


def dead(spec: Spec) -> None:
    """A sweep that was stopped in the middle, with states on disk, and whose study was deleted."""
    with pytest.raises(KeyboardInterrupt):
        run(spec, Stopping(), runner="inline")
    optuna.delete_study(study_name=spec.name, storage=spec.study_url)


def test_a_new_study_uses_nothing_of_a_dead_one_of_its_name(
    write_spec: Any, silent: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sweeps.worker.saving.CHECKPOINT_SECONDS", 0.0)
    first = load_spec(str(write_spec(trials=2)))
    dead(first)
    left = {path.name for path in (first.root / "tiny").rglob("*")}
    assert any(name.startswith("step-") for name in left)
    monkeypatch.setattr("sweeps.worker.saving.CHECKPOINT_SECONDS", 15.0)
    second = run(load_spec(str(write_spec(trials=2, replace=RATE))), silent, runner="inline")
    clean = load_spec(str(write_spec(trials=2, replace=RATE)), runs=str(tmp_path / "clean"))
    assert losses(second) == losses(run(clean, silent, runner="inline"))
    (note,) = (note for note in silent.notes if "before-1" in note)
    assert str(second.folders.sweep) in note
    aside = first.root / "tiny.before-1"
    assert left <= {path.name for path in aside.rglob("*")}, "set aside whole"
    assert list(sweeps_in(first.root)) == ["tiny"], "what was set aside is no sweep"
    again = run(load_spec(str(write_spec(trials=2, replace=RATE))), silent, runner="inline")
    assert losses(again) == losses(second)
    assert not (first.root / "tiny.before-2").exists(), "its own folder is not set aside"


def test_two_stores_over_one_folder_get_their_own_back(write_spec: Any, silent: Any, tmp_path: Path) -> None:
    """Two studies of one name: each run sets the other's folder aside and takes its own up again."""
    stores = [f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other")]
    specs = [load_spec(str(write_spec(trials=2, study=url))) for url in stores]
    one = run(specs[0], silent, runner="inline")
    weights = (one.folders.model_dir(1, 1) / "model.safetensors").read_bytes()
    run(specs[1], silent, runner="inline")
    assert one.model_of(one.records[1]) is None, "in the folder is the other's"
    assert study_uuid_in(specs[0].root / "tiny.before-1") == one.ledger.study.study_uuid
    back = run(specs[0], silent, runner="inline")
    assert (back.folders.model_dir(1, 1) / "model.safetensors").read_bytes() == weights
    assert back.model_of(back.records[1]) == back.folders.model_dir(1, 1)
    assert [path.name for path in specs[0].root.iterdir() if is_set_aside(path.name)] == ["tiny.before-2"]
    # A model of another trial in its place, and one that does not say whose it is.
    kept = back.folders.model_dir(1, 1)
    shutil.rmtree(kept)
    shutil.copytree(back.folders.model_dir(0, 1), kept)
    with pytest.raises(SpecError, match="another trial's"):
        export(back, tmp_path / "out", trial=1)
    lineage = json.loads((kept / "lineage.json").read_text())
    del lineage["owner"]
    (kept / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(SpecError):
        export(back, tmp_path / "out", trial=1)
    assert not (tmp_path / "out").exists()


def test_an_owner_is_a_study_a_trial_and_all_that_was_trained() -> None:
    given: dict[str, Any] = {"study_uuid": "a", "number": 1, "request": "r", "settings": {"x": 1}, "steps": 4}
    others = [{"study_uuid": "b"}, {"number": 2}, {"request": "s"}, {"settings": {"x": 2}}, {"steps": 5}]
    owners = {owner_of(**{**given, **other}) for other in [{}, *others]}
    assert len(owners) == 1 + len(others)
    assert owner_of(**given).startswith("a/1/")


def test_points_of_another_are_not_read(tmp_path: Path) -> None:
    point = Point(0, 0, 0.0, 0.0, 5.0)
    append_curve(tmp_path / CURVE, point, "dead/1/x")
    with (tmp_path / CURVE).open("a") as old:
        old.write(json.dumps(point.to_json()) + "\n")  # as it was written before points had an owner
    append_curve(tmp_path / CURVE, replace(point, eval_loss=3.0), "ours/1/x")
    assert [each.eval_loss for each in read_curve(tmp_path / CURVE, "ours/1/x")] == [3.0]
    assert read_curve(tmp_path / CURVE, "other") == []


def held_and_claimed(folders: Folders, identity: str, said: list[str]) -> None:
    with folders.driver_lock(), claimed(folders, identity, said.append):
        (folders.make(folders.trial(0)) / identity).touch()


def test_a_claim(tmp_path: Path) -> None:
    folders, said = Folders(tmp_path / "runs", "a"), list[str]()
    held_and_claimed(folders, "one", said)
    held_and_claimed(folders, "one", said)
    assert said == []
    (folders.artifacts / "a.before-1").mkdir()  # a name that is taken
    held_and_claimed(folders, "two", said)
    assert [path.name for path in folders.trial(0).iterdir()] == ["two"]
    assert (folders.artifacts / "a.before-2" / "trials/0000/one").exists()
    (folders.sweep / MARK).write_text("[" * 4000)  # no mark can be read: it is nothing that may be used
    held_and_claimed(folders, "three", said)
    assert (folders.artifacts / "a.before-3" / "trials/0000/two").exists()
    assert len(said) == 2
    shutil.rmtree(folders.sweep)
    held_and_claimed(folders, "one", said)
    assert sorted(path.name for path in folders.trial(0).iterdir()) == ["one"], "taken up again"
    with pytest.raises(SpecError, match="another study"):
        refuse_others(folders, "two")
    refuse_others(folders, "one")


def test_the_folder_is_held_after_another_was_set_aside(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "runs", "a")
    held_and_claimed(folders, "one", [])
    driving = folders.driver_lock(), claimed(folders, "two", lambda _: None)
    with driving[0], driving[1], pytest.raises(LedgerHeldError), folders.driver_lock():
        pass


def test_a_worker_whose_folder_is_anothers_ends(write_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.worker.execution import Execution

    monkeypatch.setattr("sweeps.worker.execution._LOOKED_EVERY", 0.0)
    spec = for_workers(load_spec(str(write_spec())))
    execution = Execution(spec, replace(assignment_of(spec, 1), study_uuid="of the dead sweep"))
    folders = Folders(spec.root, spec.name)
    folders.make(folders.sweep)
    execution._on_work("step")
    (folders.sweep / MARK).write_text(json.dumps({"identity": "of the new one"}))
    with pytest.raises(StopRequestedError, match="another study"):
        execution._on_work("step")


# -- links, which a received folder may hold -------------------------------------------------------


def elsewhere(tmp_path: Path) -> Path:
    """A file and a folder of the user's."""
    (tmp_path / "home" / "kept").mkdir(parents=True)
    (tmp_path / "home" / "file").write_text("mine")
    (tmp_path / "home" / "kept" / "final-1").mkdir()
    return tmp_path / "home"


def unchanged(home: Path) -> bool:
    names = sorted(path.name for path in home.rglob("*"))
    return names == ["file", "final-1", "kept"] and (home / "file").read_text() == "mine"


@pytest.mark.parametrize("place", ["", "trials", "trials/0003"])
def test_a_folder_that_is_a_link_is_refused(tmp_path: Path, place: str) -> None:
    home, folders = elsewhere(tmp_path), Folders(tmp_path / "runs", "a")
    link = folders.sweep / place
    link.parent.mkdir(parents=True)
    link.symlink_to(home / "kept")
    with pytest.raises(SpecError) as refused, folders.driver_lock():
        pass
    assert [problem.where for problem in refused.value.problems] == [str(link)]
    folders.drop_finals(3)
    folders.drop_checkpoints(3)
    with pytest.raises(OSError, match="link"):
        folders.make(folders.checkpoints(3))
    assert unchanged(home)


def _lock(folders: Folders, assignment: Assignment) -> None:
    with folders.driver_lock():
        pass


WRITERS: dict[str, tuple[str, Callable[[Folders, Assignment], Any]]] = {
    "lock": ("driver.lock", _lock),
    "outbox": ("outbox.jsonl", lambda folders, _: Outbox(folders.sweep)),
    "outbox lock": ("outbox.lock", lambda folders, _: open_lock(folders.sweep)),
    "curve": (
        f"trials/0003/{CURVE}",
        lambda f, _: append_curve(f.trial(3) / CURVE, Point(0, 0, 0.0, 0.0, 1.0)),
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_a_link_is_not_written_through(tmp_path: Path, name: str) -> None:
    home, folders = elsewhere(tmp_path), Folders(tmp_path / "runs", "a")
    place, write = WRITERS[name]
    link = folders.sweep / place
    link.parent.mkdir(parents=True)
    link.symlink_to(home / "file")
    with pytest.raises((OSError, SpecError)):
        write(folders, Assignment("a", 3, 1, Role.SEARCH, {}, 1, (1,)))
    assert unchanged(home)


def test_what_is_replaced_is_the_link_and_not_its_target(tmp_path: Path) -> None:
    home, folders = elsewhere(tmp_path), Folders(tmp_path / "runs", "a")
    assignment = Assignment("a", 3, 1, Role.SEARCH, {}, 1, (1,), token="t")
    folders.make(folders.trial(3))
    aside = f".spec.json.tmp-{os.getpid()}"
    for link in (folders.spec, folders.sweep / aside, folders.stop_request(3, 1)):
        link.symlink_to(home / "file")
    folders.write_spec({"name": "a"})
    folders.request_stop(assignment)
    assert folders.stop_requested(assignment)
    assert json.loads(folders.spec.read_text()) == {"name": "a"}
    assert unchanged(home)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """It would be waited for, for ever."""
    os.mkfifo(tmp_path / CURVE)
    assert read_curve(tmp_path / CURVE) == []
    os.mkfifo(tmp_path / "outbox.jsonl")
    with pytest.raises(OSError, match="not a file"):
        list(read_events(tmp_path / "outbox.jsonl"))


def begun(spec: Spec) -> None:
    """A sweep with one trial."""
    spec.root.mkdir(exist_ok=True)
    Ledger.open(spec.study_url, spec).start(Role.BASELINE, spec.trial.model_dump())
    Folders(spec.root, spec.name).write_spec(spec.to_json())


def test_one_that_cannot_be_read_hides_no_other(write_spec: Any, tmp_path: Path) -> None:
    """Brackets a hundred thousand deep, and an odd attribute: each is one line of the list."""
    spec = load_spec(str(write_spec()))
    begun(spec)
    deep = spec.root / "deep"
    deep.mkdir()
    (deep / "spec.json").write_text("[" * 100_000)
    odd = load_spec(str(write_spec("odd", study=f"sqlite:///{tmp_path}/odd.db")))
    begun(odd)
    study = optuna.load_study(study_name="odd", storage=odd.study_url)
    study.set_user_attr("sweeps:finished", [{"trials": "many"}])
    listed = sweeps_in(spec.root)
    assert {name: each.reason is None for name, each in listed.items()} == {
        "deep": False,
        "odd": False,
        "tiny": True,
    }
    assert "sweeps:finished" in str(listed["odd"].reason)
    study.set_user_attr("sweeps:spec", 5)
    assert "sweeps:spec" in str(sweeps_in(spec.root)["odd"].reason)
    assert len(find("tiny", runs=str(spec.root)).records) == 1
