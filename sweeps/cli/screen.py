"""What the first screen shows beside the answer: how commands call the sweep, what ended it, where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.report.answer import Screen
    from sweeps.results.sweep import Sweep


def screen_of(sweep: Sweep, reference: str, *, spec: str | None = None, runs: str | None = None) -> Screen:
    """Of a sweep.

    Args:
        sweep: that was run, or found.
        reference: what the user calls it.
        spec: the file or packaged name that was run; None where commands go by the sweep's name.
        runs: the folder of results, where commands would not look by themselves.
    """
    from sweeps.report.answer import Screen

    # No login goes to a server that only a kept spec names: then commands go by the user's own.
    served = sweep.spec.to_json()["storage"]["study"].startswith("postgresql")
    return Screen(
        name=sweep.spec.name,
        reference=spec if spec and served else reference,
        spec=spec,
        runs=runs,
        ended=sweep.used_up,
        gpus=sweep.spec.resources.all_gpus,
    )


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
