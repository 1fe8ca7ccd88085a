"""`sweeps doctor`: checks of versions, machine, stores and cluster. Read-only."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from sweeps.addresses import url_of
from sweeps.checks.machine import cores, existing, free_space, memory, writable
from sweeps.cli.findings import Finding, first_line, text
from sweeps.cli.health import cluster, store, study
from sweeps.driver.on_ray.temp_dirs import LONGEST, SHORTEST, fits_ray
from sweeps.environment import for_child
from sweeps.text import counted
from sweeps.wording import masked

__all__ = ["Finding", "examine", "text"]

DISTRIBUTION = "tli-sweeps"
MAIN = ("torch", "transformers", "ray", "optuna", "mlflow")  # always shown; of the others, what is wrong
ENOUGH_DISK = 2 * 2**30  # bytes: the quickstart writes a tenth of it
ENOUGH_MEMORY = 2 * 2**30


def examine(
    runs: Path,
    *,
    study_url: str | None = None,
    mlflow_uri: str | None = None,
    address: str | None = None,
    threads: str | None = None,
) -> list[Finding]:
    """Look at everything a sweep rests on; never raises.

    Args:
        runs: folder that sweeps write to.
        study_url: of the study's store, None for the file in `runs`.
        mlflow_uri: of the tracking store, None for the file in `runs`.
        address: of a Ray cluster, HOST:PORT; None looks at none.
        threads: what the environment has as OMP_NUM_THREADS.
    """
    kept = study_url if study_url not in (None, "sqlite") else url_of(runs.absolute() / "study.db")
    tracking = mlflow_uri if mlflow_uri not in (None, "sqlite") else url_of(runs.absolute() / "mlflow.db")
    looks: list[tuple[str, Callable[[], Finding | list[Finding]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("cores", _cores),
        ("threads", lambda: _threads(threads)),
        ("memory", _memory),
        ("GPUs", _gpus),
        ("disk", lambda: _disk(runs)),
        ("temporary folder", _temporary),
        ("study", lambda: study(str(kept))),
        ("MLflow", lambda: store("MLflow", str(tracking), "experiments")),
    ]
    if address is not None:
        looks.append(("cluster", lambda: cluster(address)))
    findings: list[Finding] = []
    for name, look in looks:
        try:
            found = look()
        except Exception as error:  # noqa: BLE001 - one check that fails must not end the others
            found = Finding.note(name, f"could not be looked at: {masked(first_line(error))}")
        findings += found if isinstance(found, list) else [found]
    return findings


# -- software ------------------------------------------------------------------------------------------------


def _python() -> Finding:
    wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    ok = _within(platform.python_version(), wanted)
    detail = f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}"
    return Finding("python", ok, detail, f"a Python {wanted}")


def _within(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _packages() -> list[Finding]:
    from packaging.requirements import Requirement

    findings = []
    for line in metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        extra = "" if "extra" not in str(requirement.marker) else "sweeps"
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            findings.append(
                Finding.wrong(requirement.name, f"missing; {requirement.specifier} is needed", remedy)
            )
            continue
        ok = requirement.specifier.contains(version, prereleases=True)
        detail = version if ok else f"{version}, and {requirement.specifier} is needed"
        if requirement.name in MAIN or not ok:
            findings.append(Finding(requirement.name, ok, detail, remedy))
    return sorted(findings, key=lambda finding: finding.ok is True)


# -- machine -------------------------------------------------------------------------------------------------


def _cores() -> Finding:
    usable, limit = cores(), _cgroup_cores()
    detail = f"{usable} of {os.cpu_count()} usable"
    if limit is not None and limit < usable:
        remedy = f"--set resources.parallel={max(1, int(limit))}"
        return Finding.note("cores", f"{detail}, but the container may use {limit:g} at a time", remedy)
    return Finding.good("cores", detail)


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that this container may use, None without a limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota = (root / "cpu/cpu.cfs_quota_us").read_text()
        return int(quota) / int((root / "cpu/cpu.cfs_period_us").read_text()) if int(quota) > 0 else None
    return None


def _threads(value: str | None) -> Finding:
    name = "OMP_NUM_THREADS"
    if value is None:
        return Finding.good(name, "not set; every trial takes as many threads as it has CPUs")
    if not value.strip().isdecimal() or int(value) < 1:
        return Finding.wrong(name, f"{value!r} is no number of threads", f"unset {name}")
    if int(value) > cores():
        detail = f"{value}, more than the {counted(cores(), 'core')} here: threads would spin"
        return Finding.wrong(name, detail, f"unset {name}")
    return Finding.good(name, value)


def _memory() -> Finding:
    total, free = memory(), _available()
    if total is None or free is None:
        return Finding.note("memory", "the system does not say")
    free = min(free, total)
    detail = f"{_size(free)} free of {_size(total)}"
    return Finding(
        "memory", free >= ENOUGH_MEMORY, detail, "smaller or fewer trials at once: resources.parallel"
    )


def _available() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _gpus() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding.good("GPUs", "none")
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    asked = subprocess.run(command, env=for_child(), capture_output=True, text=True, timeout=20, check=False)
    if asked.returncode != 0:
        said = (asked.stdout + asked.stderr).strip().splitlines() or ["nothing"]
        return Finding.wrong("GPUs", f"nvidia-smi says: {said[0]}", "the driver's installation")
    return Finding.good("GPUs", "; ".join(asked.stdout.strip().splitlines()) or "none")


def _disk(runs: Path) -> Finding:
    place, free = existing(runs), free_space(runs)
    detail = f"{_size(free)} free in {place}"
    if not writable(place):
        return Finding.wrong("disk", f"{place} cannot be written to", "--runs DIR")
    return Finding("disk", free >= ENOUGH_DISK, detail, "--runs DIR on a larger disk")


def _temporary() -> Finding:
    """Where Ray's sockets go when a run starts it here."""
    name, wanted = "temporary folder", Path(tempfile.gettempdir())
    fits = [fits_ray(place) for place in (wanted, SHORTEST)]
    if fits[0]:
        return Finding.good(name, str(wanted))
    why = f"{wanted} is too long a path for Ray's sockets, or not to be written to"
    if fits[1]:
        return Finding.note(name, f"{why}; they go to {SHORTEST}", f"export TMPDIR={SHORTEST}")
    return Finding.wrong(
        name, f"{why}, and so is {SHORTEST}", f"export TMPDIR=DIR of at most {LONGEST - 24} characters"
    )


def _size(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB"
