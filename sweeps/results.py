"""Sweeps that were run: found by name, looked at, and their models taken home."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import reach
from sweeps.errors import Problem, SpecError
from sweeps.folders import Folders
from sweeps.ledger import Ledger
from sweeps.records import TrialRecord
from sweeps.selection import Verdict, verdict
from sweeps.spec import Spec, load_spec, packaged
from sweeps.wording import masked


@dataclass(frozen=True)
class Sweep:
    """A sweep that can be looked at: its spec, its places, its ledger."""

    spec: Spec
    folders: Folders
    ledger: Ledger

    @property
    def records(self) -> list[TrialRecord]:
        """Every trial."""
        return self.ledger.trials()

    @property
    def verdict(self) -> Verdict:
        """The answer so far."""
        return verdict(self.records, top=self.spec.finalists.top, seeds=self.spec.finalists.seeds)


def find(reference: str, *, runs: str | None = None, study: str | None = None) -> Sweep:
    """A sweep that was run: by its name under the runs folder, or by its spec file.

    What it is comes from its study; where it is, from the folder it was found in and the arguments.

    Args:
        reference: a name, or a spec file.
        runs: the artifacts folder; `runs` by default.
        study: the study's URL, where it is not the one that the spec was kept with.

    Raises:
        SpecError: there is no such sweep, or its store does not answer.
    """
    root = Path(runs or "runs")
    kept = root / reference / "spec.json"
    if kept.is_file():
        spec = _kept(kept, root)
    elif Path(reference).is_file() or reference in packaged():
        spec = load_spec(reference, runs=runs)
    else:
        raise SpecError(Problem(reference, f"no sweep in {root}", _known(root), "sweeps list"))
    if study is not None:
        spec = spec.model_copy(update={"storage": spec.storage.model_copy(update={"study": study})})
    ledger = Ledger.read(_answering(spec, "--study" if study else "storage.study"), spec.name)
    here = ledger.spec.model_copy(update={"storage": spec.storage, "tracking": spec.tracking})
    return Sweep(here, Folders(spec.root, spec.name), ledger)


def _answering(spec: Spec, where: str) -> str:
    """The URL of the study's store, seen to be there."""
    url = spec.study_url
    if "***" in url:  # results keep no password
        raise SpecError(
            Problem(
                where,
                f"{url!r}, whose password was not kept",
                "the whole address",
                "--study postgresql://...",
            )
        )
    if url.startswith("sqlite:///"):
        problems = list(reach.sqlite(url, where))
        if not problems and not reach.may_exist(url):
            file = url.removeprefix("sqlite:///")
            problems = [
                Problem(spec.name, f"no study at {file}", "a sweep that was run", f"sweeps run {spec.name}")
            ]
    elif url.startswith(("postgresql://", "postgresql+")):
        problems = list(reach.postgres(url, where))
    else:
        problems = [
            Problem(where, repr(masked(url)), "an address sqlite:///FILE or postgresql://USER@HOST/NAME")
        ]
    if problems:
        raise SpecError(*problems)
    return url


def sweeps_in(runs: Path) -> tuple[dict[str, Sweep], dict[str, str]]:
    """Every sweep whose results lie under a folder, by name; and of those that cannot be read, why."""
    found, unreadable = {}, {}
    for kept in sorted(runs.glob("*/spec.json")):
        name = kept.parent.name
        try:
            found[name] = find(name, runs=str(runs))
        except SpecError as error:
            unreadable[name] = str(error.problems[0])
    return found, unreadable


def export(sweep: Sweep, out: Path, *, number: int | None = None) -> int:
    """Copy a trained model out; without a number, the best one. Returns the trial's number.

    Raises:
        SpecError: the trial does not exist, did not complete, or its weights were not kept.
        CheckpointError: `out` exists, or the weights are not those that were written.
    """
    from tli.export import copy_model

    chosen = sweep.verdict.best if number is None else number
    records = {record.number: record for record in sweep.records}
    if chosen is None or chosen not in records:
        got = "no complete trial yet" if chosen is None else f"trial {chosen}, which is not there"
        raise SpecError(
            Problem(f"sweep {sweep.spec.name}", got, "a complete trial", f"sweeps status {sweep.spec.name}")
        )
    source = sweep.folders.final(chosen)
    if not (source / "lineage.json").is_file():
        held = (
            ", ".join(str(n) for n in records if (sweep.folders.final(n) / "lineage.json").is_file())
            or "none"
        )
        raise SpecError(
            Problem(
                f"trial {chosen}",
                f"{records[chosen].state.value}, whose weights were not kept",
                f"one of the trials kept: {held}",
                f"sweeps trial {sweep.spec.name} {chosen} --out {out}",
            )
        )
    record = records[chosen]
    facts = {
        "heldout_loss": record.value,
        "initial_loss": record.initial_loss,
        "verdict": sweep.verdict.to_json(),
    }
    copy_model(source, out, lineage=facts)
    return chosen


def places(sweep: Sweep) -> dict[str, str]:
    """Where everything of a sweep is, for a person; passwords masked."""
    spec, root = sweep.spec.to_json(), sweep.folders.artifacts
    study = spec["storage"]["study"]
    tracking = spec["tracking"]
    shown = {
        "study": f"{root / 'study.db'}, study {sweep.spec.name!r}" if study == "sqlite" else study,
        "MLflow": "not tracked",
        "trials": str(sweep.folders.sweep / "trials"),
    }
    if tracking is not None:
        shown["MLflow"] = str(root / "mlflow.db") if tracking["uri"] == "sqlite" else tracking["uri"]
    return shown


def _kept(file: Path, root: Path) -> Spec:
    try:
        values: Mapping[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        got = f"no JSON ({' '.join(str(error).split())[:80]})"
        raise SpecError(
            Problem(str(file), got, "the spec that a run keeps there", "the spec's own file")
        ) from None
    spec = Spec.from_json(values, name=str(file))
    storage = spec.storage.model_copy(update={"artifacts": str(root.absolute())})
    return spec.model_copy(update={"storage": storage})


def _known(root: Path) -> str:
    names = [file.parent.name for file in sorted(root.glob("*/spec.json"))]
    return f"one of {', '.join(names)}" if names else "a sweep that was run"
