"""Writes the report of a sweep to disk, whole or not at all."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.commands import command
from sweeps.errors import Problem, SpecError
from sweeps.folders import REPORT
from sweeps.out_files import out_file_problems
from sweeps.report.by_source import by_source_text
from sweeps.report.ladder import ladder_text
from sweeps.report.longer import longer_text
from sweeps.report.page.html import page
from sweeps.report.promotions import promotions_text
from sweeps.report.tasks import tasks_text
from sweeps.results.ladder import ladder_of
from sweeps.results.longer import longer
from sweeps.results.tasks import task_table
from sweeps.results.unfinished import progress_of
from sweeps.results.verdict import none_complete
from sweeps.text import these
from tli.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sweeps.records import TrialRecord
    from sweeps.results.sweep import Sweep
    from sweeps.results.verdict import Verdict

_PACKAGES = ("tli-sweeps", "torch", "transformers", "optuna", "ray")


def write_report(sweep: Sweep, reference: str, *, out: Path | None = None, force: bool = False) -> Path:
    """Write the page, whole or not at all; returns where.

    Args:
        sweep: that was run, or runs.
        reference: what the user calls it.
        out: the file; None for the usual one, which is written anew each time.
        force: whether a file that exists may be replaced.

    Raises:
        InputError: no trial is complete, or the file exists or cannot be written.
    """
    records = sweep.records
    verdict, problems = sweep.answer(records), list(_place_problems(out, force=force))
    if verdict.control is None and verdict.answer.grown is None:
        remedy = command("status", reference, runs=sweep.folders.artifacts)
        got = none_complete(verdict)
        problems.insert(0, Problem(f"sweep {sweep.spec.name}", got, "a complete trial", remedy))
    if problems:
        raise SpecError(*problems)
    progress = progress_of(sweep, reference)
    text = page(
        verdict,
        records,
        sweep.ledger.study.search_answers,
        again=_again(sweep, reference),
        spec=sweep.spec.to_json(),
        notes=[*([progress.note] if progress.note else []), *_gone(records)],
        more=_tables(sweep, verdict, records),
    )
    target = out or sweep.folders.report
    try:
        replace_file(target, text.encode())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        got = f"{target}, which cannot be written ({reason})"
        raise SpecError(Problem("--out", got, "a place to write to", "--out FILE")) from None
    return target


def _tables(sweep: Sweep, verdict: Verdict, records: Sequence[TrialRecord]) -> list[list[str]]:
    """What there is beside the figures, as `sweeps best` shows it."""
    ladder = ladder_of(verdict, records, sweep.ledger.spec.budget.ladder)
    return [
        tasks_text(task_table(sweep, verdict, records)),
        by_source_text(verdict),
        longer_text(longer(verdict, records)),
        ladder_text(ladder),
        promotions_text(records, verdict.sources),
    ]


def _place_problems(out: Path | None, *, force: bool) -> Iterator[Problem]:
    if out is not None:
        yield from out_file_problems(out, force=force, usual=REPORT, what="page", is_one=_is_page)


def _is_page(head: bytes) -> bool:
    return head[:15].lower() == b"<!doctype html>"


def _gone(records: Sequence[TrialRecord]) -> Iterator[str]:
    """Which trials ended without the measurements that their curves are drawn from."""
    ended = (each for each in records if each.ours and each.value is not None)
    # The base as it is has no step.
    gone = [each.number for each in ended if each.steps and len(each.losses) < 2]
    if gone:
        yield f"The study has no curve of {these('trial', gone)}: the figures leave out what is gone."


def _again(sweep: Sweep, reference: str) -> dict[str, str]:
    """What it takes to do it again."""
    digests = {f"SHA-256 of {what}": digest for what, digest in sweep.ledger.study.input_digests.items()}
    versions = ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    python = ".".join(map(str, sys.version_info[:3]))
    return {
        "goes on": command("resume", reference, runs=sweep.folders.artifacts),
        "anew": "`sweeps run FILE`, the spec below being the file (JSON is YAML); without enqueued trials",
        "spec's hash": sweep.spec.hash,
        **digests,
        "written with": f"{versions}, Python {python}",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
