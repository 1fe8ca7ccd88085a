"""Lists the sweeps under a runs folder, those that cannot be read with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps import addresses
from sweeps.checks import stores
from sweeps.errors import Problem, SpecError
from sweeps.ledger.reading import is_readable
from sweeps.ownership import names_under
from sweeps.records import TrialRecord
from sweeps.results.candidates import Candidate
from sweeps.results.finding import find
from sweeps.results.kept import is_file
from sweeps.results.ranking import best_of
from sweeps.wording import masked


@dataclass(frozen=True)
class Listed:
    """One line of a list of sweeps; with a `reason` where the sweep cannot be read."""

    records: Sequence[TrialRecord] = ()
    finished: bool = False
    driver: str | None = None  # the process that drives it now
    reason: str | None = None
    best: Candidate | None = None  # what its answer hands over


def sweeps_in(runs: Path) -> dict[str, Listed]:
    """Every sweep whose results lie under a folder, by name, those that cannot be read with the reason.

    Raises:
        SpecError: the folder is none.
    """
    if runs.exists() and not runs.is_dir():
        raise SpecError(Problem("runs", f"{str(runs)!r}, a file", "the folder of all results"))
    listed = {}
    for name in names_under(runs):
        try:
            sweep = find(name, runs=str(runs))
            with stores.readable(sweep.spec.study_url, name):
                records, ledger = sweep.records, sweep.ledger
                best = best_of(sweep.answer(records))
                listed[name] = Listed(records, ledger.finished, ledger.driver, best=best)
        except SpecError as error:
            listed[name] = Listed(reason=_reason(error.problems))
        except Exception as error:  # noqa: BLE001 - one that cannot be read hides no other
            text = masked(" ".join(str(error).split()))[:200]
            listed[name] = Listed(reason=f"{type(error).__name__}: {text}")
    reason = _unreadable(runs / "study.db")
    if reason is not None and reason not in [each.reason for each in listed.values()]:
        listed["study.db"] = Listed(reason=reason)
    return listed


def _unreadable(file: Path) -> str | None:
    """Why the store of a folder's studies cannot be read; what is in it is listed by nothing else."""
    url = addresses.url_of(file)
    if not is_file(file):
        return None
    problems = list(stores.store(url, str(file), table="studies", written=False))
    found = problems or (() if is_readable(url) else study_problems(url, str(file)))
    return _reason(found) if found else None


def study_problems(url: str, where: str) -> Sequence[Problem]:
    """Why a store that is there cannot be read by this Optuna; none where it can."""
    from sweeps.ledger import look

    try:
        with stores.readable(url, where):
            look(url)
    except SpecError as error:
        return error.problems
    return ()


def _reason(problems: Sequence[Problem]) -> str:
    first = problems[0]
    return f"{first.got}; try {first.remedy}" if first.remedy else first.got
