"""What the first screen shows beside the answer: how commands call the sweep, what ended it, where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from sweeps.report.next_commands import Screen
    from sweeps.results.sweep import Sweep


def screen_of(
    sweep: Sweep,
    reference: str,
    *,
    spec: str | None = None,
    runs: str | None = None,
    study: str | None = None,
) -> Screen:
    """Of a sweep.

    Args:
        sweep: that was run, or found.
        reference: what the user calls it.
        spec: the file or packaged name that was run; None where commands go by the sweep's name.
        runs: the folder of results, where commands would not look by themselves.
        study: its store, where an option named it.
    """
    from sweeps.report.next_commands import Screen
    from sweeps.results.tasks import tasks_of

    # No login goes to a server that only a kept spec names: then commands go by the user's own.
    served = sweep.spec.to_json()["storage"]["study"].startswith("postgresql")
    return Screen(
        name=sweep.spec.name,
        reference=spec if spec and served else reference,
        spec=spec,
        runs=runs,
        study=study,
        ended=sweep.used_up,
        gpus=sweep.spec.resources.all_gpus,
        settings=_remedied(sweep),
        resumable=not sweep.ledger.spec.before_fresh_seeds,
        warm_start=tuple(each.words for each in sweep.ledger.study.warm_start),
        tasks=tasks_of(sweep),
        ladder=tuple(sweep.ledger.spec.budget.ladder),
    )


def _remedied(sweep: Sweep) -> dict[str, Any]:
    """The settings that remedies change, and how many rates the control has by them."""
    spec = sweep.spec
    return {
        "finalists.seeds": spec.finalists.seeds,
        "control.rates": spec.control.rates,
        "control.matched": spec.control.matched,
        "control_rates": spec.control_rates,
        "budget.trials": spec.budget.trials,
        "data.test_tokens": spec.data.test_tokens,
    }


def places(sweep: Sweep) -> dict[str, str]:
    """Where everything of a sweep is, for display; passwords masked."""
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


def elsewhere(root: Path, options: argparse.Namespace) -> str | None:
    """The folder of results, where a command would not look by itself."""
    return str(root) if root.absolute() != options.usual_runs.absolute() else None
